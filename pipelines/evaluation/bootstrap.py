"""Paired percentile bootstrap over users (Efron & Tibshirani 1993, ch. 13).

One draw picks as many users as there are, with replacement, and takes the mean of every column over
them. All columns of a call see the same users in the same draw, so a difference of two systems is
paired. A column's interval is the span from the 2.5 % to the 97.5 % quantile of its means.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pipelines.evaluation import metrics

DRAWS = 10_000
DRAWS_OVER_LISTS = 1_000
"""Draws for metrics of the lists together: each counts all lists anew, so there are fewer."""
CHUNK_BYTES = 32_000_000
QUANTILES = (0.025, 0.975)
DIGITS = 6
"""Decimals kept in JSON: more differ between machines by the order of summation."""


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % interval over ``n`` users."""

    mean: float
    low: float
    high: float
    n: int

    def as_json(self) -> dict[str, float]:
        """Fields by the names of ``metrics.json``."""
        return {"mean": _rounded(self.mean), "ci_low": _rounded(self.low), "ci_high": _rounded(self.high), "n": self.n}

    def as_difference(self) -> dict[str, float]:
        """The same for a difference of two systems."""
        fields = self.as_json()
        return {"mean_difference": fields.pop("mean"), **fields}


def intervals(values: np.ndarray, *, seed: int, draws: int = DRAWS) -> list[Interval | None]:
    """Mean and interval of each column of ``values``, float ``[users, columns]``.

    A NaN leaves its user out of that column alone. A column without any number gives None; one with
    a single number an interval of no width. Time is draws · users · columns, memory bounded.
    """
    values = np.asarray(values, np.float64)
    present = ~np.isnan(values)
    counts = present.sum(axis=0)
    if not len(values) or not values.shape[1]:
        return [None] * values.shape[1]
    means = np.concatenate(list(_means(values, present, seed=seed, draws=draws)))
    out: list[Interval | None] = []
    for column, n in enumerate(counts.tolist()):
        drawn = means[:, column]
        drawn = drawn[~np.isnan(drawn)]
        if not n:
            out.append(None)
            continue
        low, high = np.quantile(drawn, QUANTILES)
        out.append(Interval(float(values[present[:, column], column].mean()), float(low), float(high), n))
    return out


def interval(values: np.ndarray, *, seed: int, draws: int = DRAWS) -> Interval | None:
    """Mean and interval of one value a user, ``[users]``."""
    return intervals(values[:, None], seed=seed, draws=draws)[0]


def difference(one: np.ndarray, other: np.ndarray, *, seed: int, draws: int = DRAWS) -> Interval | None:
    """Mean and interval of ``one − other``, both ``[users]`` of the same users in the same order."""
    return interval(one - other, seed=seed, draws=draws)


def over_lists(
    codes: np.ndarray, n_items: int, *, seed: int, draws: int = DRAWS_OVER_LISTS
) -> dict[str, Interval | None]:
    """Coverage and Gini of lists, ``codes`` ``[users, k]``, -1 for an empty place.

    A draw shows fewer different lists than there are (about 63 %), which pulls coverage down and Gini
    up whatever the system. Only the spread of the draws is of use: the interval is their quantiles
    moved by the distance from their mean to the observed value, and cut to [0, 1].
    """
    if not len(codes) or not n_items:
        return dict.fromkeys(metrics.OVER_LISTS)
    drawn = np.empty((draws, 2))
    row = 0
    for weights in _weights(len(codes), seed=seed, draws=draws):
        for line in weights:
            times = metrics.times_shown(codes, n_items, line)
            drawn[row] = metrics.coverage(times), metrics.gini(times)
            row += 1
    times = metrics.times_shown(codes, n_items)
    observed = np.array([metrics.coverage(times), metrics.gini(times)])
    spans = np.clip(np.quantile(drawn, QUANTILES, axis=0) - drawn.mean(axis=0) + observed, 0.0, 1.0)
    return {
        name: Interval(float(observed[i]), float(spans[0, i]), float(spans[1, i]), len(codes))
        for i, name in enumerate(metrics.OVER_LISTS)
    }


def _weights(n: int, *, seed: int, draws: int) -> Iterator[np.ndarray]:
    """How often each of n users is drawn, float64 ``[chunk, n]``, in chunks of bounded memory."""
    generator = np.random.default_rng(seed)
    rows = max(1, CHUNK_BYTES // (8 * n))
    for start in range(0, draws, rows):
        size = min(rows, draws - start)
        picked = generator.integers(n, size=(size, n), dtype=np.int32)
        flat = (picked + np.arange(size)[:, None] * n).ravel()
        yield np.bincount(flat, minlength=size * n).reshape(size, n).astype(np.float64)


def _means(values: np.ndarray, present: np.ndarray, *, seed: int, draws: int) -> Iterator[np.ndarray]:
    filled = np.where(present, values, 0.0)
    whole = present.all(axis=0)
    for weights in _weights(len(values), seed=seed, draws=draws):
        sums = weights @ filled
        drawn = np.full_like(sums, float(len(values)))
        drawn[:, ~whole] = weights @ present[:, ~whole].astype(np.float64)
        yield np.divide(sums, drawn, out=np.full_like(sums, np.nan), where=drawn > 0)


def _rounded(value: float) -> float:
    return round(value, DIGITS) + 0.0
