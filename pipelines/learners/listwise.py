"""Training of the listwise ensemble in TensorFlow; on a GPU where there is one."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tensorflow as tf

MASKED = -1e9
"""Logit of padding: lists are padded, not items ruled out, so a finite value is safe in float32."""
DEPTH = 20
MAX_WANTED = 24


@dataclass(frozen=True)
class TrainingLists:
    """Lists one after the other: rows of a list are adjacent, those with a gain first.

    ``columns`` float32 ``[n, f]``, NaN unknown; ``gains`` float32 ``[n]``; ``start`` int64 ``[lists + 1]``;
    ``weight`` float32 ``[lists]``.
    """

    columns: np.ndarray
    gains: np.ndarray
    start: np.ndarray
    weight: np.ndarray

    @classmethod
    def of(cls, parts: Sequence[tuple[np.ndarray, np.ndarray, float]]) -> Self:
        """From (columns, gains, weight) a list."""
        start = np.zeros(len(parts) + 1, np.int64)
        np.cumsum([len(gains) for _, gains, _ in parts], out=start[1:])
        return cls(
            np.concatenate([columns for columns, _, _ in parts]),
            np.concatenate([gains for _, gains, _ in parts]).astype(np.float32),
            start,
            np.array([weight for _, _, weight in parts], np.float32),
        )

    def batches(
        self, draw: np.random.Generator, *, lists: int, size: int, scores: np.ndarray | None = None
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
        """One pass in random order: columns ``[b, size, f]``, wanted and real ``[b, size]``, weight ``[b]``.

        Wanted are the gains, or of ``scores`` ``[n]`` those. A list gives its rows with a gain, then random others,
        up to ``size``.
        """
        wanted = self.gains if scores is None else scores
        order = draw.permutation(len(self.weight))
        for first in range(0, len(order), lists):
            chosen = order[first : first + lists]
            rows = np.zeros((len(chosen), size), np.int64)
            real = np.zeros((len(chosen), size), np.float32)
            for place, one in enumerate(chosen):
                picked = self._pick(int(one), size, draw)
                rows[place, : len(picked)] = picked
                real[place, : len(picked)] = 1.0
            yield self.columns[rows], wanted[rows] * real, real, self.weight[chosen]

    def _pick(self, one: int, size: int, draw: np.random.Generator) -> np.ndarray:
        rows = np.arange(self.start[one], self.start[one + 1])
        n_relevant = int((self.gains[rows] > 0).sum())
        wins = draw.permutation(rows[:n_relevant])[: size - 1]
        rest = draw.permutation(rows[n_relevant:])[: size - len(wins)]
        return np.concatenate([wins, rest])


def train(
    data: TrainingLists,
    groups: np.ndarray,
    *,
    config: Mapping[str, Any],
    seed: int,
    ramps: int = 0,
    scores: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Train an ensemble by :func:`lambda_rank` on gains, or by :func:`alike` on somebody's scores.

    Args:
        data: the lists, columns as quantiles.
        groups: int ``[f]``: the member that a column belongs to, -1 for none; masked together.
        config: fields of ``StackingConfig``.
        seed: of initial weights, order, dropout.
        ramps: how a quantile enters, of ``stacking.encode``.
        scores: float32 ``[n]``, what to rank like; None: by gains.

    Returns:
        The arrays of ``stacking.Ensemble``, averaged over the last steps.
    """
    tf.keras.utils.set_random_seed(seed)
    draw = np.random.default_rng(seed)
    net = _Net(groups, config, draw, ramps)
    loss_of = lambda_rank if scores is None else alike
    steps = config["epochs"] * -(-len(data.weight) // config["batch_lists"])
    optimizer = tf.keras.optimizers.AdamW(
        learning_rate=_Schedule(config["learning_rate"], steps),
        weight_decay=config["weight_decay"],
        use_ema=True,
        ema_momentum=config["average"],
    )
    optimizer.exclude_from_weight_decay(var_list=[net.variables["first_bias"], net.variables["second_bias"]])
    optimizer.build(list(net.variables.values()))

    @tf.function(reduce_retracing=True)  # type: ignore[untyped-decorator]
    def step(columns: tf.Tensor, wanted: tf.Tensor, real: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            logits = net.logits(columns) + (1.0 - real)[:, None, :] * MASKED
            losses = loss_of(logits, wanted, real)
            loss = tf.reduce_sum(tf.reduce_mean(losses * weight[:, None], axis=0))
        variables = list(net.variables.values())
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        return loss

    for epoch in range(config["epochs"]):
        batches = data.batches(draw, lists=config["batch_lists"], size=config["list_size"], scores=scores)
        losses = [step(*map(tf.convert_to_tensor, batch)) for batch in batches]
        print(
            f"    epoch {epoch + 1}/{config['epochs']}: loss {float(np.mean(losses)) / config['ensemble']:.4f}",
            flush=True,
        )
    optimizer.finalize_variable_values(list(net.variables.values()))
    return {name: variable.numpy() for name, variable in net.variables.items()}


def lambda_rank(logits: tf.Tensor, gains: tf.Tensor, real: tf.Tensor) -> tf.Tensor:
    """Pairwise logistic loss, each pair weighted by the change in nDCG@20 if the two swapped places.

    ``sum over (i, j) with g_i > g_j of (g_i - g_j) |D(i) - D(j)| log(1 + exp(s_j - s_i)) / ideal``, D = 1 / log2(1 +
    place) down to place 20, places by the current scores. The :data:`MAX_WANTED` best rows of a list take part as i.

    Args:
        logits: ``[b, s, l]`` of s rankers.
        gains: what each row is worth, >= 0, ``[b, l]``.
        real: 1 for rows, 0 for padding, ``[b, l]``.

    Returns:
        ``[b, s]``.
    """
    fixed = tf.stop_gradient(logits)
    place = tf.cast(tf.argsort(tf.argsort(fixed, direction="DESCENDING"), axis=-1), tf.float32)
    discount = tf.where(place < DEPTH, np.log(2.0) / tf.math.log(place + 2.0), 0.0)
    own_gain, rows = tf.math.top_k(gains, tf.minimum(tf.shape(gains)[1], MAX_WANTED))
    rows = tf.repeat(rows[:, None, :], tf.shape(logits)[1], axis=1)
    own, own_discount = (tf.gather(values, rows, batch_dims=2) for values in (logits, discount))
    change = tf.abs(own_discount[..., None] - discount[:, :, None, :])
    pair = (tf.nn.relu(own_gain[:, :, None] - gains[:, None, :]) * real[:, None, :])[:, None]
    loss = tf.reduce_sum(pair * change * tf.nn.softplus(logits[:, :, None, :] - own[..., None]), axis=[2, 3])
    best = tf.math.top_k(gains, tf.minimum(tf.shape(gains)[1], DEPTH))[0]
    at_best = np.log(2.0) / tf.math.log(tf.range(tf.shape(best)[1], dtype=tf.float32) + 2.0)
    ideal = tf.cumsum(best * at_best, axis=1)[:, -1]
    return loss / tf.where(ideal > 0, ideal, 1.0)[:, None]


def alike(logits: tf.Tensor, scores: tf.Tensor, real: tf.Tensor) -> tf.Tensor:
    """Kullback-Leibler divergence of the rankers' shares of a list from those of the scores to learn, by softmax.

    The listwise loss of Cao et al. 2007 ("Learning to Rank: From Pairwise Approach to Listwise Approach", equation 4)
    less what no ranker can reach.

    Args:
        logits: ``[b, s, l]`` of s rankers.
        scores: what to rank like, ``[b, l]``.
        real: 1 for rows, 0 for padding, ``[b, l]``.

    Returns:
        ``[b, s]``.
    """
    wanted = tf.nn.log_softmax(scores + (1.0 - real) * MASKED)[:, None, :]
    return tf.reduce_sum(tf.exp(wanted) * (wanted - tf.nn.log_softmax(logits)), axis=2)


class _Schedule(tf.keras.optimizers.schedules.LearningRateSchedule):  # type: ignore[misc]
    """Linear warm-up over a tenth of the steps, then a cosine down to 0."""

    def __init__(self, peak: float, steps: int) -> None:
        self._peak, self._steps = peak, steps

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        done = tf.cast(step, tf.float32) / self._steps
        falling = 0.5 * (1.0 + tf.cos(np.pi * (done - 0.1) / 0.9))
        return self._peak * tf.where(done < 0.1, done / 0.1, falling)

    def get_config(self) -> dict[str, Any]:
        return {"peak": self._peak, "steps": self._steps}


class _Net:
    """The ensemble as variables; the graph of ``stacking.Ensemble.score`` with dropout and masked members."""

    def __init__(self, groups: np.ndarray, config: Mapping[str, Any], draw: np.random.Generator, ramps: int) -> None:
        self._ramps = ramps
        self._n_groups = int(groups.max(initial=-1)) + 1
        self._groups = tf.constant(np.where(groups < 0, self._n_groups, groups).astype(np.int32))
        self._dropout, self._member_dropout = config["dropout"], config["member_dropout"]
        self._size, self._units = config["ensemble"], config["hidden"]
        n_columns, size, units = len(groups), self._size, self._units
        inputs = self._codes * n_columns

        def normal(scale: float, *shape: int) -> tf.Variable:
            return tf.Variable((draw.normal(size=shape) * scale).astype(np.float32))

        self.variables = {
            "first": normal((2.0 / inputs if ramps else 1.0 / n_columns) ** 0.5, inputs, size * units),
            "first_bias": tf.Variable(tf.zeros([size * units])),
            "second": normal((2.0 / units) ** 0.5, size, units, units),
            "second_bias": tf.Variable(tf.zeros([size, 1, units])),
            "last": normal((1.0 / units) ** 0.5, size, units, 1),
            "linear": tf.Variable(tf.zeros([inputs, size])),
        }

    @property
    def _codes(self) -> int:
        return self._ramps + 1 if self._ramps else 3

    def _code(self, columns: tf.Tensor, gone: tf.Tensor) -> tf.Tensor:
        """``stacking.encode``: ``[b, l, f]`` -> ``[b, l, c f]``."""
        flag = tf.cast(gone, tf.float32)
        if not self._ramps:
            centred = tf.where(gone, 0.0, 2.0 * columns - 1.0)
            return tf.concat([centred, tf.square(centred), flag], axis=2)
        scaled = 2.0 * self._ramps * columns - 1.0
        ramps = [tf.clip_by_value(scaled - 2.0 * place, -1.0, 1.0) for place in range(self._ramps)]
        return tf.concat([*(tf.where(gone, 0.0, ramp) for ramp in ramps), flag], axis=2)

    def logits(self, columns: tf.Tensor) -> tf.Tensor:
        """``[b, l, f]`` -> ``[b, s, l]``."""
        shape = tf.shape(columns)
        masked = tf.random.uniform([shape[0], self._n_groups]) < self._member_dropout
        masked = tf.concat([masked, tf.zeros([shape[0], 1], tf.bool)], axis=1)
        gone = tf.gather(masked, self._groups, axis=1)[:, None, :] | tf.math.is_nan(columns)
        code = tf.reshape(self._code(columns, gone), [shape[0] * shape[1], self._codes * len(self._groups)])
        v = self.variables
        hidden = tf.nn.dropout(tf.nn.relu(code @ v["first"] + v["first_bias"]), self._dropout)
        hidden = tf.transpose(tf.reshape(hidden, [-1, self._size, self._units]), [1, 0, 2])
        hidden = tf.nn.dropout(tf.nn.relu(hidden @ v["second"] + v["second_bias"]), self._dropout)
        out = tf.transpose((hidden @ v["last"])[:, :, 0]) + code @ v["linear"]
        return tf.transpose(tf.reshape(out, [shape[0], shape[1], self._size]), [0, 2, 1])
