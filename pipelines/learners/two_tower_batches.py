"""Batches of the two towers, drawn and put together in numpy: the graph sees no id and no lookup."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pipelines.learners.two_tower_examples import Bags
from pipelines.towers import DAMPING

NONE = np.zeros(0, np.int64)


@dataclass(frozen=True)
class Batch:
    """A batch whose ids are already rows of small tables, so that the graph sees no lookup.

    ``ids`` int64 ``[u]`` distinct items of the bags and the positives; ``bag_row``, ``bag_item`` int64 ``[m]``
    (context, place in ``ids``) of the bags' entries, by row; ``bag_weight`` float32 ``[m]``, sums to less than
    one per row; ``attributes`` int64 ``[r, a]``; ``context`` int64 ``[b]``: row of its context per example;
    ``candidates`` int64 ``[c]``: places in ``ids`` of the distinct positives and further negatives; ``positive`` int64
    ``[b]``: place in ``candidates``; ``log_count`` float32 ``[c]``: log of how often a candidate was drawn here;
    ``log_probability`` float32 ``[c]``: log of its chance to be drawn.
    """

    ids: np.ndarray
    bag_row: np.ndarray
    bag_item: np.ndarray
    bag_weight: np.ndarray
    attributes: np.ndarray
    context: np.ndarray
    candidates: np.ndarray
    positive: np.ndarray
    log_count: np.ndarray
    log_probability: np.ndarray


def make_batch(
    bags: Bags,
    attributes: np.ndarray,
    context: np.ndarray,
    positives: np.ndarray,
    *,
    log_probability: np.ndarray,
    dropout: float | np.ndarray,
    rng: np.random.Generator,
    negatives: np.ndarray = NONE,
) -> Batch:
    """Put one batch together.

    Args:
        bags: one a context.
        attributes: int64 ``[r, a]`` of each context.
        context: int64 ``[b]``, row of its context per example.
        positives: int64 ``[b]``, code of the item per example.
        log_probability: float32 ``[n_items]``, log of each item's chance to be drawn as a candidate.
        dropout: share of bag entries left out, of all bags or by bag ``[r]``.
        rng: draws them.
        negatives: int64 ``[h]``, codes of items that are candidates besides the positives of all.
    """
    rows = np.repeat(np.arange(len(bags)), np.diff(bags.pointer))
    left_out = dropout[rows] if isinstance(dropout, np.ndarray) else dropout
    kept = rng.random(len(rows), np.float32) >= left_out if np.any(left_out) else slice(None)
    rows, items, weights = rows[kept], bags.items[kept], bags.weights[kept]
    weights = weights / (np.bincount(rows, weights, len(bags)) + DAMPING)[rows]
    place = np.zeros(len(log_probability), np.int64)
    place[items] = 1
    drawn = np.concatenate([positives, negatives])
    place[drawn] = 1
    ids = np.flatnonzero(place)
    place[ids] = np.arange(len(ids))
    candidates, positive, count = np.unique(drawn, return_inverse=True, return_counts=True)
    return Batch(
        ids,
        rows,
        place[items],
        weights.astype(np.float32),
        attributes,
        context,
        place[candidates],
        positive[: len(positives)],
        np.log(count).astype(np.float32),
        log_probability[candidates].astype(np.float32),
    )


@dataclass(frozen=True)
class Baskets:
    """Examples by context. ``context`` and ``cumulated`` (chance) per basket; ``pointer`` into the examples.

    ``kept`` float64 per example: its weight relative to the largest of its basket; ``mean``: examples a draw.
    """

    context: np.ndarray
    cumulated: np.ndarray
    pointer: np.ndarray
    kept: np.ndarray
    mean: float

    def draw(self, size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """About ``size`` examples: contexts ``[r]``, row of its context per example ``[b]``, examples ``[b]``."""
        point = rng.random(max(1, round(size / self.mean))) * self.cumulated[-1]
        basket = np.minimum(np.searchsorted(self.cumulated, point, side="right"), len(self.context) - 1)
        count = np.diff(self.pointer)[basket]
        row = np.repeat(np.arange(len(basket)), count)
        example = np.arange(len(row)) - np.repeat(np.cumsum(count) - count - self.pointer[basket], count)
        taken = rng.random(len(row)) <= self.kept[example]
        return self.context[basket], row[taken], example[taken]


def baskets_of(context: np.ndarray, weight: np.ndarray) -> Baskets:
    """A basket is drawn by the largest weight in it; so every example is drawn in proportion to its own."""
    starts = np.flatnonzero(np.r_[True, np.diff(context) != 0])
    count = np.diff(np.r_[starts, len(context)])
    largest = np.maximum.reduceat(weight, starts)
    kept = weight / np.repeat(largest, count)
    mean = float(weight.sum() / largest.sum())
    return Baskets(context[starts], np.cumsum(largest), np.r_[starts, len(context)], kept, mean)


class Lessons:
    """Examples to draw batches of: contexts, and what was chosen in them."""

    def __init__(
        self,
        bags: Bags,
        attributes: np.ndarray,
        context: np.ndarray,
        item: np.ndarray,
        weight: np.ndarray,
        *,
        n_items: int,
        negatives: np.ndarray | None = None,
    ) -> None:
        """Prepare the draws.

        Args:
            bags: one a context.
            attributes: codes from 1 per context, 0 unknown, int64 ``[n_contexts, a]``.
            context: row of its context per example, ascending.
            item: the positive per example.
            weight: how often an example is drawn, relative to the others.
            n_items: codes lie in [0, n_items).
            negatives: float64 ``[n_items]``, how often an item is drawn as a further negative for an example.
        """
        self.bags, self.attributes, self.item = bags, attributes, item
        # in-batch negatives are drawn as positives are: that is the Q of the log-Q correction (Yi et al., eq. 3)
        drawn = np.bincount(item, weight, n_items) / weight.sum() + (0.0 if negatives is None else negatives)
        self.log_probability = np.log(np.maximum(drawn, 1e-12)).astype(np.float32)
        self.baskets = baskets_of(context, weight)

    def batch(
        self,
        size: int,
        rng: np.random.Generator,
        *,
        dropout: float | Callable[[int], np.ndarray],
        further: Callable[[np.ndarray, np.random.Generator], np.ndarray] = lambda *_: NONE,
    ) -> tuple[np.ndarray, Batch]:
        """About ``size`` examples: their contexts, int64 ``[r]``, and the batch.

        Args:
            size: examples.
            rng: draws them.
            dropout: share of bag entries left out, or what draws it for so many bags.
            further: draws further negatives, given the context of every example, int64 ``[b]``.
        """
        of, row, chosen = self.baskets.draw(size, rng)
        negatives = further(of[row], rng)
        return of, make_batch(
            self.bags.take(of),
            self.attributes[of],
            row,
            self.item[chosen],
            log_probability=self.log_probability,
            dropout=dropout(len(of)) if callable(dropout) else dropout,
            rng=rng,
            negatives=negatives,
        )
