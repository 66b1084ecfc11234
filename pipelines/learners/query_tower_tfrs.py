"""The towers of users and of queries over one tower of items, as a TF-Recommenders model, and how they are trained.

Two retrieval tasks share the items' vectors: what is bought after a history, and what is chosen after a query. The
negatives of a query are the choices of the others in the batch and items that words find for it (mixed negatives: Yang
et al. 2020, "Mixed Negative Sampling for Learning Two-tower Neural Networks in Recommendations"; hard ones: Karpukhin
et al. 2020, arXiv:2004.04906, section 3.2), all corrected by their chance to be drawn.

Imported only inside a fit, as ``learners.two_tower_tfrs``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np
import tensorflow as tf

from pipelines.learners.query_tower_examples import HardNegatives, Searches
from pipelines.learners.two_tower_batches import Lessons
from pipelines.learners.two_tower_tfrs import SIGNATURE, Parameters, Schedule, TwoTower, tensors

QUERY_SIDE = ("query", "query_bias", "personal", "popularity")
"""Values that only searches teach."""
SHARPNESS = 13.0
"""The query's vector counts so much: weights that move in small steps then tell a few items from all others."""
NOBODY = 0.5
"""Share of the contexts whose history is left out, so that a stranger's query is answered as well."""


class QueryTower(TwoTower):
    """As :class:`TwoTower`, and q = s (W · text(query) + c) + p · U · mean(v), with score q · v + m · b."""

    def __init__(self, start: Parameters, text: np.ndarray, price: np.ndarray) -> None:
        """``start``: as there, with the values of :data:`QUERY_SIDE`."""
        super().__init__(start, text, price)
        width = start["query"].shape[0]
        signature = SIGNATURE | {"queries": tf.TensorSpec([None, width], tf.float32)}
        self.search_step = tf.function(self._search_step, input_signature=[signature, tf.TensorSpec((), tf.float32)])

    @property
    def taught_by_histories(self) -> list[str]:
        """All but the query's side."""
        return [name for name in self.values if name not in QUERY_SIDE]

    @property
    def taught_by_searches(self) -> list[str]:
        """The query's side, and what it shares with the histories'."""
        return ["ids", "inputs", "user", *QUERY_SIDE]

    def search_towers(
        self, batch: dict[str, tf.Tensor], values: dict[str, tf.Tensor]
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """As :meth:`towers`, for contexts with a query each: ``batch["queries"]`` float32 ``[r, e]``."""
        items, pooled = self.pooled(batch, values)
        asked = SHARPNESS * (self._dense(batch["queries"], values["query"]) + values["query_bias"])
        asked += values["personal"] * self._dense(pooled, values["user"])
        bias = values["popularity"] * tf.gather(values["bias"], batch["candidates"])
        return asked, tf.gather(items, batch["candidates"]), bias

    def search_loss(self, batch: dict[str, tf.Tensor], values: dict[str, tf.Tensor]) -> tf.Tensor:
        """Mean loss per example; arguments as in :meth:`search_towers`."""
        return self.retrieval_loss(batch, *self.search_towers(batch, values))

    def _search_step(self, batch: dict[str, tf.Tensor], rate: tf.Tensor) -> tf.Tensor:
        return self.descend(batch, rate, self.search_loss, self.taught_by_searches)


@dataclass(frozen=True)
class SearchLessons:
    """Batches of searches: ``vectors`` float32 ``[q, e]`` of the queries.

    An example has ``each`` hard negatives, and as many of all items: those that nobody chooses would stay where they
    began.
    """

    given: Searches
    vectors: np.ndarray
    hard: HardNegatives
    each: int
    n_items: int
    lessons: Lessons

    @classmethod
    def of(cls, given: Searches, vectors: np.ndarray, hard: HardNegatives, *, each: int, n_items: int) -> Self:
        """Prepare the draws."""
        weight = np.bincount(given.query[given.pair], given.weight, len(given.queries))
        lessons = Lessons(
            given.bags,
            np.zeros((len(given.bags), 0), np.int64),
            given.pair,
            given.item,
            given.weight,
            n_items=n_items,
            negatives=hard.expected(weight, each, n_items) + each / n_items,
        )
        return cls(given, vectors, hard, each, n_items, lessons)

    def batch(self, size: int, rng: np.random.Generator, *, dropout: float) -> dict[str, tf.Tensor]:
        """About ``size`` examples."""
        query = self.given.query

        def further(pair: np.ndarray, draw: np.random.Generator) -> np.ndarray:
            anything = draw.integers(0, self.n_items, self.each * len(pair))
            return np.concatenate([self.hard.draw(query[pair], self.each, draw), anything])

        pairs, batch = self.lessons.batch(
            size, rng, dropout=lambda n: np.where(rng.random(n) < NOBODY, 1.0, dropout), further=further
        )
        return tensors(batch) | {"queries": tf.constant(self.vectors[query[pairs]])}


def train_both(
    model: QueryTower,
    histories: tuple[Schedule, Lessons] | None,
    searched: tuple[Schedule, SearchLessons],
    *,
    rng: np.random.Generator,
    report: Callable[[int, float, float], None],
) -> None:
    """Train in place, the steps of both tasks evenly mixed.

    Args:
        model: the towers.
        histories: what purchases teach, or None where there are none.
        searched: what choices after searches teach; its epochs count.
        rng: draws the batches and the dropout.
        report: called after each epoch with its number and the mean losses of histories and searches.
    """
    schedule, lessons = searched
    turns = _turns(0 if histories is None else histories[0].steps, schedule.steps)
    total, done = schedule.epochs * len(turns), 0
    for epoch in range(schedule.epochs):
        losses: tuple[list[tf.Tensor], list[tf.Tensor]] = ([], [])
        for is_search in turns:
            progress = done / total
            if is_search:
                batch = lessons.batch(schedule.size, rng, dropout=schedule.history_dropout)
                losses[1].append(model.search_step(batch, schedule.rate(progress)))
            elif histories is not None:
                own, taught = histories
                _, drawn = taught.batch(own.size, rng, dropout=own.history_dropout)
                losses[0].append(model.step(tensors(drawn), own.rate(progress)))
            done += 1
        report(epoch, *(float(np.mean([float(loss) for loss in one])) if one else float("nan") for one in losses))


def _turns(of_histories: int, of_searches: int) -> list[bool]:
    """Which steps of an epoch are searches: both kinds as evenly spread as can be."""
    places = [((n + 0.5) / count, is_search) for is_search, count in ((False, of_histories), (True, of_searches))
              for n in range(count)]  # fmt: skip
    return [is_search for _, is_search in sorted(places)]
