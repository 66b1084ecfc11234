"""From a request to an answer: values in, values out; the store and the clock stay outside."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from pipelines import ranking as asked
from pipelines.bundle import Bundle
from pipelines.catalogue import ATTRIBUTE
from pipelines.contracts import Surface
from pipelines.features.state import UserHistory
from pipelines.ranking import RankedItem, Ranking
from serving.event_schemas import BadEvent, rows
from serving.event_store import Outcome
from serving.problems import InvalidFields
from serving.schemas import Filter, RankRequest, RecommendRequest, SearchRequest, SuggestQuery

DETAILS = ("title", "brand", "category", "price", "currency", "image_uri", "available")
"""Columns of the catalogue that ``details`` adds to an item."""

MOST_NAMED = 50
"""Fields of the catalogue that a message lists."""

UNKNOWN_USER = "unknown_user"
SEARCH_NOT_AVAILABLE = "search_not_available"


def seed(token: str) -> int:
    """The seed of exploration that a token stands for, 63 bits."""
    return int.from_bytes(hashlib.blake2b(token.encode(), digest_size=8).digest()) >> 1


def recommend(request: RecommendRequest, *, bundle: Bundle, history: UserHistory, token: str) -> Ranking:
    """The list for a user; ``explore: false`` is ``Bundle.rank`` of the evaluation."""
    check_fields(request, bundle=bundle)
    return bundle.rank(_asked(request, request.surface, token, exclude=tuple(request.exclude)), history)


def search(request: SearchRequest, *, bundle: Bundle, history: UserHistory, token: str) -> Ranking:
    """The list for a query; ``explore: false`` is ``Bundle.rank`` of the evaluation."""
    check_fields(request, bundle=bundle)
    facets = tuple(dict.fromkeys(request.facets))
    wanted = _asked(request, Surface.SEARCH, request.page_of or token, query=request.query, facets=facets)
    return bundle.rank(wanted, history)


def _asked(request: RecommendRequest | SearchRequest, surface: Surface, token: str, **more: Any) -> asked.RankRequest:
    """What every request for a list says, and ``more`` of its own; ``token`` seeds the exploration."""
    return asked.RankRequest(
        surface=surface,
        n=request.n,
        offset=request.offset,
        filter=_filter(request.filter),
        placement=request.placement,
        time=request.event_time,
        explore=request.explore,
        seed=seed(token) if request.explore else 0,
        explain=request.explain,
        **more,
    )


def counted(ranking: Ranking) -> dict[str, list[dict[str, Any]]]:
    """Facets as they go into an answer."""
    return {
        field: [{"value": value, "count": count} for value, count in values] for field, values in ranking.facets.items()
    }


def _filter(wanted: Filter) -> asked.Filter:
    if not wanted.model_fields_set:
        return asked.NO_FILTER
    return asked.Filter(
        category=wanted.category,
        brand=wanted.brand,
        price_min=wanted.price_min,
        price_max=wanted.price_max,
        available=wanted.available,
        attributes=tuple((name, tuple(values)) for name, values in wanted.attributes.items()),
    )


def check_fields(request: RecommendRequest | SearchRequest, *, bundle: Bundle) -> None:
    """Whether the catalogue has the attributes that a request filters and counts by.

    Raises:
        InvalidFields: naming each that it has not, and those that it has.
    """
    facets = request.facets if isinstance(request, SearchRequest) else []
    if not facets and not request.filter.attributes:
        return
    known = bundle.catalogue.fields
    asked_for = {f"filter.{ATTRIBUTE}{name}": f"{ATTRIBUTE}{name}" for name in request.filter.attributes}
    asked_for |= {f"facets.{place}": field for place, field in enumerate(facets)}
    wrong = [place for place, field in asked_for.items() if field not in known]
    if wrong:
        reason = f"is not a field of this catalogue; there are: {', '.join(known[:MOST_NAMED])}"
        raise InvalidFields([{"field": place, "reason": reason} for place in wrong])


def rank(request: RankRequest, *, bundle: Bundle, history: UserHistory) -> tuple[list[dict[str, Any]], str | None]:
    """The given items, best first, ties in the order given; unknown ones last, with score null."""
    ids = list(dict.fromkeys(request.items))
    searches = request.query is not None and bool(bundle.on(Surface.SEARCH))
    surface = Surface.SEARCH if searches else Surface.RECOMMEND
    query = request.query if searches else None
    scored = dict(zip(ids, bundle.score_items(ids, history, surface, query=query), strict=True))
    ids.sort(key=lambda one: _descending(scored[one]))
    items = [{"id": one, "rank": place, "score": scored[one]} for place, one in enumerate(ids, 1)]
    fallback = None
    if request.query is not None and not searches:
        fallback = SEARCH_NOT_AVAILABLE
    elif request.query is None and not len(history):
        fallback = UNKNOWN_USER
    return items, fallback


def suggested(query: SuggestQuery, *, bundle: Bundle) -> tuple[list[dict[str, Any]], str | None]:
    """What to offer for what is typed so far; nothing where the bundle does not search."""
    if not bundle.on(Surface.SEARCH):
        return [], SEARCH_NOT_AVAILABLE
    return [one._asdict() for one in bundle.reader.suggestions(query.q, query.n)], None


def _descending(score: float | None) -> tuple[bool, float]:
    return (True, 0.0) if score is None else (False, -score)


def items(ranking: Ranking, *, bundle: Bundle, explain: bool = False, details: bool = False) -> list[dict[str, Any]]:
    """A ranking's items as they go into an answer."""
    shown = [_explained(item) if explain else _item(item) for item in ranking.items]
    if details:
        for entry, about in zip(shown, _details(bundle, [item.code for item in ranking.items]), strict=True):
            entry.update(about)
    return shown


