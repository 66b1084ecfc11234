"""Our two towers and the model of the TF-Recommenders retrieval tutorial, trained on one problem and timed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.features import history
from pipelines.features.state import FeatureState
from pipelines.models.two_tower import TwoTowerConfig

DIMENSION, HELD_OUT_DAYS, K = 64, 28.0, 20


@dataclass(frozen=True)
class Setting:
    """What is trained; ``steps`` an epoch and no recall when only speed is asked for, else whole epochs."""

    batch: int
    rate: float
    epochs: int
    steps: int | None = None


@dataclass(frozen=True)
class Problem:
    """Training pairs and held-out users; ``seen`` and ``relevant`` bool ``[n_held_out, n_items]``.

    ``kept`` bool ``[n]``: examples both systems learn; ``user`` int64 ``[n]``; ``held_out`` int64 ``[n_held_out]``:
    the first context of each held-out user; ``seconds``: what cutting the log into histories took.
    """

    given: Any
    kept: np.ndarray
    user: np.ndarray
    held_out: np.ndarray
    seen: np.ndarray
    relevant: np.ndarray
    seconds: float

    def recall(self, scores: np.ndarray) -> float:
        """recall@20 over the held-out users, items bought before the held-out days left out."""
        scores = np.where(self.seen, -np.inf, scores)
        k = min(K, scores.shape[1] - 1)
        top = np.argpartition(-scores, k, axis=1)[:, :k]
        return float((np.take_along_axis(self.relevant, top, 1).sum(1) / self.relevant.sum(1)).mean())


class Timer:
    """Seconds, processor seconds and examples of each epoch; evaluation lies outside."""

    def __init__(self) -> None:
        """Begin the first epoch."""
        self.epochs: list[dict[str, float]] = []
        self.recalls: list[float] = []
        self.examples = 0
        self._begin()

    def _begin(self) -> None:
        self.examples = 0
        self._wall, self._processor = time.perf_counter(), time.process_time()

    def end_epoch(self, recall: Callable[[], float] | None) -> None:
        """End an epoch, measure its recall when asked, begin the next."""
        self.epochs.append({
            "seconds": time.perf_counter() - self._wall,
            "processor_seconds": time.process_time() - self._processor,
            "examples": self.examples,
        })  # fmt: skip
        if recall is not None:
            self.recalls.append(recall())
        self._begin()


def problem(state: Path, tables: Path) -> Problem:
    """Cut the log of a feature state in two."""
    features = FeatureState.load(state, interactions=tables / "interactions.parquet")
    return problem_of(features)


def problem_of(features: FeatureState) -> Problem:
    """The newest 28 days are held out: purchases of items new to a user who had bought before them."""
    from pipelines.learners import two_tower_fit

    started = time.perf_counter()
    given = two_tower_fit.prepare(TwoTowerConfig(dimension=DIMENSION), features, rng=np.random.default_rng(0))
    seconds = time.perf_counter() - started
    cut = given.cut
    rows = history.interactions(features)
    before = rows["time"] < features.time.timestamp() - HELD_OUT_DAYS * 86_400
    seen: np.ndarray = np.zeros((features.n_users, features.n_items), bool)
    seen[rows["user"][before], rows["item"][before]] = True
    newest = cut.age[cut.context] < HELD_OUT_DAYS
    # a user who had bought nothing before has an embedding of the tutorial's that nothing has taught
    asked = np.flatnonzero(newest & cut.new & np.asarray(seen.any(1))[cut.user[cut.context]])
    users, row = np.unique(cut.user[cut.context[asked]], return_inverse=True)
    relevant = np.zeros((len(users), features.n_items), bool)
    relevant[row, cut.item[asked]] = True
    # contexts lie in order of user and time: the first of the held-out days knows nothing of these days
    contexts = np.flatnonzero(cut.age < HELD_OUT_DAYS)
    first = contexts[np.searchsorted(cut.user[contexts], users)]
    kept = ~newest & cut.new
    return Problem(given, kept, cut.user[cut.context], first, seen[users] & ~relevant, relevant, seconds)


def ours(given: Problem, setting: Setting, seed: int) -> Timer:
    """Train our towers, with the determinism that a fit of the member switches on."""
    import tensorflow as tf

    from pipelines.learners import two_tower_fit, two_tower_tfrs

    tf.config.experimental.enable_op_determinism()
    p, kept = given.given, given.kept
    config = TwoTowerConfig(dimension=DIMENSION, batch_size=setting.batch, learning_rate=setting.rate)
    schedule = two_tower_fit.schedule_of(config, p.weight[kept], setting.epochs)
    if setting.steps is not None:
        schedule = replace(schedule, least_steps=1, examples_per_epoch=setting.steps * setting.batch)
    rng = np.random.default_rng(seed)
    timer = Timer()
    # the held-out days must not speak through the first values
    bias = two_tower_fit.popularity_bias(np.bincount(p.cut.item[kept], p.weight[kept], len(p.sold)))
    ids = p.start["ids"][rng.permutation(len(p.start["ids"]))]
    model = two_tower_tfrs.TwoTower({**p.start, "bias": bias, "ids": ids}, p.frozen.text, p.frozen.price)
    step, bags = model.step, p.cut.bags.take(given.held_out)

    def counted(batch: dict[str, Any], rate: Any) -> Any:
        timer.examples += int(batch["positive"].shape[0])
        return step(batch, rate)

    def recall() -> float:
        learned = model.parameters()
        vectors = two_tower_fit.item_vectors(learned, p.frozen)
        users = two_tower_fit.user_vectors(learned, vectors, bags, p.attributes[given.held_out], p.names)
        return given.recall(users @ vectors.T + learned["bias"])

    model.step = counted
    two_tower_tfrs.train(
        model,
        schedule,
        p.lessons(kept),
        quality=None,
        rng=rng,
        report=lambda *_: timer.end_epoch(recall if setting.steps is None else None),
    )
    return timer


def tutorial(given: Problem, setting: Setting, seed: int) -> Timer:
    """Train the tutorial's model: ``fit`` on cached, shuffled tensors, its top-k metrics left out of training."""
    import tensorflow as tf
    import tf_keras as keras

    user, item = given.user[given.kept], given.given.cut.item[given.kept]
    n_items = given.relevant.shape[1]
    tf.random.set_seed(seed)
    timer = Timer()
    model = _tutorial_model(int(given.user.max()) + 1, n_items)
    model.compile(optimizer=keras.optimizers.Adagrad(learning_rate=setting.rate))
    pairs = tf.data.Dataset.from_tensor_slices({"user": user.astype(str), "item": item.astype(str)})
    cached = pairs.shuffle(len(user), seed=seed).batch(setting.batch).cache()
    if setting.steps is not None:
        cached = cached.repeat().take(setting.steps)
    held_out = tf.constant(given.given.cut.user[given.held_out].astype(str))
    catalogue = tf.constant(np.arange(n_items).astype(str))

    def recall() -> float:
        return given.recall(model.users(held_out).numpy() @ model.items(catalogue).numpy().T)

    for _ in range(setting.epochs):
        model.fit(cached, epochs=1, verbose=0)
        timer.examples = len(user) if setting.steps is None else setting.steps * min(setting.batch, len(user))
        timer.end_epoch(recall if setting.steps is None else None)
    return timer


