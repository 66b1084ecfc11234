"""Training speed of our two towers beside the model of the TF-Recommenders retrieval tutorial.

    python -m benchmarks.two_tower_speed [--state artifacts/features/judged --tables artifacts/split/history] [--json]

Both learn the same pairs (user, item new to the user) of the log that lies before the newest 28 days of
the state, 64 wide. The tutorial's model: StringLookup and Embedding on either side, Adagrad .1, in-batch
softmax, ``fit`` on cached, shuffled tensors; its top-k metrics are left out of training, which flatters it.
Ours: bags, text, price, attributes, log-Q, accidental hits removed. Every measurement is a process of its
own, order alternated, medians over ``--rounds``. (a) one batch size for both, the same negatives;
(b) for each system its grid of batch sizes, recall@20 on the newest 28 days (items new to the user) after
every epoch: the tutorial's setting with the best recall, and our fastest with no less.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

DIMENSION, HELD_OUT_DAYS, K, SAME_BATCH = 64, 28.0, 20, 8192
GRID = {"tutorial": (1024, 8192), "ours": (1024, 4096)}
EPOCHS = {"tutorial": 12, "ours": 6}


@dataclass(frozen=True)
class Problem:
    """Training pairs and held-out users; ``seen`` and ``relevant`` bool ``[n_held_out, n_items]``."""

    given: Any
    kept: np.ndarray
    user: np.ndarray
    held_out: np.ndarray
    seen: np.ndarray
    relevant: np.ndarray

    def recall(self, scores: np.ndarray) -> float:
        """recall@20 over the held-out users, items bought before left out."""
        scores = np.where(self.seen, -np.inf, scores)
        top = np.argpartition(-scores, K, axis=1)[:, :K]
        return float((np.take_along_axis(self.relevant, top, 1).sum(1) / self.relevant.sum(1)).mean())


@dataclass(frozen=True)
class Epochs:
    """Seconds of each epoch, its examples, and recall after it (empty when only speed is measured)."""

    seconds: list[float]
    examples: int
    recalls: list[float]


def problem(state: Path, tables: Path, config: Any) -> Problem:
    """Cut the log of a feature state in two."""
    from pipelines.features import history
    from pipelines.features.state import FeatureState
    from pipelines.learners import two_tower_fit

    features = FeatureState.load(state, interactions=tables / "interactions.parquet")
    given = two_tower_fit.prepare(config, features, rng=np.random.default_rng(0))
    cut = given.cut
    newest = cut.age[cut.context] < HELD_OUT_DAYS
    asked = np.flatnonzero(newest & cut.new)
    users, first, row = np.unique(cut.user[cut.context[asked]], return_index=True, return_inverse=True)
    relevant = np.zeros((len(users), features.n_items), bool)
    relevant[row, cut.item[asked]] = True
    rows = history.interactions(features)
    before = rows["time"] < features.time.timestamp() - HELD_OUT_DAYS * 86_400
    matrix = np.zeros((features.n_users, features.n_items), bool)
    matrix[rows["user"][before], rows["item"][before]] = True
    seen = matrix[users] & ~relevant
    return Problem(given, ~newest & cut.new, cut.user[cut.context], cut.context[asked][first], seen, relevant)


def ours(given: Problem, config: Any, epochs: int, steps: int | None) -> Epochs:
    """Train our towers."""
    from dataclasses import replace

    from pipelines.learners import two_tower_fit, two_tower_tfrs

    p, kept = given.given, given.kept
    # the held-out days must not speak through the first values
    older = np.bincount(p.cut.item[kept], p.weight[kept], len(p.sold))
    start = {**p.start, "bias": two_tower_fit.popularity_bias(older)}
    model = two_tower_tfrs.TwoTower(start, p.frozen.text, p.frozen.price)
    recalls, clock, spent = [], [time.perf_counter()], []
    bags = p.cut.bags.take(given.held_out)

    def report(epoch: int, loss: float, quality: float | None) -> None:
        spent.append(time.perf_counter() - clock[0])
        if steps is None:
            learned = model.parameters()
            vectors = two_tower_fit.item_vectors(learned, p.frozen)
            users = two_tower_fit.user_vectors(learned, vectors, bags, p.attributes[given.held_out], p.names)
            recalls.append(given.recall(users @ vectors.T + learned["bias"]))
        clock[0] = time.perf_counter()

    schedule = two_tower_fit.schedule_of(config, p.weight[kept], epochs)
    examples = schedule.examples_per_epoch if steps is None else steps * config.batch_size
    two_tower_tfrs.train(
        model,
        replace(schedule, examples_per_epoch=examples),
        bags=p.cut.bags,
        attributes=p.attributes,
        context=p.cut.context[kept],
        item=p.cut.item[kept],
        weight=p.weight[kept],
        quality=None,
        rng=np.random.default_rng(0),
        report=report,
    )
    return Epochs(spent, examples // config.batch_size * config.batch_size, recalls)


def tutorial(given: Problem, batch: int, epochs: int, steps: int | None) -> Epochs:
    """Train the tutorial's model."""
    import tensorflow as tf
    import tensorflow_recommenders as tfrs
    import tf_keras as keras

    user, item = given.user[given.kept], given.given.cut.item[given.kept]
    n_users, n_items = int(given.user.max()) + 1, given.relevant.shape[1]

    def tower(n: int) -> Any:
        names = [str(code) for code in range(n)]
        lookup = keras.layers.StringLookup(vocabulary=names, mask_token=None)
        return keras.Sequential([lookup, keras.layers.Embedding(n + 1, DIMENSION)])

    class Tutorial(tfrs.Model):  # type: ignore[misc]  # tfrs ships no types
        def __init__(self) -> None:
            super().__init__()
            self.users, self.items, self.task = tower(n_users), tower(n_items), tfrs.tasks.Retrieval()

        def compute_loss(self, features: dict[str, Any], training: bool = False) -> Any:  # noqa: FBT001, FBT002 - Keras
            return self.task(self.users(features["user"]), self.items(features["item"]), compute_metrics=False)

    tf.random.set_seed(0)
    model = Tutorial()
    model.compile(optimizer=keras.optimizers.Adagrad(learning_rate=0.1))
    pairs = {"user": user.astype(str), "item": item.astype(str)}
    cached = tf.data.Dataset.from_tensor_slices(pairs).shuffle(len(user), seed=0).batch(batch).cache()
    if steps is not None:
        cached = cached.repeat().take(steps)
    held_out = given.given.cut.user[given.held_out]
    seconds, recalls = [], []
    for _ in range(epochs):
        started = time.perf_counter()
        model.fit(cached, epochs=1, verbose=0)
        seconds.append(time.perf_counter() - started)
        if steps is None:
            queries = model.users(tf.constant(held_out.astype(str))).numpy()
            candidates = model.items(tf.constant(np.arange(n_items).astype(str))).numpy()
            recalls.append(given.recall(queries @ candidates.T))
    return Epochs(seconds, len(user) if steps is None else steps * batch, recalls)


