"""A search in two steps: a fuser without labels orders all that was found, a learned one the best of them anew.

A learned fuser reads many features, and learns and scores on the same shortlist: what it costs does not grow with what
was found, and what it was taught on is what it serves.
"""

from __future__ import annotations

import numpy as np

from pipelines.fusion.quality import ordered

SHORTLISTED = 200
"""Places of a search that a learned fuser orders."""


def shortlist(first: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Rows of the best :data:`SHORTLISTED` by their first scores, ties by lower code, in ascending order; int64."""
    rows: np.ndarray = np.sort(ordered(first, codes)[:SHORTLISTED])
    return rows


def one_after_the_other(then: np.ndarray, first: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Scores of a whole list, float32 ``[m]``: the shortlisted by the learned fuser, below them the rest as before.

    Args:
        then: scores of the shortlisted, ``[len(rows)]``.
        first: first scores of all, ``[m]``.
        rows: of :func:`shortlist`.
    """
    if len(rows) == len(first):
        return then
    rest = np.ones(len(first), np.bool_)
    rest[rows] = False
    known = then[then > -np.inf]
    floor = (known.min() if len(known) else np.float32(0)) - np.float32(1)
    scores: np.ndarray = (floor + (first - first[rest].max())).astype(np.float32)
    scores[rows] = then
    return scores
