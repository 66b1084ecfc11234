"""Wider lists: what sells anyway makes room, as far as quality allows.

Fused scores favour what sells, also among items that a person wants alike: lists of different people become one. An
additive penalty on log popularity undoes that (Steck 2011, "Item popularity and recommendation accuracy", RecSys; as
a re-ranking Abdollahpouri et al. 2019, "Managing popularity bias in recommender systems with personalized
re-ranking"). It weighs as many standard deviations of a list's scores as one standard deviation of its log sales.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipelines.evaluation.bootstrap import difference
from pipelines.fusion.features import FEATURES
from pipelines.fusion.fuser import LabelledList
from pipelines.fusion.quality import ndcg_of

WEIGHTS = (0.05, 0.1, 0.15, 0.2)
"""Tried in this order, until one costs too much."""

FEWEST_LISTS = 30
"""Fewer lists prove nothing, and stay as they are."""

SOLD = "bought_last28"
"""The item aggregate of ``FeatureState.items`` that tells what sells: target events of the last 28 days."""


def demand(sold: np.ndarray) -> np.ndarray:
    """Log popularity of items, float32 ``[m]``, of how often each was sold lately; unknown is never."""
    logs: np.ndarray = np.log1p(np.nan_to_num(sold, nan=0.0)).astype(np.float32)
    return logs


def spread(scores: np.ndarray, demanded: np.ndarray, weight: float) -> np.ndarray:
    """Scores of a list with what sells anyway further down, float32 ``[m]``.

    Args:
        scores: fused scores ``[m]``; -inf stays.
        demanded: of :func:`demand`, ``[m]``.
        weight: standard deviations of the scores per standard deviation of ``demanded``, both over this list; 0
            changes nothing.
    """
    known = scores > -np.inf
    if not weight or not known.any():
        return scores
    values, sales = scores[known], demanded[known]
    deviation = float(sales.std())
    if deviation == 0:
        return scores
    wider = scores.copy()
    wider[known] = values - np.float32(weight * values.std() / deviation) * (sales - sales.mean())
    return wider


def widest(
    scores: Sequence[np.ndarray], lists: Sequence[LabelledList], *, most_lost: float, seed: int
) -> tuple[float, dict[str, dict[str, float]]]:
    """The greatest weight of :data:`WEIGHTS` that is proven to cost little.

    Args:
        scores: of each list's candidates by a fuser that has not learned from the list, ``[m]`` each.
        lists: labelled lists.
        most_lost: share of nDCG@10 in [0, 1); the 95 % interval of the paired loss, and that of each smaller weight,
            stays below it.
        seed: of the bootstrap.

    Returns:
        The weight, 0 where none holds; and by weight the change of nDCG@10 with its interval. Nothing is tried on
        fewer lists than :data:`FEWEST_LISTS`.
    """
    if len(lists) < FEWEST_LISTS:
        return 0.0, {}
    demanded = [demand(one.features[:, FEATURES.index("item_last28")]) for one in lists]
    base = ndcg_of(scores, lists)
    chosen = 0.0
    trials: dict[str, dict[str, float]] = {}
    for weight in WEIGHTS:
        wider = [spread(values, sales, weight) for values, sales in zip(scores, demanded, strict=True)]
        change = difference(ndcg_of(wider, lists), base, seed=seed)
        if change is None:
            break
        trials[str(weight)] = change.as_difference()
        if change.low <= -most_lost * base.mean():
            break
        chosen = weight
    return chosen, trials
