"""Features of a candidate that depend on what was asked, beside those of ``fusion.features``.

Everything comes from the members' scores and the feature state, so that it is the same in training and serving.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from pipelines.contracts import MULTI_CATEGORY
from pipelines.features.state import FeatureState
from pipelines.fusion.candidates import CandidateList, ranks
from pipelines.fusion.features import Part
from pipelines.fusion.quality import ordered
from pipelines.model_api import leading, silence
from pipelines.search.analysis import normalised
from pipelines.search.query import Query

OF_SHORTLIST: tuple[str, ...] = (
    "first_score",
    "first_place",
    "words_in_title",
    "phrase_in_title",
    "brand_named",
    "category_named",
    "category_share",
    "price_of_first",
    "query_words",
    "query_rarity",
)
"""Columns of :func:`query_part` that a shortlist has, see :func:`described`."""

QUERY_FEATURES: tuple[str, ...] = (*OF_SHORTLIST, "feedback_similarity")
"""Column names of :func:`query_part`."""

FIRST_SCORE = QUERY_FEATURES.index("first_score") - len(QUERY_FEATURES)
"""Column among the features of a search, from the end."""

FIRST_ITEMS = 20
"""Items found first whose categories and prices say what a query leads to."""

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
    query = candidates.context.query
    if first is not None and query is not None and len(first):
        for place, values in enumerate(described(state, candidates.codes, query, first).values()):
            columns[:, place] = values
    columns[:, -1] = feedback_similarity(state, candidates)
    return Part(columns, None)


def feedback_part(state: FeatureState, candidates: CandidateList) -> Part:
    """The last column of :func:`query_part` by itself, for a fuser that reads no other."""
    return Part(feedback_similarity(state, candidates)[:, None], None)


def described(state: FeatureState, codes: np.ndarray, query: Query, first: np.ndarray) -> dict[str, np.ndarray | float]:
    """What a shortlist has to do with its query, by the names of :data:`OF_SHORTLIST`; NaN where it says nothing.

    Matched fields: the share of the typed words in the title, whether all of them stand there in a row, and whether
    brand and category are among those that the query names. What the query leads to: the share of the first
    :data:`FIRST_ITEMS` in the item's category, and the logarithm of the item's price over their median. Of the query
    alone: its words, and how rare they are, the mean of log((n_items + 1) / (items with the word + 1)).
    """
    words = query.meant.split()
    rows = state.catalog.select(["title", "brand", "category"]).take(codes)
    titles, brands, categories = (column.to_pylist() for column in rows.columns)
    lowered = [normalised(title or "") for title in titles]
    leaves = [(path or "").split(MULTI_CATEGORY)[0].strip() for path in categories]
    top = ordered(first, codes)[:FIRST_ITEMS]
    common = Counter(leaves[row] for row in top if leaves[row])
    price = np.log(np.asarray(state.items["price"], np.float32)[codes])
    known = price[top][~np.isnan(price[top])]
    counts = [state.words.get(word, 0) for word in words]
    unknown = np.full(len(codes), np.nan, np.float32)
    return {
        "first_score": first,
        "first_place": ranks(first[:, None])[:, 0],
        "words_in_title": np.array([sum(word in title for word in words) / max(len(words), 1) for title in lowered]),
        "phrase_in_title": np.array([float(query.meant in title) for title in lowered]),
        "brand_named": np.array([float(brand in query.brands) for brand in brands]) if query.brands else unknown,
        "category_named": np.array([float(leaf.startswith(query.categories)) for leaf in leaves])
        if query.categories
        else unknown,
        "category_share": np.array([common[leaf] / len(top) if leaf else np.nan for leaf in leaves]),
        "price_of_first": price - np.median(known) if len(known) else unknown,
        "query_words": float(len(words)),
        "query_rarity": float(np.mean(np.log((state.n_items + 1) / (np.array(counts) + 1)))) if words else np.nan,
    }


def feedback_similarity(state: FeatureState, candidates: CandidateList) -> np.ndarray:
    """Cosine of each candidate's text with the mean text of those that the members together find first.

    Pseudo-relevance feedback (Rocchio 1971): the first results show what is meant, also in words that nobody typed.
    """
    codes, texts = candidates.codes, state.rounded_text
    n_first = min(FEEDBACK_ITEMS, len(codes) // FEEDBACK_SHARE)
    if texts is None or not n_first:
        return silence(codes)
    first = codes[leading(blended(candidates), n_first)]  # rows; codes ascend, so ties go to the lower code
    centre = texts.direction(first)
    return silence(codes) if centre is None else texts.products(centre, codes)


def blended(candidates: CandidateList) -> np.ndarray:
    """Mean of the scaled scores of the members that are not bounded, float32 ``[m]``."""
    total, columns = np.zeros(len(candidates.codes), np.float32), candidates.scaled.T
    for column in columns:  # few and long: a sum of each row takes ten times as long
        total += column
    return total / np.float32(max(len(columns), 1))
