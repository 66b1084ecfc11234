"""Features of a candidate that depend on what was asked, beside those of ``fusion.features``.

Everything comes from the members' scores and the feature state, so that it is the same in training and serving.
"""

from __future__ import annotations

import numpy as np

from pipelines.features.state import FeatureState
from pipelines.fusion.candidates import CandidateList, ranks
from pipelines.fusion.features import Part, single
from pipelines.fusion.quality import ordered

QUERY_FEATURES: tuple[str, ...] = ("first_score", "first_place", "feedback_similarity")
"""Column names of :func:`query_part`."""

FIRST_SCORE = QUERY_FEATURES.index("first_score") - len(QUERY_FEATURES)
"""Column among the features of a search, from the end."""

FEEDBACK_ITEMS = 10
"""Items found first that say what the others should be like; ten as in Lavrenko and Croft 2001 and after them."""

FEEDBACK_SHARE = 10
"""They are at most one in so many: the mean of nearly all that was found says nothing of what was meant."""


def query_part(state: FeatureState, candidates: CandidateList, first: np.ndarray | None = None) -> Part:
    """The columns :data:`QUERY_FEATURES`, float32 ``[m, len(QUERY_FEATURES)]``; NaN means unknown.

    Args:
        state: items as of the instant.
        candidates: what the members found.
        first: float32 ``[m]``, scores of the fuser that shortlisted these candidates; None before there is one.
    """
    columns = np.full((len(candidates.codes), len(QUERY_FEATURES)), np.nan, np.float32)
    if first is not None:
        columns[:, 0] = first
        columns[:, 1] = ranks(first[:, None])[:, 0]
    columns[:, 2] = feedback_similarity(state, candidates)
    return Part(columns, None)


def feedback_similarity(state: FeatureState, candidates: CandidateList) -> np.ndarray:
    """Cosine of each candidate's text with the mean text of those that the members together find first.

    Pseudo-relevance feedback (Rocchio 1971): the first results show what is meant, also in words that nobody typed.
    """
    codes = candidates.codes
    n_first = min(FEEDBACK_ITEMS, len(codes) // FEEDBACK_SHARE)
    if state.text is None or not n_first:
        return np.full(len(codes), np.nan, np.float32)
    texts = single(np.asarray(state.text[codes]))
    first = ordered(blended(candidates), codes)[:n_first]
    centre = texts[first].mean(axis=0)
    length = float(np.linalg.norm(centre))
    similarity: np.ndarray = texts @ (centre / max(length, 1e-9)).astype(np.float32)
    nothing = np.flatnonzero(similarity == 0)  # an item without text has a zero row; few others have exactly 0
    similarity[nothing[~texts[nothing].any(axis=1)]] = np.nan
    return similarity if length else np.full(len(codes), np.nan, np.float32)


def blended(candidates: CandidateList) -> np.ndarray:
    """Mean of the scaled scores of the members that are not bounded, float32 ``[m]``."""
    if not candidates.scaled.shape[1]:
        return np.zeros(len(candidates.codes), np.float32)
    mean: np.ndarray = candidates.scaled.mean(axis=1)
    return mean
