"""Training speed of our two towers beside the model of the TF-Recommenders retrieval tutorial.

    python -m benchmarks.two_tower_speed [--state artifacts/features/judged --tables artifacts/split/history] [--json]

Both learn the same pairs (user, item new to the user) of the log before the newest 28 days of the state, 64
wide. Tutorial: StringLookup and Embedding on either side, Adagrad, in-batch softmax, ``fit`` on cached, shuffled
tensors; its top-k metrics are left out of training, which flatters it. Ours: bags, text, price, attributes, log-Q,
accidental hits removed. A system is a process of its own in every round, the order alternates, the round is the
seed, figures are medians over the rounds. An example is one pair that went through the loss.

a  same batch, 8,192, and the same in-batch negatives.
b  best settings of each. Recall is recall@20 on the 28 days held out, items new to the user, after the best epoch.
   Tutorial: its fastest setting within 5 % of the best recall of its grid. Ours: the fastest of those that have
   at least the best recall of the tutorial's grid. The grids were chosen on the same days, before 2010-11-03.
c  seconds to the best recall of the tutorial's grid, model, tracing and (ours) the cutting of histories included.

Examples per processor second stand beside: they say what remains on a machine that others use too.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.telling import add_output, tell
from benchmarks.two_tower_peers import Setting, measured, problem

SAME_BATCH = Setting(8192, 0.1, epochs=3, steps=2), Setting(8192, 0.004, epochs=3, steps=8)
GRID = {
    "tutorial": (Setting(512, 0.03, 5), Setting(1024, 0.03, 5), Setting(1024, 0.1, 3)),
    "ours": (Setting(1024, 0.004, 5), Setting(4096, 0.004, 3), Setting(8192, 0.004, 3)),
}
PLAN = {
    "tutorial": (SAME_BATCH[0], *GRID["tutorial"]),
    "ours": (SAME_BATCH[1], *GRID["ours"]),
}
CLOSE = 0.95
"""A setting of the tutorial's with this share of its best recall may stand for it, so that it can be a fast one."""

Row = dict[str, Any]


def one(system: str, seed: int, arguments: argparse.Namespace) -> list[Row]:
    """Measure every setting of a system in this process."""
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    given = problem(arguments.state, arguments.tables)
    return [measured(system, given, setting, seed) for setting in PLAN[system]]


