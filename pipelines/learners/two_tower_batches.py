"""Batches of the two towers, drawn and put together in numpy: the graph sees no id and no lookup."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipelines.learners.two_tower_examples import Bags
from pipelines.models.two_tower import DAMPING


@dataclass(frozen=True)
class Batch:
    """A batch whose ids are already rows of small tables, so that the graph sees no lookup.

    ``ids`` int64 ``[u]`` distinct items of the bags and the positives; ``bag_row``, ``bag_item`` int64 ``[m]``
    (context, place in ``ids``) of the bags' entries, by row; ``bag_weight`` float32 ``[m]``, sums to less than
    one per row; ``attributes`` int64 ``[r, a]``; ``context`` int64 ``[b]``: row of its context per example;
    ``candidates`` int64 ``[c]``: places in ``ids`` of the distinct positives; ``positive`` int64 ``[b]``: place in
    ``candidates``; ``log_count`` float32 ``[c]``: log of how often a candidate is a positive here;
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
    dropout: float,
    rng: np.random.Generator,
) -> Batch:
    """Put one batch together; ``dropout`` is the share of bag entries left out, drawn from ``rng``."""
    rows = np.repeat(np.arange(len(bags)), np.diff(bags.pointer))
    kept = rng.random(len(rows), np.float32) >= dropout if dropout else slice(None)
    rows, items, weights = rows[kept], bags.items[kept], bags.weights[kept]
    weights = weights / (np.bincount(rows, weights, len(bags)) + DAMPING)[rows]
    place = np.zeros(len(log_probability), np.int64)
    place[items] = 1
    place[positives] = 1
    ids = np.flatnonzero(place)
    place[ids] = np.arange(len(ids))
    candidates, positive, count = np.unique(positives, return_inverse=True, return_counts=True)
    return Batch(
        ids,
        rows,
        place[items],
        weights.astype(np.float32),
        attributes,
        context,
        place[candidates],
        positive,
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
