"""What one more day of events costs and gives: an incremental run beside a full one as of the same day.

``python -m benchmarks.one_more_day --day 2010-10-13 [--days 14] [--folder F] [--json]``

Method: three runs of the commit on the shop of params.yaml, each in a workspace of its own. ``full`` starts from
nothing as of the day; ``incremental`` is the next day's run in the same ``FUSELINE_HOME``, which takes over what did
not change and warms its neural members up from the run before; ``reference`` starts from nothing as of the next day.
All are promoted, so registry, Bento and swap are in the times. Then the two bundles of the later day answer every
customer of the ``--days`` after it, which neither has seen; the paired difference has its 95 % interval. The three
runs follow each other on the same machine; a folder that has a run's result goes on after it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.telling import add_output, say, tell
from pipelines import champion
from pipelines import params as parameters
from pipelines.actions.runs import worktree
from pipelines.actions.runs.places import Run
from pipelines.actions.runs.whole import run_whole
from pipelines.adapters import frames
from pipelines.bundle import Bundle
from pipelines.contracts import Surface
from pipelines.evaluation import bootstrap, protocol
from pipelines.evaluation import targets as audiences
from pipelines.ingestion.canonical import ingest, snapshot
from pipelines.interactions import interactions, targets
from pipelines.replay.log import ONE_DAY, midnight
from pipelines.splitting import Instant
from pipelines.storage import read_json, replacing_folder, write_json

METRIC = "ndcg@10"
SURFACES = (Surface.RECOMMEND, Surface.RECOMMEND_NEW)
TARGET_SHARE = 1 / 3
SEED = 7


@dataclass(frozen=True)
class Made:
    """A run's wall time and the folder of the bundle that it serves."""

    name: str
    as_of: date
    seconds: float
    verdict: str
    bundle: Path


def main() -> None:
    """Run, compare, print."""
    told = _arguments()
    with ExitStack() as stack:
        folder = told.folder and told.folder.absolute()
        folder = folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fuseline-bench-")))
        report = measured(folder, Path.cwd(), told.day, timedelta(days=told.days))
    tell(report, told, _print)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="One more day of events: incremental beside full.")
    parser.add_argument("--day", type=date.fromisoformat, required=True, help="as_of of the first run, YYYY-MM-DD")
    parser.add_argument("--days", type=int, default=14, help="after the second run's as_of; lists are compared on them")
    parser.add_argument("--folder", type=Path, help="where runs lie and stay; default: a folder that goes at the end")
    add_output(parser)
    return parser.parse_args()


def measured(folder: Path, checkout: Path, day: date, period: timedelta) -> dict[str, Any]:
    """Both ways to a bundle of the day after ``day``, their times, and their lists in the ``period`` after it."""
    laid = _lay(folder, checkout)
    runs = [
        _made(folder, laid, "full", folder / "incremental", day),
        _made(folder, laid, "incremental", folder / "incremental", day + ONE_DAY),
        _made(folder, laid, "reference", folder / "reference", day + ONE_DAY),
    ]
    full, incremental, reference = (run.seconds for run in runs)
    return {
        "runs": [vars(run) | {"as_of": str(run.as_of), "bundle": str(run.bundle)} for run in runs],
        "share_of_full": round(incremental / max(full, reference), 3),
        "target_share": round(TARGET_SHARE, 3),
        "days_compared": period.days,
        "surfaces": {str(surface): _compared(folder, laid, runs, surface, period) for surface in SURFACES},
        "machine": f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the end",
    }


def _lay(folder: Path, checkout: Path) -> Path:
    """A worktree of the commit that has nobody's results, so that a first run starts from nothing."""
    laid = folder / "checkout"
    export = checkout / parameters.load(checkout / worktree.PARAMS).data.path
    worktree.lay_shop(checkout, laid, path=str(export.resolve()))
    return laid


def _made(folder: Path, laid: Path, name: str, home: Path, as_of: date) -> Made:
    path = folder / f"{name}.json"
    if not path.exists():
        say(f"{name}: a run as of {as_of}")
        began = time.perf_counter()
        run = Run(home, f"{name}-{as_of}")
        outcome = run_whole(run, laid, as_of=midnight(as_of), force=True, reason="benchmark", say=say)
        seconds = round(time.perf_counter() - began, 1)
        now = champion.read(home)
        assert now is not None  # noqa: S101 - it was forced
        kept = shutil.copytree(now.bundle, folder / "bundles" / name, dirs_exist_ok=True)
        write_json(path, {"seconds": seconds, "verdict": outcome.verdict, "bundle": str(kept)})
    found = read_json(path)
    return Made(name, as_of, found["seconds"], found["verdict"], Path(found["bundle"]))


def _compared(folder: Path, laid: Path, runs: list[Made], surface: Surface, period: timedelta) -> dict[str, Any]:
    """Both bundles of the later day on the same customers, and what incremental is above or below the reference."""
    window = Instant("after", midnight(runs[-1].as_of), midnight(runs[-1].as_of) + period)
    wanted = audiences.read(_targets(folder, laid, window))[window.name]
    values: dict[str, np.ndarray] = {}
    for run in runs[1:]:
        bundle = Bundle.load(run.bundle)
        group = audiences.audience(bundle.features, wanted, surface, max_users=len(wanted.users), seed=SEED)
        lists = protocol.PLAIN.fused(bundle, group)
        values[run.name] = protocol.measure(lists.codes, group, bundle.features)[METRIC]
    apart = bootstrap.difference(values["incremental"], values["reference"], seed=SEED)
    return {
        "users": len(values["reference"]),
        METRIC: {name: round(float(np.nanmean(found)), 5) for name, found in values.items()},
        "incremental_minus_reference": apart and apart.as_difference(),
    }


def _targets(folder: Path, laid: Path, window: Instant) -> Path:
    """What customers did in the window, read once."""
    source = folder / "source"
    if not source.exists():
        params = parameters.load(laid / "params.yaml")
        data = params.data.model_copy(update={"as_of": window.until})
        taken = snapshot.take(data, home=source, root=laid)
        with replacing_folder(source) as aside:
            told = ingest.ingest(taken, data, home=aside, artifacts=aside)
            with frames.engine() as connection:
                events = frames.read(connection, aside / "canonical" / "events.parquet")
                rows = interactions(events, target=told.target, strengths=told.strengths or {})
                order = ["instant", "history_id", "item_id"]
                frames.write(targets(rows, [window]), aside / "targets.parquet", order=order)
    return source / "targets.parquet"


def _print(report: dict[str, Any]) -> None:
    console = Console()
    table = Table(title=f"One more day, {report['machine']}")
    for name in ("run", "as of", "seconds", "verdict"):
        table.add_column(name, justify="right" if name == "seconds" else "left")
    for run in report["runs"]:
        table.add_row(run["name"], run["as_of"], f"{run['seconds']:.0f}", run["verdict"])
    console.print(table)
    console.print(f"incremental: {report['share_of_full']:.2f} of a full run (target {report['target_share']:.2f})")
    for surface, found in report["surfaces"].items():
        apart = found["incremental_minus_reference"]
        means = ", ".join(f"{name} {value:.4f}" for name, value in found[METRIC].items())
        difference = f"{apart['mean_difference']:+.4f} ({apart['ci_low']:+.4f} to {apart['ci_high']:+.4f})"
        console.print(f"{surface}: {METRIC} {means}; difference {difference}, {found['users']} users")


if __name__ == "__main__":
    main()
