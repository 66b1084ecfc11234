"""How far what happens now lies from what the champion has learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

GROUPS = 10
"""Items are compared in so many groups of about equal share, prices in so many ranges."""

PRIOR = 0.5
"""Added to every count, so that an empty group gives a large number and not an infinite one (Jeffreys' prior)."""


def stability_index(reference: np.ndarray, observed: np.ndarray) -> float:
    """Population stability index ``Σ (o − r) ln(o / r)`` of two distributions over the same groups.

    It is 0 for equal shares; below .1 counts as stable and above .25 as another population. With n rows in
    k groups chance alone gives about (k − 1) (1 / n_r + 1 / n_o).

    Args:
        reference: counts a group, ``[k]``.
        observed: the same of now.
    """
    r, o = ((counts + PRIOR) / (counts + PRIOR).sum() for counts in (np.asarray(reference), np.asarray(observed)))
    return float(((o - r) * np.log(o / r)).sum())


def popularity_groups(popularity: np.ndarray) -> np.ndarray:
    """Each item's group, int64 ``[n_items]``: 0 holds the best sellers, and each group about a tenth of all sales.

    Comparing items one by one would measure chance: most sell a few times a week. What has not sold at all
    is in the last group.
    """
    order = np.argsort(-popularity, kind="stable")
    before = np.cumsum(popularity[order]) - popularity[order]
    groups = np.empty(len(popularity), np.int64)
    groups[order] = np.minimum(GROUPS * before / max(float(popularity.sum()), 1e-12), GROUPS - 1).astype(np.int64)
    groups[popularity <= 0] = GROUPS - 1
    return groups


def popularity_drift(popularity: np.ndarray, sold: np.ndarray, *, unknown: float) -> float:
    """Stability index of the items' shares; ``unknown``: sales of items that the champion has never met.

    Args:
        popularity: sales that the champion has learned, float ``[n_items]``.
        sold: sales of now, float ``[n_items]``.
        unknown: of items beyond these.
    """
    groups = popularity_groups(popularity)
    reference = np.bincount(groups, popularity, minlength=GROUPS + 1)
    observed = np.bincount(groups, sold, minlength=GROUPS + 1)
    observed[GROUPS] += unknown
    return stability_index(reference, observed)


def price_drift(prices: np.ndarray, weights: np.ndarray, now: np.ndarray, now_weights: np.ndarray) -> float:
    """Stability index over ranges of price that held equal shares of the champion's sales; NaN prices are left out."""
    known, seen = ~np.isnan(prices), ~np.isnan(now)
    order = np.argsort(prices[known], kind="stable")
    share = np.cumsum(weights[known][order]) / max(float(weights[known].sum()), 1e-12)
    edges = np.unique(prices[known][order][np.searchsorted(share, np.arange(1, GROUPS) / GROUPS)])
    reference = np.bincount(np.searchsorted(edges, prices[known]), weights[known], minlength=len(edges) + 1)
    observed = np.bincount(np.searchsorted(edges, now[seen]), now_weights[seen], minlength=len(edges) + 1)
    return stability_index(reference, observed)


def weighted_median(values: np.ndarray, weights: np.ndarray) -> float:
    """The value up to which half of the weight lies; ``[n]`` each, n above zero."""
    order = np.argsort(values, kind="stable")
    upto = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(upto, upto[-1] / 2)])


def mix_drift(reference: Mapping[str, float], observed: Mapping[str, float]) -> float:
    """Stability index over names: categories, event types."""
    names: Sequence[str] = sorted({*reference, *observed})
    return stability_index(
        np.array([reference.get(name, 0.0) for name in names]), np.array([observed.get(name, 0.0) for name in names])
    )