def _tutorial_model(n_users: int, n_items: int) -> Any:
    import tensorflow_recommenders as tfrs
    import tf_keras as keras

    def tower(n: int) -> Any:
        lookup = keras.layers.StringLookup(vocabulary=[str(code) for code in range(n)], mask_token=None)
        return keras.Sequential([lookup, keras.layers.Embedding(n + 1, DIMENSION)])

    class Tutorial(tfrs.Model):  # type: ignore[misc]  # tfrs ships no types
        def __init__(self) -> None:
            super().__init__()
            self.users, self.items, self.task = tower(n_users), tower(n_items), tfrs.tasks.Retrieval()

        def compute_loss(self, features: dict[str, Any], training: bool = False) -> Any:  # noqa: FBT001, FBT002 - Keras
            return self.task(self.users(features["user"]), self.items(features["item"]), compute_metrics=False)

    return Tutorial()


SYSTEMS = {"tutorial": tutorial, "ours": ours}


def measured(system: str, given: Problem, setting: Setting, seed: int) -> dict[str, Any]:
    """One training. The first epoch pays for tracing: it counts for time to a recall, not for speed.

    Returns:
        The setting; ``examples_per_second`` and ``examples_per_processor_second`` over the epochs after the
        first; ``seconds`` to the end of each epoch from the making of the model on, evaluation left out, for
        ours with cutting the log into histories; ``recalls`` after each epoch, empty with ``steps``.
    """
    timer = SYSTEMS[system](given, setting, seed)
    timed = timer.epochs[1:]
    examples = sum(epoch["examples"] for epoch in timed)
    before = given.seconds if system == "ours" else 0.0
    return {
        "system": system,
        **asdict(setting),
        "seed": seed,
        "examples_per_second": examples / sum(epoch["seconds"] for epoch in timed),
        "examples_per_processor_second": examples / sum(epoch["processor_seconds"] for epoch in timed),
        "seconds": (before + np.cumsum([epoch["seconds"] for epoch in timer.epochs])).tolist(),
        "recalls": timer.recalls,
    }
