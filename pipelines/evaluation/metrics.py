"""Ranking metrics: arrays in, numbers out.

Per-user metrics take ``hits``, bool ``[users, k]``: whether the item at each place of a user's list is
relevant, best place first; a place that a shorter list leaves empty is False. ``n_relevant`` int
``[users]`` counts a user's relevant items, those that no list could show included. They return float64
``[users]``, NaN for users without a relevant item: such a user says nothing and leaves every mean.

List metrics look at what is shown and not at whether it was right. They take ``codes``, int
``[users, k]``: item codes, -1 for an empty place.

Sources: Järvelin & Kekäläinen 2002 (nDCG, eq. 3 with log2, binary gain), Voorhees 1999 (MRR), Manning
et al. 2008, ch. 8 (precision, recall, MAP), Ziegler et al. 2005 (intra-list similarity), Zhou et al. 2010
(novelty as self-information), Shani & Gunawardana 2011 (catalogue coverage, Gini).
"""

from __future__ import annotations

import numpy as np

LIST_LENGTH = 20
"""Places of a list that any metric looks at."""

SEARCH_LENGTH = 100
"""The same of a search, whose pages people turn."""

PER_USER = ("ndcg@10", "recall@20", "mrr@10", "hit_rate@10", "map@10", "precision@10")
PER_LIST = ("diversity@10", "novelty@10")
OF_SEARCH = ("recall@100",)
"""Further metrics of a search."""
OVER_LISTS = ("coverage@10", "gini@10")
METRICS = PER_USER + OVER_LISTS[:1] + PER_LIST + OVER_LISTS[1:]
"""Names of all metrics, in the order in which they are shown."""


def of_one(*, search: bool) -> tuple[str, ...]:
    """Names of the metrics that one user's or one query's list has by itself."""
    return (*PER_USER, *(OF_SEARCH if search else ()), *PER_LIST)


def shown(*, search: bool) -> tuple[str, ...]:
    """Names of all metrics of a surface, in the order in which they are shown."""
    after = METRICS.index("recall@20") + 1
    return METRICS[:after] + (OF_SEARCH if search else ()) + METRICS[after:]


LOWER_IS_BETTER = frozenset({"gini@10"})


def discounts(k: int) -> np.ndarray:
    """``1 / log2(place + 1)`` for the places 1…k, float64 ``[k]``."""
    weights: np.ndarray = 1.0 / np.log2(np.arange(2, k + 2))
    return weights


def ndcg(gains: np.ndarray, ideal: np.ndarray, k: int) -> np.ndarray:
    """Discounted gain over that of the best possible list: ``Σ g_i / log2(i + 1)  /  Σ g*_i / log2(i + 1)``.

    Args:
        gains: ``[users, >= k]``, gain of the item at each place (bool counts as 0 and 1).
        ideal: ``[users, any]``, gains of all relevant items of the user, best first, padded with 0.
        k: cut of both sums.
    """
    best = np.asarray(ideal, np.float64)[:, :k]
    return _ratio(_first(gains, k) @ discounts(k), best @ discounts(best.shape[1]))


def binary_ndcg(hits: np.ndarray, n_relevant: np.ndarray, k: int) -> np.ndarray:
    """Normalised DCG with gain 1 for a relevant item; the ideal list starts with min(k, ``n_relevant``) of them."""
    ideal = np.concatenate([[0.0], np.cumsum(discounts(k))])
    return _ratio(_first(hits, k) @ discounts(k), ideal[np.minimum(n_relevant, k)])


def recall(hits: np.ndarray, n_relevant: np.ndarray, k: int) -> np.ndarray:
    """Share of the user's relevant items among the first k: ``Σ hit_i / n_relevant``."""
    return _ratio(_first(hits, k).sum(axis=1), n_relevant)


def precision(hits: np.ndarray, n_relevant: np.ndarray, k: int) -> np.ndarray:
    """Share of the k places with a relevant item: ``Σ hit_i / k``; an empty place counts as a miss."""
    return _for_users_with_relevant(_first(hits, k).sum(axis=1) / k, n_relevant)


def hit_rate(hits: np.ndarray, n_relevant: np.ndarray, k: int) -> np.ndarray:
    """1 when any of the first k is relevant, else 0."""
    return _for_users_with_relevant(_first(hits, k).max(axis=1, initial=0.0), n_relevant)


def reciprocal_rank(hits: np.ndarray, n_relevant: np.ndarray, k: int) -> np.ndarray:
    """1 / place of the first relevant item, 0 when there is none among the first k (mean: MRR)."""
    found = _first(hits, k)
    first = np.where(found.any(axis=1), 1.0 / (1 + found.argmax(axis=1)), 0.0)
    return _for_users_with_relevant(first, n_relevant)


def average_precision(hits: np.ndarray, n_relevant: np.ndarray, k: int) -> np.ndarray:
    """``Σ_{i hit} precision@i / min(k, n_relevant)`` (mean: MAP)."""
    found = _first(hits, k)
    precisions = np.cumsum(found, axis=1) / np.arange(1, k + 1)
    return _ratio((precisions * found).sum(axis=1), np.minimum(n_relevant, k))


def per_user(hits: np.ndarray, n_relevant: np.ndarray) -> dict[str, np.ndarray]:
    """All of ``PER_USER``; ``hits`` bool ``[users, 20]``."""
    return {
        "ndcg@10": binary_ndcg(hits, n_relevant, 10),
        "recall@20": recall(hits, n_relevant, 20),
        "mrr@10": reciprocal_rank(hits, n_relevant, 10),
        "hit_rate@10": hit_rate(hits, n_relevant, 10),
        "map@10": average_precision(hits, n_relevant, 10),
        "precision@10": precision(hits, n_relevant, 10),
    }