def in_a_process(system: str, seed: int, arguments: argparse.Namespace) -> list[Row]:
    """The same in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.two_tower_speed", "--one", system, "--seed", str(seed)]
    command += ["--state", str(arguments.state), "--tables", str(arguments.tables)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603 - our own module
    if done.returncode:
        raise SystemExit(f"two_tower_speed: {system} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    found: list[Row] = json.loads(done.stdout.splitlines()[-1])
    return found


def compared(runs_found: Iterable[Row]) -> Row:
    """Medians over the rounds, and the three comparisons; a ratio is None when nothing of ours is good enough."""
    runs: dict[tuple[Any, ...], list[Row]] = {}
    for row in runs_found:
        runs.setdefault((row["steps"] is None, row["system"], row["batch"], row["rate"]), []).append(row)
    rows = [_summary(group) for _, group in sorted(runs.items())]
    whole = [row for row in rows if row["steps"] is None]
    wanted = max(row["recall@20"] for row in whole if row["system"] == "tutorial")
    close = [row for row in whole if row["system"] == "tutorial" and row["recall@20"] >= CLOSE * wanted]
    good = [row for row in whole if row["system"] == "ours" and row["recall@20"] >= wanted]
    same = {row["system"]: row for row in rows if row["steps"] is not None}
    result: Row = {"rows": rows, "wanted_recall@20": wanted}
    for unit in ("second", "processor_second"):
        name = f"examples_per_{unit}"
        best = max(row[name] for row in close)
        result[f"same_batch_speedup_per_{unit}"] = same["ours"][name] / same["tutorial"][name]
        result[f"best_settings_speedup_per_{unit}"] = max(row[name] for row in good) / best if good else None
    times = {system: [seconds_to(row, wanted) for row in whole if row["system"] == system] for system in GRID}
    reached = {system: min((t for t in found if t is not None), default=None) for system, found in times.items()}
    theirs, ours = reached["tutorial"], reached["ours"]
    speedup = None if theirs is None or ours is None else theirs / ours
    return {**result, "seconds_to_recall": reached, "time_to_recall_speedup": speedup}


def _summary(group: list[Row]) -> Row:
    """One setting over its rounds: speeds, seconds and the curve of recall are medians, epoch by epoch."""
    speeds = ("examples_per_second", "examples_per_processor_second")
    recalls = [statistics.median(curve) for curve in zip(*(row["recalls"] for row in group), strict=True)]
    return {
        **{name: group[0][name] for name in ("system", "batch", "rate", "epochs", "steps")},
        **{name: statistics.median(row[name] for row in group) for name in speeds},
        "range": [reach(row[speeds[0]] for row in group) for reach in (min, max)],
        "seconds": [statistics.median(curve) for curve in zip(*(row["seconds"] for row in group), strict=True)],
        "recalls": recalls,
        "recall@20": max(recalls, default=None),
    }


def seconds_to(row: Row, recall: float) -> float | None:
    """Seconds to the end of the first epoch with this recall; None when none has it."""
    pairs = zip(row["seconds"], row["recalls"], strict=True) if row["recalls"] else ()
    return next((float(seconds) for seconds, reached in pairs if reached >= recall), None)


def machine() -> Row:
    """What the figures were taken on."""
    import tensorflow as tf

    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "processor": names[0].partition(":")[2].strip() if names else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "gpus": len(tf.config.list_physical_devices("GPU")),
        "tensorflow": tf.__version__,
        "load": os.getloadavg()[0],
    }


def compare(arguments: argparse.Namespace, console: Console) -> Row:
    """Run the rounds and compare."""
    load = os.getloadavg()[0]
    plan = []
    for seed in range(arguments.rounds):
        order = ("tutorial", "ours") if seed % 2 == 0 else ("ours", "tutorial")
        plan += [(system, seed) for system in order]
    found: list[Row] = []
    for system, seed in track(plan, "training, minutes", console=console):
        found += in_a_process(system, seed, arguments)
    about = {**machine(), "load_before": load, "rounds": arguments.rounds, "seeds": list(range(arguments.rounds))}
    return {**compared(found), "machine": about}


def table(result: Row) -> Table:
    """For people."""
    shown = Table(title="two towers, training, medians")
    for column in ("", "system", "batch", "rate", "examples/s", "range", "per processor s", "recall@20", "epochs"):
        shown.add_column(column, justify="right")
    for row in result["rows"]:
        low, high = row["range"]
        recall = "–" if row["recall@20"] is None else f"{row['recall@20']:.4f}"
        shown.add_row(
            "b" if row["steps"] is None else "a", row["system"], f"{row['batch']:,}", f"{row['rate']:g}",
            f"{row['examples_per_second']:,.0f}", f"{low:,.0f}–{high:,.0f}",
            f"{row['examples_per_processor_second']:,.0f}", recall, str(row["epochs"]),
        )  # fmt: skip
    about, reached = result["machine"], result["seconds_to_recall"]
    shown.caption = (
        f"a, same batch and negatives: {_times(result['same_batch_speedup_per_second'])} examples/s, "
        f"{_times(result['same_batch_speedup_per_processor_second'])} per processor second\n"
        f"b, best settings at recall@20 ≥ {result['wanted_recall@20']:.4f}: "
        f"{_times(result['best_settings_speedup_per_second'])} examples/s, "
        f"{_times(result['best_settings_speedup_per_processor_second'])} per processor second\n"
        f"c, time to that recall: {_times(result['time_to_recall_speedup'])} "
        f"({_seconds(reached['tutorial'])} and {_seconds(reached['ours'])})\n"
        f"{about['processor']}, {about['cores']} cores, {about['gpus']} GPUs, TensorFlow {about['tensorflow']}, "
        f"seeds {about['seeds']}, load {about['load_before']:.1f} before, {about['load']:.1f} after"
    )
    return shown


def _times(ratio: float | None) -> str:
    return "not reached" if ratio is None else f"{ratio:.1f}×"


def _seconds(value: float | None) -> str:
    return "never" if value is None else f"{value:.1f} s"


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--state", type=Path, default=Path("artifacts/features/judged"), help="a feature state's folder"
    )
    parser.add_argument(
        "--tables", type=Path, default=Path("artifacts/split/history"), help="folder of the log it is of"
    )
    parser.add_argument("--rounds", type=int, default=3, help="also the number of seeds")
    add_output(parser)
    parser.add_argument("--one", choices=tuple(GRID), help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        sys.stdout.write(json.dumps(one(arguments.one, arguments.seed, arguments)) + "\n")
        return
    result = compare(arguments, Console(stderr=True))
    tell(result, arguments, lambda found: Console().print(table(found)))


if __name__ == "__main__":
    main()
