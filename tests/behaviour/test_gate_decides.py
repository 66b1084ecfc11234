"""The whole way from an export to a verdict and a champion, on a small shop whose truth is known.

Every user has five favourites that are bought again and again; what sells best says little about them. So
``repeat`` is truly better than ``popularity``, a week with shuffled items fits nothing, and noise harms.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines import champion
from pipelines.actions.candidate import read
from pipelines.bundle import Bundle
from pipelines.champion import Pointer
from pipelines.gating import listing
from pipelines.storage import read_json

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

START = datetime(2020, 1, 1, tzinfo=UTC)
WEEKS, USERS, ITEMS, FAVOURITES = 24, 400, 150, 5
STAGES = (
    "code", "snapshot", "ingest", "validate_raw", "split", "encode", "encode_queries", "features", "features --served",
    "validate_frames",
)  # fmt: skip
AFTER = ("members", "refresh", "fuse", "judge", "assemble", "evaluate", "validate_rankings", "reference", "gate")
DRIVER = """
import importlib, sys
for line in sys.argv[1].split(","):
    name, *options = line.split()
    sys.argv = [name, *options]
    importlib.import_module("pipelines.stages." + name).main()
"""
PARAMS = """
seed: 7
data: {{adapter: shop, path: export, as_of: '{as_of}'}}
split: {{grid_anchor: '2020-01-01', windows: 3}}
text: {{encoder: null}}
models: {models}
fusion: {{method: {method}, max_users: 200}}
evaluation: {{bootstrap_draws: 1000}}
gate: {{margin: 0.05}}
"""


NEVER = START + timedelta(weeks=WEEKS + 1)


def export(folder: Path, *, damaged_from: datetime = NEVER, damaged_until: datetime = NEVER) -> None:
    """A catalogue, and 24 weeks of purchases; those in [``damaged_from``, ``damaged_until``) have random items."""
    generator = np.random.default_rng(3)
    favourites = np.stack([generator.choice(ITEMS, FAVOURITES, replace=False) for _ in range(USERS)])
    rows = []
    for user in range(USERS):
        for day in np.flatnonzero(generator.random(WEEKS * 7) < 0.12).tolist():
            own = generator.choice(favourites[user], 2, replace=False)
            other = generator.integers(ITEMS) if generator.random() < 0.5 else int(generator.pareto(1.0)) % ITEMS
            time = START + timedelta(days=day, seconds=int(generator.integers(80_000)))
            damaged = damaged_from <= time < damaged_until
            for bought in {*own.tolist(), int(other)}:
                item = int(generator.integers(ITEMS)) if damaged else bought
                rows.append(
                    {
                        "event_id": f"{user}-{day}",
                        "event_type": "purchase-complete",
                        "event_time": time,
                        "user_id": f"u{user}",
                        "item_id": f"i{item}",
                        "quantity": 1.0,
                    }
                )
    products = [{"item_id": f"i{item}", "title": f"thing {item}", "price": 1.0 + item} for item in range(ITEMS)]
    for name, table in (("events", rows), ("catalog", products)):
        (folder / name).mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(table), folder / name / "part.parquet")


def checkout(root: Path, target: Path) -> Path:
    """A copy of the library, so that a recipe's code can be changed."""
    ignored = shutil.ignore_patterns("__pycache__", ".*")
    for name in ("pipelines", "expectations", "requirements"):
        shutil.copytree(root / name, target / name, ignore=ignored)
    return target