def one(system: str, batch: int, steps: int | None, arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure in this process; the first epoch pays for tracing and is left out of the speed."""
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    from pipelines.models.two_tower import TwoTowerConfig

    config = TwoTowerConfig(dimension=DIMENSION, batch_size=batch)
    given = problem(arguments.state, arguments.tables, config)
    epochs = 3 if steps is not None else EPOCHS[system]
    ours_here = system == "ours"
    run = ours(given, config, epochs, steps) if ours_here else tutorial(given, batch, epochs, steps)
    return {
        "system": system,
        "batch": batch,
        "examples_per_second": run.examples / statistics.median(run.seconds[1:]),
        "examples_per_epoch": run.examples,
        "recall@20": max(run.recalls, default=None),
        "best_epoch": int(np.argmax(run.recalls)) + 1 if run.recalls else None,
        "recalls": run.recalls,
    }


def measured(system: str, batch: int, steps: int | None, arguments: argparse.Namespace) -> dict[str, Any]:
    """The same in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.two_tower_speed", "--one", system, "--batch", str(batch)]
    command += ["--state", str(arguments.state), "--tables", str(arguments.tables)]
    command += [] if steps is None else ["--steps", str(steps)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603 - our own module
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def compare(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Both comparisons; speeds are medians over the rounds."""
    plan = []
    for number in range(arguments.rounds):
        order = ("tutorial", "ours") if number % 2 == 0 else ("ours", "tutorial")
        plan += [(system, SAME_BATCH, arguments.steps) for system in order]
        plan += [(system, batch, None) for system in order for batch in GRID[system]]
    runs: dict[tuple[str, int, bool], list[dict[str, Any]]] = {}
    for system, batch, steps in track(plan, "measuring", console=console):
        runs.setdefault((system, batch, steps is None), []).append(measured(system, batch, steps, arguments))
    rows = [
        {**found[0], "comparison": "b" if best else "a",
         "examples_per_second": statistics.median(f["examples_per_second"] for f in found)}
        for (_, _, best), found in runs.items()
    ]  # fmt: skip
    speed = {row["system"]: row["examples_per_second"] for row in rows if row["comparison"] == "a"}
    reference = max(
        (r for r in rows if r["comparison"] == "b" and r["system"] == "tutorial"), key=lambda r: r["recall@20"]
    )
    good = [
        r for r in rows if r["comparison"] == "b" and r["system"] == "ours" and r["recall@20"] >= reference["recall@20"]
    ]
    fastest = max((r["examples_per_second"] for r in good), default=0.0)
    wanted = seconds_to(reference, reference["recall@20"])
    soonest = min((seconds_to(r, reference["recall@20"]) for r in good), default=float("inf"))
    return {
        "rows": rows,
        "same_batch_speedup": speed["ours"] / speed["tutorial"],
        "best_settings_speedup": fastest / reference["examples_per_second"],
        "time_to_recall_speedup": wanted / soonest,
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
    }


def seconds_to(row: dict[str, Any], recall: float) -> float:
    """Training seconds to the end of the first epoch that reaches a recall, at the measured speed."""
    epoch = int(np.argmax(np.array(row["recalls"]) >= recall)) + 1
    return float(epoch * row["examples_per_epoch"] / row["examples_per_second"])


def table(result: dict[str, Any]) -> Table:
    """For people."""
    shown = Table(title="two towers, training")
    for column in ("comparison", "system", "batch", "examples/s", "recall@20", "best epoch"):
        shown.add_column(column, justify="right")
    for row in sorted(result["rows"], key=lambda r: (r["comparison"], r["batch"], r["system"])):
        recall = "–" if row["recall@20"] is None else f"{row['recall@20']:.4f}"
        speed, epoch = f"{row['examples_per_second']:,.0f}", str(row["best_epoch"] or "–")
        shown.add_row(row["comparison"], row["system"], f"{row['batch']:,}", speed, recall, epoch)
    shown.caption = (
        f"same batch and negatives: {result['same_batch_speedup']:.1f}×; best settings at no less recall: "
        f"{result['best_settings_speedup']:.1f}×; time to the tutorial's best recall: "
        f"{result['time_to_recall_speedup']:.1f}×; {result['cores']} cores, load {result['load']:.1f}"
    )
    return shown


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--state", type=Path, default=Path("artifacts/features/judged"), help="a feature state's folder"
    )
    parser.add_argument(
        "--tables", type=Path, default=Path("artifacts/split/history"), help="folder of the log it is of"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=5, help="steps an epoch of comparison (a)")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--one", choices=tuple(GRID), help=argparse.SUPPRESS)
    parser.add_argument("--batch", type=int, default=SAME_BATCH, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        steps = arguments.steps if "--steps" in sys.argv else None
        sys.stdout.write(json.dumps(one(arguments.one, arguments.batch, steps, arguments)) + "\n")
        return
    result = compare(arguments, Console(stderr=True))
    if arguments.json:
        sys.stdout.write(json.dumps(result, indent=2) + "\n")
    else:
        Console().print(table(result))


if __name__ == "__main__":
    main()
