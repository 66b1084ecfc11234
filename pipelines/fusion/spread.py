"""Wider lists: what sells anyway makes room, as far as quality allows.

Fused scores favour what sells, also among items that a person wants alike: lists of different people become one. An
additive penalty on log popularity undoes that (Steck 2011, "Item popularity and recommendation accuracy", RecSys; as
a re-ranking Abdollahpouri et al. 2019, "Managing popularity bias in recommender systems with personalized
re-ranking"). It weighs as many standard deviations of a list's scores as one standard deviation of its log sales.
The first places are not touched: what is shown at all is decided below them, and what a list is worth above.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipelines.evaluation.bootstrap import difference
from pipelines.fusion.features import FEATURES
from pipelines.fusion.fuser import LabelledList
from pipelines.fusion.quality import first_codes, ndcg_of

WEIGHTS = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4)
"""Tried in this order, until one costs too much."""

FREE = 0.005
"""A weight whose loss of nDCG@10 surely stays below this share of it costs nothing."""

HEAD = 3
"""Places that go by the scores alone: nearly half of nDCG@10 is decided there, and three of ten places that cover."""

FEWEST_LISTS = 30
"""Fewer lists prove nothing, and stay as they are."""

SOLD = "bought_last28"
"""The item aggregate of ``FeatureState.items`` that tells what sells: target events of the last 28 days."""

SOLD_COLUMN = FEATURES.index("item_last28")
"""The same among the features of labelled lists."""


def demand(sold: np.ndarray) -> np.ndarray:
    """Log popularity of items, float32 ``[m]``, of how often each was sold lately; unknown is never."""
    logs: np.ndarray = np.log1p(np.nan_to_num(sold, nan=0.0)).astype(np.float32)
    return logs


def spread(scores: np.ndarray, demanded: np.ndarray, weight: float) -> np.ndarray:
    """Scores of a list with what sells anyway further down, float32 ``[m]``; the :data:`HEAD` best stay as they are.

    Args:
        scores: fused scores ``[m]``, in the order of codes, which decides ties; -inf stays.
        demanded: of :func:`demand`, ``[m]``.
        weight: standard deviations of the scores per standard deviation of ``demanded``, both over this list; 0
            changes nothing.
    """
    known = np.flatnonzero(scores > -np.inf)
    if not weight or len(known) <= HEAD:
        return scores
    values, sales = scores[known], demanded[known]
    deviation = float(sales.std())
    if deviation == 0:
        return scores
    order = np.argsort(-values, kind="stable")
    first, rest = order[:HEAD], order[HEAD:]
    wider = values - np.float32(weight * values.std() / deviation) * (sales - sales.mean())
    below = np.nextafter(values[first].min(), np.float32(-np.inf))
    lowered = np.minimum(wider[rest] - max(wider[rest].max() - below, np.float32(0)), below)
    found = scores.copy()
    found[known[rest]] = lowered
    return found


def chosen(
    scores: Sequence[np.ndarray],
    lists: Sequence[LabelledList],
    *,
    rival: Sequence[np.ndarray] | None,
    least_covered: float,
    most_lost: float,
    seed: int,
) -> tuple[float, dict[str, dict[str, float]]]:
    """The greatest weight of :data:`WEIGHTS` that costs nothing, or the least with which lists cover enough.

    Args:
        scores: of each list's candidates by a fuser that has not learned from the list, ``[m]`` each.
        lists: labelled lists of one or more windows.
        rival: likewise the scores of the member whose coverage is the measure; None: no coverage is asked for.
        least_covered: different items in the first ten of all lists of a window, as a share of the rival's; its mean
            over windows is to reach this. A weight that costs something is taken only for it.
        most_lost: share of nDCG@10 in [0, 1) that coverage may cost.
        seed: of the bootstrap.

    Returns:
        The weight, 0 where none holds; and by weight the change of nDCG@10 with its interval, and ``coverage``.
        Nothing is tried on fewer lists than :data:`FEWEST_LISTS`.
    """
    if len(lists) < FEWEST_LISTS:
        return 0.0, {}
    demanded = [demand(one.features[:, SOLD_COLUMN]) for one in lists]
    base = ndcg_of(scores, lists)
    weight, trials = 0.0, {}
    theirs = None if rival is None else _shown(rival, lists)
    covered = _share(_shown(scores, lists), theirs)
    for next_weight in WEIGHTS:
        wider = [spread(values, sales, next_weight) for values, sales in zip(scores, demanded, strict=True)]
        change = difference(ndcg_of(wider, lists), base, seed=seed)
        if change is None:
            break
        then = _share(_shown(wider, lists), theirs)
        trials[str(next_weight)] = change.as_difference() | ({} if np.isinf(then) else {"coverage": round(then, 4)})
        free = change.low > -FREE * base.mean()
        if not free and (covered >= least_covered or change.mean < -most_lost * base.mean()):
            break
        weight, covered = next_weight, then
    return weight, trials


def _shown(scores: Sequence[np.ndarray], lists: Sequence[LabelledList]) -> np.ndarray:
    """How many different items the lists of each window show, int64, windows in the order of their first lists."""
    shown: dict[str, set[int]] = {}
    for found, one in zip(scores, lists, strict=True):
        shown.setdefault(one.window, set()).update(first_codes(found, one))
    return np.array([len(codes) for codes in shown.values()])


def _share(ours: np.ndarray, theirs: np.ndarray | None) -> float:
    """Mean over the windows of ours over theirs; infinite where they show nothing, or nobody is compared with."""
    if theirs is None or not theirs.all():
        return float(np.inf)
    return float(np.mean(ours / theirs))
