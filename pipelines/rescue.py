"""What a search answers when no word of it finds anything, and the name under which the answer says so.

In this order, the first that finds something: relaxed words, meaning alone, the catalogue's graph from what the words
do mean (the nearest categories, then the brand), what sells. The filter is the shopper's and is kept throughout; where
it is what shuts out the items that the words find, that is the answer, beside what is nearest in meaning within it.

A rescue depends on query, filter and availability alone, so its pages are one list cut up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pipelines.catalogue import Catalogue
from pipelines.contracts import CATEGORY_PATH
from pipelines.fusion.candidates import CandidateList
from pipelines.kept_orders import Order
from pipelines.model_api import first_allowed
from pipelines.search.query import Query

WORDS_RELAXED = "words_relaxed"
MEANING_ONLY = "meaning_only"
SAME_CATEGORY = "same_category"
SAME_BRAND = "same_brand"
WHAT_SELLS = "what_sells"
FILTER_EXCLUDES_MATCHES = "filter_excludes_matches"
NOTHING_PASSES_FILTER = "nothing_passes_filter"

SHOWN = 100
"""Items of a list that neither words nor meaning made."""

SEEDS = 10
"""Items found by the words, though they may not be shown, from which the catalogue's graph is entered."""


@dataclass(frozen=True)
class Found:
    """What was found for a query.

    Attributes:
        query: what was searched for.
        codes: int64 ``[m]``, best first.
        scores: float32 ``[m]``.
        candidates: what the members said; None of a list that they did not make.
        worded: whether an item shares a word with the query.
        fallback: why the list is simpler than it could be, or None.
    """

    query: Query
    codes: np.ndarray
    scores: np.ndarray
    candidates: CandidateList | None
    worded: bool
    fallback: str | None

    @property
    def order(self) -> Order:
        """The same without what the members said, in the fewest bytes."""
        scores = self.scores.astype(np.float32, copy=False)
        return Order(self.codes.astype(np.int32), scores, self.fallback, self.query.rewritten)


Find = Callable[[Query, np.ndarray | None], Found]
"""Asks members and fusion for a query among the allowed items, bool ``[n_items]``; None: among all."""


@dataclass(frozen=True)
class Shop:
    """What a rescue knows of the shop.

    Attributes:
        find: searches.
        relaxed: a query with looser words; None when there are none.
        catalogue: its graph.
    """

    find: Find
    relaxed: Callable[[Query], Query | None]
    catalogue: Catalogue


def searched(shop: Shop, query: Query, *, allowed: np.ndarray, unfiltered: np.ndarray) -> Found:
    """The items for a query, by a rescue where it needs one.

    Args:
        shop: where.
        query: what is asked.
        allowed: items that may be shown, bool ``[n_items]``.
        unfiltered: items that could be shown were it not for the shopper's filter, likewise.
    """
    first = shop.find(query, allowed)
    if first.worded or first.fallback is not None:
        return first
    if not allowed.any():
        return replace(first, fallback=NOTHING_PASSES_FILTER)
    filtered = not np.array_equal(allowed, unfiltered)
    if filtered and shop.find(query, unfiltered).worded:
        return replace(first, fallback=FILTER_EXCLUDES_MATCHES)
    if (looser := shop.relaxed(query)) is not None:
        second = shop.find(looser, allowed)
        if second.worded:
            return replace(second, fallback=WORDS_RELAXED)
        if filtered and shop.find(looser, unfiltered).worded:
            return replace(second, fallback=FILTER_EXCLUDES_MATCHES)
    if len(first.codes):
        return replace(first, fallback=MEANING_ONLY)
    return _by_graph(shop, first, allowed)


def _by_graph(shop: Shop, nothing: Found, allowed: np.ndarray) -> Found:
    """Items near in the catalogue to what was asked for, else all that may be shown; what sells best first."""
    wanted = shop.find(nothing.query, None)
    seeds = wanted.codes[:SEEDS] if wanted.worded else wanted.codes[:0]
    paths = nothing.query.categories or shop.catalogue.paths_of(seeds)
    brands = nothing.query.brands or shop.catalogue.brands_of(seeds)
    tried = (
        (SAME_CATEGORY, _nearest(shop.catalogue, paths, allowed)),
        (SAME_BRAND, shop.catalogue.of_brands(brands) & allowed),
    )
    name, near = next(((name, near) for name, near in tried if near.any()), (WHAT_SELLS, allowed))
    codes = first_allowed(shop.catalogue.best_selling, SHOWN, near)
    return replace(nothing, codes=codes, scores=np.zeros(len(codes), np.float32), candidates=None, fallback=name)


def _nearest(catalogue: Catalogue, paths: Sequence[str], allowed: np.ndarray) -> np.ndarray:
    """Allowed items of these categories, else of those one step wider, and so on; bool ``[n_items]``."""
    level = [path.split(CATEGORY_PATH) for path in paths]
    while level:
        near: np.ndarray = catalogue.within([CATEGORY_PATH.join(parts) for parts in level]) & allowed
        if near.any():
            return near
        level = [parts[:-1] for parts in level if len(parts) > 1]
    return np.zeros(len(allowed), np.bool_)