def stages(folder: Path, home: Path, names: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Stages one after the other in a process that runs the checkout's code."""
    environment = os.environ | {"FUSELINE_HOME": str(home), "PYTHONPATH": str(folder)}
    command = [sys.executable, "-c", DRIVER, ",".join(names)]
    answer = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr[-3000:]
    return answer


def run(folder: Path, home: Path, *, weeks: int, models: Sequence[str], method: str = "best_single") -> dict[str, Any]:
    """The pipeline up to the verdict."""
    kinds = "{" + ", ".join(f"{name}: {{kind: {name}}}" for name in models) + "}"
    as_of = (START + timedelta(weeks=weeks)).date().isoformat()
    (folder / "params.yaml").write_text(PARAMS.format(as_of=as_of, models=kinds, method=method))
    (folder / "var" / "feedback").mkdir(parents=True, exist_ok=True)
    stages(folder, home, [*STAGES, *(f"train --member {name}" for name in models), *AFTER])
    found: dict[str, Any] = read_json(folder / "artifacts" / "gate" / "verdict.json")
    return found


def promote(folder: Path, home: Path, version: int) -> None:
    """What matters of a promotion here: bundles copied, pointer moved."""
    found = read(folder / "artifacts")
    stored = home / "var" / "bundles" / found.id
    for name in ("bundle", "judged"):
        shutil.copytree(folder / "artifacts" / name, stored / name)
    pointer = Pointer(version, stored / "bundle", stored / "judged", found.id, found.judged["id"], found.recipe)
    with champion.locked(home):
        champion.write(home, pointer, record={})


def check(verdict: dict[str, Any], name: str) -> dict[str, Any]:
    return next(reason for reason in verdict["reasons"] if reason["check"].startswith(name))


def failed(verdict: dict[str, Any]) -> str:
    return json.dumps([reason for reason in verdict["reasons"] if not reason["passed"]], indent=1)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A checkout with an export, and a home whose champion is ``popularity`` and ``repeat`` as of week 22."""
    root = Path(__file__).resolve().parents[2]
    folder = checkout(root, tmp_path_factory.mktemp("checkout"))
    home = tmp_path_factory.mktemp("home")
    export(folder / "export")
    verdict = run(folder, home, weeks=22, models=("popularity", "repeat"))
    assert verdict["mode"] == "first"
    assert verdict["champion"] is None
    assert verdict["verdict"] == "promote", failed(verdict)
    promote(folder, home, 1)
    return folder, home


@pytest.fixture
def copy(world: tuple[Path, Path], tmp_path: Path) -> tuple[Path, Path]:
    """The world, to change at will."""
    folder, home = tmp_path / "checkout", tmp_path / "home"
    shutil.copytree(world[0], folder, symlinks=True)
    shutil.copytree(world[1], home)
    return folder, home


def test_the_same_recipe_a_week_later_is_a_refresh_and_is_promoted(copy: tuple[Path, Path]) -> None:
    folder, home = copy
    verdict = run(folder, home, weeks=23, models=("popularity", "repeat"))
    assert verdict["mode"] == "refresh"
    assert verdict["verdict"] == "promote", failed(verdict)
    assert {reason["check"] for reason in verdict["reasons"]} >= {"not_inferior.recommend", "newest_week.recommend"}


def test_a_champion_with_the_candidates_judged_bundle_is_not_asked_again_and_its_lists_are_the_same(
    copy: tuple[Path, Path],
) -> None:
    folder, home = copy
    reference, ran = folder / "artifacts" / "reference", stages(folder, home, ("reference",))
    assert "and so are the lists" in ran.stdout
    told = pq.read_table(reference / "judged.parquet")
    users = told.select(listing.USERS.names).group_by(listing.USERS.names).aggregate([])
    asked = listing.lists(Bundle.load(folder / "artifacts" / "judged"), users, {})
    order = [(name, "ascending") for name in ("surface", "history_id", "rank")]
    assert told.num_rows > 1000
    assert told.sort_by(order).equals(asked.sort_by(order))


def test_a_week_with_shuffled_items_is_not_promoted(copy: tuple[Path, Path]) -> None:
    folder, home = copy
    shutil.rmtree(folder / "export")
    export(folder / "export", damaged_from=START + timedelta(weeks=22))
    verdict = run(folder, home, weeks=23, models=("popularity", "repeat"))
    assert verdict["verdict"] != "promote"
    assert not check(verdict, "newest_week.recommend")["passed"]


def test_weeks_before_the_holdout_with_shuffled_items_are_not_promoted(copy: tuple[Path, Path]) -> None:
    folder, home = copy
    shutil.rmtree(folder / "export")
    learned_from = {"damaged_from": START + timedelta(weeks=13), "damaged_until": START + timedelta(weeks=19)}
    export(folder / "export", **learned_from)
    verdict = run(folder, home, weeks=23, models=("popularity", "repeat"))
    assert verdict["verdict"] != "promote"
    assert not check(verdict, "not_inferior.recommend")["passed"]
    assert check(verdict, "newest_week.recommend")["passed"], "its holdout is honest"


@pytest.mark.exhaustive
def test_an_older_run_is_never_compared_with_a_champion_that_saw_its_holdout(copy: tuple[Path, Path]) -> None:
    folder, home = copy
    verdict = run(folder, home, weeks=20, models=("popularity", "repeat"))
    assert verdict["verdict"] == "not_enough_evidence"
    assert "has seen a part of the holdout" in check(verdict, "comparable")["observed"]


def test_a_member_that_truly_helps_is_promoted_against_the_refit(copy: tuple[Path, Path]) -> None:
    folder, home = copy
    run(folder, home / "other", weeks=22, models=("popularity",))
    promote(folder, home / "other", 1)
    verdict = run(folder, home / "other", weeks=23, models=("popularity", "repeat"))
    assert verdict["mode"] == "recipe"
    assert check(verdict, "superior_to_refit")["passed"]
    assert verdict["verdict"] == "promote", failed(verdict)


def test_noise_in_the_scores_is_rejected_against_the_refit(copy: tuple[Path, Path]) -> None:
    folder, home = copy
    model = folder / "pipelines" / "models" / "repeat.py"
    source = model.read_text(encoding="utf-8")
    noise = "\n\nclass _Noisy(KIND.fitted):\n    def score_all(self, context):\n        import numpy as np\n"
    noise += (
        "        scores = super().score_all(context)\n        noise = np.random.default_rng(1).random(len(scores))\n"
    )
    noise += "        return (scores * noise + noise).astype(np.float32)\n\n"
    noise += "    def score(self, context, codes):\n        return self.score_all(context)[codes]\n\n"
    noise += "    def candidates(self, context, n, allowed=None):\n        from pipelines.model_api import best\n"
    noise += "        return best(self.score_all(context), n, allowed)\n\n\n"
    noise += "import dataclasses as _dataclasses\n\nKIND = _dataclasses.replace(KIND, fitted=_Noisy)\n"
    model.write_text(source + noise, encoding="utf-8")
    verdict = run(folder, home, weeks=22, models=("popularity", "repeat"))
    assert verdict["mode"] == "recipe"
    assert verdict["verdict"] == "reject", failed(verdict)


@pytest.mark.exhaustive
def test_code_that_changes_nothing_is_a_refresh_and_not_a_gain(copy: tuple[Path, Path]) -> None:
    folder, home = copy
    model = folder / "pipelines" / "models" / "repeat.py"
    model.write_text(model.read_text(encoding="utf-8") + "\n# a remark\n", encoding="utf-8")
    verdict = run(folder, home, weeks=23, models=("popularity", "repeat"))
    assert verdict["mode"] == "refresh"
    assert verdict["verdict"] == "promote", failed(verdict)
