"""The two towers as a TF-Recommenders model, and the loop that trains them.

Imported only inside a fit. TensorFlow Recommenders needs Keras 2, so ``TF_USE_LEGACY_KERAS=1`` has to be
set before the first import of TensorFlow in the process.

Sources: Covington et al. 2016 (a user as the average of the items used); Yi et al. 2019
(sampling-bias-corrected in-batch softmax, eq. 3-5).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
import tensorflow_recommenders as tfrs

from pipelines.learners.two_tower_batches import Batch, Lessons

ITEM_TABLES = ("ids", "bias")
BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-7

Parameters = dict[str, np.ndarray]


SIGNATURE = {
    "ids": tf.TensorSpec([None], tf.int64),
    "bag_row": tf.TensorSpec([None], tf.int64),
    "bag_item": tf.TensorSpec([None], tf.int64),
    "bag_weight": tf.TensorSpec([None], tf.float32),
    "attributes": tf.TensorSpec([None, None], tf.int64),
    "context": tf.TensorSpec([None], tf.int64),
    "candidates": tf.TensorSpec([None], tf.int64),
    "positive": tf.TensorSpec([None], tf.int64),
    "log_count": tf.TensorSpec([None], tf.float32),
    "log_probability": tf.TensorSpec([None], tf.float32),
}


class DistinctRetrieval(tfrs.tasks.Retrieval):  # type: ignore[misc]  # tfrs ships no types
    """``tfrs.tasks.Retrieval`` with accidental hits removed, over distinct contexts and distinct candidates.

    A batch names popular items many times, and a basket's context once per item. Equal columns and rows of
    the in-batch softmax are computed once: with Z the sum over candidates of n exp(s), n copies each, the
    example's own column counts once (its other copies are accidental hits), so that its normaliser is
    Z - (n - 1) exp(s). The loss is the parent class's; its cost O(contexts · candidates · d), not O(b² · d).
    """

    def call(  # noqa: PLR0917 - Keras hands a task its arguments by position
        self,
        query: tf.Tensor,
        candidate: tf.Tensor,
        context: tf.Tensor,
        positive: tf.Tensor,
        log_count: tf.Tensor,
        log_probability: tf.Tensor,
    ) -> tf.Tensor:
        """Loss summed over the batch, float32 scalar; query ``[r, d]``, candidate ``[c, d]``, rest as in Batch."""
        logits = tf.matmul(query, candidate, transpose_b=True) + (log_count - log_probability)
        normaliser = tf.gather(tf.reduce_logsumexp(logits, 1), context)
        own = tf.gather_nd(logits, tf.stack([context, positive], 1))
        copies = tf.gather(log_count, positive)
        others = tf.exp(own - normaliser) * (1.0 - tf.exp(-copies))  # the own column's share beyond one copy
        return tf.reduce_sum(normaliser + tf.math.log1p(-others) - own + copies)


class TwoTower(tfrs.Model):  # type: ignore[misc]  # tfrs ships no types
    """User tower: U · mean(v) + c + attributes. Item tower: v = e + P · text + Q · price. Score: u · v + b."""

    def __init__(self, start: Parameters, text: np.ndarray, price: np.ndarray) -> None:
        """``start``: initial values of what is learned; ``text`` ``[n, t]`` and ``price`` ``[n, 2]``: frozen inputs."""
        super().__init__()
        self.task = DistinctRetrieval()
        self.values = {name: tf.Variable(value, name=name) for name, value in start.items()}
        self.inputs_by_item = tf.constant(np.concatenate([text, price], 1).astype(np.float32))
        # bfloat16 only where a GPU multiplies it faster; the sums and the task stay in float32
        self.precision = tf.bfloat16 if tf.config.list_physical_devices("GPU") else tf.float32
        self.moments = {name: (tf.Variable(tf.zeros_like(v)), tf.Variable(tf.zeros_like(v))) for name, v in
                        self.values.items()}  # fmt: skip
        self.steps = tf.Variable(0.0)
        # a fixed signature: matching the shapes of every new batch costs more than a small step
        self.step = tf.function(self._step, input_signature=[SIGNATURE, tf.TensorSpec((), tf.float32)])

    @property
    def taught_by_histories(self) -> list[str]:
        """Names of the values that a step on histories moves."""
        return list(self.values)

    def _dense(self, x: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        return tf.cast(tf.matmul(tf.cast(x, self.precision), tf.cast(weights, self.precision)), tf.float32)

    def towers(
        self, batch: dict[str, tf.Tensor], values: dict[str, tf.Tensor]
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Users ``[r, d]``, candidates ``[c, d]`` and their bias ``[c]``.

        ``values`` has the rows ``batch["ids"]`` of the tables ``ids`` and ``bias``, the rest whole.
        """
        items, pooled = self.pooled(batch, values)
        users = self._dense(pooled, values["user"]) + values["user_bias"]
        for column, name in enumerate(sorted(n for n in values if n.startswith("attribute_"))):
            users += tf.gather(values[name], batch["attributes"][:, column])
        return users, tf.gather(items, batch["candidates"]), tf.gather(values["bias"], batch["candidates"])

    def pooled(self, batch: dict[str, tf.Tensor], values: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        """Items of the batch ``[u, d]``, and their weighted sum for each bag ``[r, d]``; as in :meth:`towers`."""
        inputs = tf.gather(self.inputs_by_item, batch["ids"])
        items = values["ids"] + self._dense(inputs, values["inputs"])
        shape = tf.stack([tf.shape(batch["attributes"], tf.int64)[0], tf.shape(items, tf.int64)[0]])
        entries = tf.stack([batch["bag_row"], batch["bag_item"]], 1)
        return items, tf.sparse.sparse_dense_matmul(tf.SparseTensor(entries, batch["bag_weight"], shape), items)

    def compute_loss(self, batch: dict[str, tf.Tensor], values: dict[str, tf.Tensor]) -> tf.Tensor:
        """Mean loss per example; arguments as in :meth:`towers`."""
        return self.retrieval_loss(batch, *self.towers(batch, values))

    def retrieval_loss(
        self, batch: dict[str, tf.Tensor], users: tf.Tensor, candidates: tf.Tensor, bias: tf.Tensor
    ) -> tf.Tensor:
        """Mean loss per example of contexts ``[r, d]`` that look for their positives among the candidates."""
        query = tf.concat([users, tf.ones_like(users[:, :1])], 1)
        candidate = tf.concat([candidates, bias[:, None]], 1)
        names = ("context", "positive", "log_count", "log_probability")
        loss = self.task(query, candidate, *(batch[name] for name in names))
        return loss / tf.cast(tf.shape(batch["positive"])[0], tf.float32)

    def rows(self, ids: tf.Tensor) -> dict[str, tf.Tensor]:
        """The learned values, of the tables of items only these rows."""
        return {n: tf.gather(v, ids) if n in ITEM_TABLES else tf.convert_to_tensor(v) for n, v in self.values.items()}

    def _step(self, batch: dict[str, tf.Tensor], rate: tf.Tensor) -> tf.Tensor:
        return self.descend(batch, rate, self.compute_loss, self.taught_by_histories)

    def descend(
        self,
        batch: dict[str, tf.Tensor],
        rate: tf.Tensor,
        loss_of: Callable[[dict[str, tf.Tensor], dict[str, tf.Tensor]], tf.Tensor],
        moving: Sequence[str],
    ) -> tf.Tensor:
        """One step of Adam on the values named; lazy for the tables of items: only rows in the batch are touched."""
        rows = batch["ids"]
        values = self.rows(rows)
        watched = {name: values[name] for name in moving}
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(watched)
            loss = loss_of(batch, values)
        gradients = tape.gradient(loss, watched, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        self.steps.assign_add(1.0)
        rate *= tf.sqrt(1 - BETA_2**self.steps) / (1 - BETA_1**self.steps)
        for name, sparse_or_dense in gradients.items():
            gradient = tf.convert_to_tensor(sparse_or_dense)
            first, second = self.moments[name]
            lazy = name in ITEM_TABLES
            m = BETA_1 * (tf.gather(first, rows) if lazy else first) + (1 - BETA_1) * gradient
            v = BETA_2 * (tf.gather(second, rows) if lazy else second) + (1 - BETA_2) * gradient**2
            moved = values[name] - rate * m / (tf.sqrt(v) + EPSILON)
            for variable, value in ((first, m), (second, v), (self.values[name], moved)):
                if lazy:
                    variable.scatter_update(tf.IndexedSlices(value, rows))
                else:
                    variable.assign(value)
        return loss

    def parameters(self) -> Parameters:
        """What has been learned, as arrays."""
        return {name: np.array(value.numpy()) for name, value in self.values.items()}

    def reset(self, parameters: Parameters) -> None:
        """Begin again from these values, with a fresh optimiser."""
        for name, value in parameters.items():
            self.values[name].assign(value)
            for moment in self.moments[name]:
                moment.assign(tf.zeros_like(moment))
        self.steps.assign(0.0)


@dataclass(frozen=True)
class Schedule:
    """``epochs`` at most, of ``examples_per_epoch`` draws; the rate falls linearly to a tenth of ``learning_rate``."""

    batch_size: int
    epochs: int
    examples_per_epoch: int
    least_steps: int
    learning_rate: float
    history_dropout: float

    @property
    def steps(self) -> int:
        """Of an epoch."""
        return max(self.least_steps, self.examples_per_epoch // self.batch_size)

    @property
    def size(self) -> int:
        """Examples a step."""
        return min(self.batch_size, self.examples_per_epoch)

    def rate(self, progress: float) -> tf.Tensor:
        """Adam's rate after this share of all steps."""
        return tf.constant(self.learning_rate * (1.0 - 0.9 * progress), tf.float32)


def train(
    model: TwoTower,
    schedule: Schedule,
    lessons: Lessons,
    *,
    quality: Callable[[Parameters], float] | None,
    patience: int = 0,
    rng: np.random.Generator,
    report: Callable[[int, float, float | None], None],
) -> int:
    """Train in place.

    Args:
        model: the towers.
        schedule: lengths and rates.
        lessons: what is taught.
        quality: what to stop by, higher is better; None: all epochs are run.
        patience: epochs more that may pass without progress.
        rng: draws the batches and the dropout.
        report: called after each epoch with its number, its mean loss and its quality.

    Returns:
        The number of epochs after which quality was best; all of them without a quality.
    """
    best, best_quality = 0, -np.inf
    for epoch in range(schedule.epochs):
        losses = []
        for step in range(schedule.steps):
            _, batch = lessons.batch(schedule.size, rng, dropout=schedule.history_dropout)
            progress = (epoch * schedule.steps + step) / (schedule.epochs * schedule.steps)
            losses.append(model.step(tensors(batch), schedule.rate(progress)))
        reached = None if quality is None else quality(model.parameters())
        report(epoch, float(np.mean([float(loss) for loss in losses])), reached)
        if reached is None:
            continue
        if reached > best_quality:
            best, best_quality = epoch + 1, reached
        elif epoch + 1 - best > patience:
            break
    return schedule.epochs if quality is None else best


def tensors(batch: Batch) -> dict[str, tf.Tensor]:
    """What a step takes."""
    return {name: tf.constant(value) for name, value in vars(batch).items()}