def _item(item: RankedItem) -> dict[str, Any]:
    return {"id": item.id, "rank": item.rank, "score": float(item.score), "propensity": float(item.propensity)}


def _explained(item: RankedItem) -> dict[str, Any]:
    sources = [{"model": s.model, "score": s.score, "rank": s.rank, "weight": s.weight} for s in item.sources]
    return {**_item(item), "sources": sources, "reasons": list(item.reasons)}


def _details(bundle: Bundle, codes: Sequence[int]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = bundle.features.catalog.select(list(DETAILS)).take(list(map(int, codes))).to_pylist()
    return rows


class Posted:
    """The events of one post: what can be stored, and what was wrong with the rest."""

    def __init__(self, raw: Sequence[Any], *, received_at: int) -> None:
        """``raw``: parsed events in order; ``received_at`` in microseconds since 1970."""
        self.events: list[list[dict[str, Any]]] = []
        self._places: list[int] = []
        self._rejected: list[dict[str, Any]] = []
        for index, one in enumerate(raw):
            try:
                if isinstance(one, BadEvent):
                    raise one
                event = rows(one, received_at=received_at)
            except BadEvent as error:
                self._reject(index, error.field, error.reason)
            else:
                self.events.append(event)
                self._places.append(index)

    def _reject(self, index: int, field: str, reason: str) -> None:
        self._rejected.append({"index": index, "field": field, "reason": reason})

    def answer(self, outcomes: Sequence[Outcome]) -> dict[str, Any]:
        """The counts, given what became of ``events``."""
        for index, outcome in zip(self._places, outcomes, strict=True):
            if outcome is Outcome.CONFLICT:
                self._reject(index, "event_id", "an event with this id and item was accepted with other content")
        return {
            "accepted": sum(outcome is Outcome.ACCEPTED for outcome in outcomes),
            "duplicates": sum(outcome is Outcome.DUPLICATE for outcome in outcomes),
            "rejected": sorted(self._rejected, key=lambda entry: entry["index"]),
        }
