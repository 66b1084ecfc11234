"""What is asked of a bundle, and what it answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from pipelines.contracts import Surface


@dataclass(frozen=True)
class Filter:
    """Which items may appear; ``category`` matches a path or any ancestor of one; prices are inclusive.

    ``attributes``: names, and the values of which an item must have one.
    """

    category: str | None = None
    brand: str | None = None
    price_min: float | None = None
    price_max: float | None = None
    available: bool = True
    attributes: tuple[tuple[str, tuple[str, ...]], ...] = ()


NO_FILTER = Filter()
"""What is available."""


@dataclass(frozen=True)
class RankRequest:
    """A request for a list; together with the history it is all that a ranking depends on.

    Attributes:
        surface: whose fusion ranks; ``RECOMMEND_NEW`` leaves out what the user had the target event with.
        query: what was typed; on ``SEARCH`` alone.
        n: length of the list, from 1.
        offset: places to skip.
        filter: which items may appear.
        exclude: ids that must not appear.
        placement: where the list is shown.
        time: replay only; None means the bundle's ``as_of``.
        explore: whether one slot below the fifth may be given to a random near miss.
        seed: decides the exploration.
        explain: whether items carry the members' scores.
        facets: fields of ``Catalogue.fields`` to count all items of a search by.
    """

    surface: Surface = Surface.RECOMMEND
    query: str | None = None
    n: int = 10
    offset: int = 0
    filter: Filter = NO_FILTER
    exclude: tuple[str, ...] = ()
    placement: str | None = None
    time: datetime | None = None
    explore: bool = False
    seed: int = 0
    explain: bool = False
    facets: tuple[str, ...] = ()


class Source(NamedTuple):
    """One member's view of an item: its score, the place in its own list, its weight in the fusion."""

    model: str
    score: float
    rank: int
    weight: float


class RankedItem(NamedTuple):
    """An item in a list; ``rank`` from 1 over all pages, ``propensity`` in (0, 1]."""

    id: str
    code: int
    rank: int
    score: float
    propensity: float
    sources: tuple[Source, ...] = ()
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class Ranking:
    """A list, best first; ``fallback`` says why the answer is simpler than usual, or is None.

    ``total``: how many items all pages of a search hold together; None for other lists, which go on to the end of
    the catalogue. ``facets``: by field, values and how many of these items have them. ``rewritten_query``: what was
    searched for instead of what was typed, or None. ``understood``: with ``explain``, what
    ``Query.understood`` says.
    """

    items: tuple[RankedItem, ...]
    fallback: str | None = None
    total: int | None = None
    facets: Mapping[str, Sequence[tuple[str, int]]] = field(default_factory=dict)
    rewritten_query: str | None = None
    understood: Mapping[str, Sequence[str]] = field(default_factory=dict)