def hit_matrix(codes: np.ndarray, relevant: list[np.ndarray], n_items: int) -> np.ndarray:
    """Which places show a relevant item, bool like ``codes``; ``relevant``: item codes of each user."""
    owners = np.repeat(np.arange(len(relevant)), [len(items) for items in relevant])
    flat = np.concatenate(relevant) if relevant else np.zeros(0, np.int64)
    wanted = owners[flat >= 0] * n_items + flat[flat >= 0]
    shown = np.arange(len(codes))[:, None] * n_items + codes
    hits: np.ndarray = np.isin(shown, wanted) & (codes >= 0)
    return hits


def gain_matrix(codes: np.ndarray, relevant: list[np.ndarray], gains: list[np.ndarray], n_items: int) -> np.ndarray:
    """What the item at each place is worth to the user, float64 like ``codes``; 0 for what is not ``relevant``."""
    owners = np.repeat(np.arange(len(relevant)), [len(items) for items in relevant])
    flat = np.concatenate([*relevant, np.zeros(0, np.int64)])
    keys, worth = (owners * n_items + flat)[flat >= 0], np.concatenate([*gains, np.zeros(0)])[flat >= 0]
    order = np.argsort(keys)
    keys, worth = np.append(keys[order], -1), np.append(worth[order], 0.0)
    shown = np.arange(len(codes))[:, None] * n_items + codes
    place = np.searchsorted(keys[:-1], shown)
    found: np.ndarray = np.where((keys[place] == shown) & (codes >= 0), worth[place], 0.0)
    return found


def diversity(codes: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Mean of 1 − cosine over the pairs of a list, float64 ``[users]``.

    Args:
        codes: ``[users, k]``.
        vectors: ``[n_items, d]`` of unit length; a zero row (an item without text) has no direction and
            is left out.

    Returns:
        0 for a list of one text repeated, 1 for unrelated ones, at most 2; NaN below two items with text.

    With unit vectors the sum over ordered pairs i ≠ j of cos(i, j) is ‖Σ v‖² − m, so no pair is formed.
    """
    out = np.full(len(codes), np.nan)
    has_text = np.any(vectors != 0, axis=1)
    for row, line in enumerate(codes):
        known = line[line >= 0]
        known = known[has_text[known]]
        if len(known) > 1:
            unit = np.asarray(vectors[known], np.float64)
            unit /= np.linalg.norm(unit, axis=1, keepdims=True)
            total = unit.sum(axis=0)
            out[row] = 1 - (total @ total - len(known)) / (len(known) * (len(known) - 1))
    return out


def self_information(owners: np.ndarray, n_users: int) -> np.ndarray:
    """``-log2`` of the share of users who have each item, float64 ``[n_items]``.

    ``owners`` counts the users who have each item. An item that nobody has counts as half a user, so
    that the largest value is ``log2(2 · n_users)`` and not infinite.
    """
    bits: np.ndarray = -np.log2(np.maximum(np.asarray(owners, np.float64), 0.5) / max(n_users, 1))
    return bits


def novelty(codes: np.ndarray, information: np.ndarray) -> np.ndarray:
    """Mean self-information of the items of a list in bits, float64 ``[users]``; NaN for an empty list."""
    shown = codes >= 0
    bits = np.where(shown, information[np.where(shown, codes, 0)], 0.0).sum(axis=1)
    return _ratio(bits, shown.sum(axis=1))


def times_shown(codes: np.ndarray, n_items: int, weights: np.ndarray | None = None) -> np.ndarray:
    """How often each item is shown, float64 ``[n_items]``; ``weights`` ``[users]`` counts a list several times."""
    shown = codes >= 0
    repeated = None if weights is None else np.repeat(weights, shown.sum(axis=1))
    return np.bincount(codes[shown], repeated, n_items).astype(np.float64)


def coverage(times: np.ndarray) -> float:
    """Share of the catalogue shown in at least one list; 0 without a catalogue."""
    return float(np.count_nonzero(times) / len(times)) if len(times) else 0.0


def gini(times: np.ndarray) -> float:
    """Gini coefficient of how often the items of the whole catalogue are shown.

    ``Σ_i (2i − n − 1) x_i / (n Σ x)`` with x ascending, i from 1: 0 when all are shown equally often (or
    nothing is shown), 1 − 1/n when one item takes every place.
    """
    n, total = len(times), times.sum()
    if total == 0:
        return 0.0
    ascending = np.sort(times)
    return float(((2 * np.arange(1, n + 1) - n - 1) @ ascending) / (n * total))


def _first(values: np.ndarray, k: int) -> np.ndarray:
    """The first k columns as float64; fewer columns are filled up with zeros."""
    cut = np.asarray(values, np.float64)[:, :k]
    return cut if cut.shape[1] == k else np.pad(cut, ((0, 0), (0, k - cut.shape[1])))


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Quotient, NaN where the denominator is not above zero."""
    below = np.asarray(below, np.float64)
    out = np.full(len(below), np.nan)
    np.divide(above, below, out=out, where=below > 0)
    return out


def _for_users_with_relevant(values: np.ndarray, n_relevant: np.ndarray) -> np.ndarray:
    kept: np.ndarray = np.where(np.asarray(n_relevant) > 0, values, np.nan)
    return kept
