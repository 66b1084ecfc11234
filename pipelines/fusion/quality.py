"""How good a fuser's lists are on labelled windows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipelines import native
from pipelines.evaluation.metrics import ndcg
from pipelines.fusion.fuser import FittedFuser, LabelledList

DEPTH = 10


def ordered(scores: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Rows from best to worst, ties by lower code; int64 ``[m]``."""
    if native.kernels is not None and scores.dtype == np.float32 and codes.dtype == np.int64:
        order = np.empty(len(scores), np.int64)
        if native.kernels.descending(np.ascontiguousarray(scores), np.ascontiguousarray(codes), order):
            return order
    return np.lexsort((codes, -scores))


def per_list_ndcg(fuser: FittedFuser, lists: Sequence[LabelledList]) -> np.ndarray:
    """nDCG@10 of each list, float64 ``[len(lists)]``; the ideal counts items that no member found."""
    return ndcg_of(scores_of(fuser, lists), lists)


def scores_of(fuser: FittedFuser, lists: Sequence[LabelledList]) -> list[np.ndarray]:
    """The fuser's scores of each list's candidates, float32 ``[m]`` each."""
    return [fuser.score(one.candidates, one.features if fuser.reads_features else None) for one in lists]


def ndcg_of(scores: Sequence[np.ndarray], lists: Sequence[LabelledList]) -> np.ndarray:
    """nDCG@10 of each list in the order of these scores of its candidates; -inf is left out."""
    gains, ideal = np.zeros((len(lists), DEPTH)), np.zeros((len(lists), DEPTH))
    for row, (one, scores_of_one) in enumerate(zip(lists, scores, strict=True)):
        best = first_rows(scores_of_one, one)
        gains[row, : len(best)] = one.gains[best]
        ideal[row, : len(one.ideal)] = one.ideal[:DEPTH]
    return ndcg(gains, ideal, DEPTH)


def first_rows(scores: np.ndarray, one: LabelledList) -> np.ndarray:
    """Rows of the first :data:`DEPTH` candidates, best first, int64; -inf is left out."""
    best = ordered(scores, one.candidates.codes)[:DEPTH]
    found: np.ndarray = best[scores[best] > -np.inf]
    return found


def first_codes(scores: np.ndarray, one: LabelledList) -> list[int]:
    """Codes of :func:`first_rows`."""
    codes: list[int] = one.candidates.codes[first_rows(scores, one)].tolist()
    return codes


def mean_ndcg(fuser: FittedFuser, lists: Sequence[LabelledList]) -> float:
    """Mean nDCG@10 over lists."""
    return float(per_list_ndcg(fuser, lists).mean())
