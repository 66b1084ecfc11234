"""How good a fuser's lists are on labelled windows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipelines.evaluation.metrics import binary_ndcg
from pipelines.fusion.fuser import FittedFuser, LabelledList

DEPTH = 10


def ordered(scores: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Rows from best to worst, ties by lower code; int64 ``[m]``."""
    if (codes[1:] > codes[:-1]).all():  # as candidates come: one stable sort does
        return np.argsort(-scores, kind="stable")
    order: np.ndarray = np.lexsort((codes, -scores))
    return order


def per_list_ndcg(fuser: FittedFuser, lists: Sequence[LabelledList]) -> np.ndarray:
    """nDCG@10 of each list, float64 ``[len(lists)]``; the ideal counts items that no member found."""
    hits = np.zeros((len(lists), DEPTH), np.bool_)
    for row, one in enumerate(lists):
        scores = fuser.score(one.candidates, one.features if fuser.reads_features else None)
        best = ordered(scores, one.candidates.codes)[:DEPTH]
        best = best[scores[best] > -np.inf]
        hits[row, : len(best)] = one.relevant[best]
    return binary_ndcg(hits, np.array([one.n_relevant for one in lists]), DEPTH)


def mean_ndcg(fuser: FittedFuser, lists: Sequence[LabelledList]) -> float:
    """Mean nDCG@10 over lists."""
    return float(per_list_ndcg(fuser, lists).mean())
