"""What a request may say; a name that is not here, or a value out of range, is a 400 that names it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from pipelines.attributes import value_text
from pipelines.catalogue import FACETS
from pipelines.contracts import Surface
from pipelines.search.analysis import normalised
from pipelines.search.suggestions import MOST

MAX_N = 100
MAX_OFFSET = 10_000
MAX_ID = 1_024
MAX_QUERY = 500
MAX_VALUES = 100


def _without_nul(value: str) -> str:
    if "\x00" in value:
        raise ValueError("must not contain the character U+0000")
    return value


def _empty_as_none(value: Any) -> Any:
    return None if value == "" else value


def _values(value: Any) -> list[str]:
    several = value if isinstance(value, list) else [value]
    if not 0 < len(several) <= MAX_VALUES or not all(isinstance(one, str | int | float) for one in several):
        raise ValueError(f"must be text, a number, true or false, or a list of 1 to {MAX_VALUES} of them")
    return [value_text(one) for one in several]


def in_utc(value: datetime) -> datetime:
    """A time without an offset is UTC."""
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


Number = Annotated[float, Field(allow_inf_nan=False)]
Text = Annotated[str, Field(max_length=MAX_ID), AfterValidator(_without_nul)]
Id = Annotated[str, Field(min_length=1, max_length=MAX_ID), AfterValidator(_without_nul)]
OptionalId = Annotated[Id | None, BeforeValidator(_empty_as_none)]
Value = bool | float | str
Values = Annotated[list[str], BeforeValidator(_values, json_schema_input_type=Value | list[Value])]
Time = Annotated[datetime, AfterValidator(in_utc)]


class Request(BaseModel):
    """Base of every request body: nothing unknown, nothing converted."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Filter(Request):
    """Which items may be shown."""

    category: Text | None = Field(None, description="a category path, or any of its ancestors")
    brand: Text | None = None
    price_min: Number | None = Field(None, ge=0)
    price_max: Number | None = Field(None, ge=0)
    available: bool = Field(True, description="false: items that are not available may be shown too")
    attributes: dict[Text, Values] = Field(
        {}, max_length=20, description="by name of an attribute, its value or a list of which an item must have one"
    )

    @model_validator(mode="after")
    def _range(self) -> Filter:
        if self.price_min is not None and self.price_max is not None and self.price_min > self.price_max:
            raise ValueError("price_min is above price_max")
        return self


class RecommendRequest(Request):
    """Body of ``POST /v1/recommend``."""

    user_id: OptionalId = None
    visitor_id: OptionalId = None
    recent_items: list[Id] = Field([], max_length=500, description="items just seen, oldest first")
    placement: Text | None = Field(None, description="home, detail, cart, search, ...")
    n: int = Field(10, ge=1, le=MAX_N)
    offset: int = Field(0, ge=0, le=MAX_OFFSET)
    filter: Filter = Field(default_factory=Filter)
    exclude: list[Id] = Field([], max_length=10_000)
    exclude_seen: bool = Field(False, description="only items new to the user: the surface recommend_new")
    explore: bool = True
    explain: bool = Field(False, description="give sources and reasons")
    details: bool = Field(False, description="give title, brand, category, price of each item")
    event_time: Time | None = Field(None, description="only with FUSELINE_REPLAY=1")

    @property
    def surface(self) -> Surface:
        """The surface asked for."""
        return Surface.RECOMMEND_NEW if self.exclude_seen else Surface.RECOMMEND


class SearchRequest(Request):
    """Body of ``POST /v1/search``."""

    query: str = Field(min_length=1, max_length=MAX_QUERY, description="what was typed")
    user_id: OptionalId = None
    visitor_id: OptionalId = None
    placement: Text | None = Field(None, description="where the list is shown")
    n: int = Field(10, ge=1, le=MAX_N)
    offset: int = Field(0, ge=0, le=MAX_OFFSET)
    page_of: OptionalId = Field(
        None, description="attribution_token of the first page, so that later ones go on with it"
    )
    filter: Filter = Field(default_factory=Filter)
    facets: list[Text] = Field(
        [], max_length=10, description=f"count all items found by {', '.join(FACETS)} or attributes.NAME"
    )
    explore: bool = True
    explain: bool = Field(False, description="give sources and reasons")
    details: bool = Field(False, description="give title, brand, category, price of each item")
    event_time: Time | None = Field(None, description="only with FUSELINE_REPLAY=1")

    @field_validator("query")
    @classmethod
    def _visible(cls, value: str) -> str:
        if not normalised(value):
            raise ValueError("holds nothing that can be seen")
        return value


class RankRequest(Request):
    """Body of ``POST /v1/rank``."""

    items: list[Id] = Field(min_length=1, max_length=1_000)
    user_id: OptionalId = None
    visitor_id: OptionalId = None
    query: Annotated[str, Field(max_length=MAX_QUERY)] | None = None
    event_time: Time | None = Field(None, description="only with FUSELINE_REPLAY=1")


class SimilarQuery(BaseModel):
    """Query of ``GET /v1/items/{id}/similar``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    n: int = Field(10, ge=1, le=MAX_N)
    details: bool = False


class SuggestQuery(BaseModel):
    """Query of ``GET /v1/suggest``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    q: str = Field("", max_length=MAX_QUERY, description="what is typed so far; nothing: what is most frequent")
    n: int = Field(8, ge=1, le=MOST)


class Source(BaseModel):
    """What one member said of an item."""

    model: str
    score: float | None
    rank: int | None
    weight: float | None


class Item(BaseModel):
    """One place of a list."""

    id: str
    rank: int
    score: float | None
    propensity: float = Field(gt=0, le=1, description="chance with which the policy put the item there")
    sources: list[Source] = Field([], description="with explain")
    reasons: list[str] = Field([], description="with explain")


class Answer(BaseModel):
    """What every answer carries."""

    attribution_token: str
    model_version: str
    took_ms: float
    fallback: str | None = Field(description="null, or why the answer is simpler than it could be")


class ListAnswer(Answer):
    """Answer of a route that shows a list."""

    items: list[Item]


class FacetValue(BaseModel):
    """A value of a field, and how many of the items found have it."""

    value: str
    count: int


class Understood(BaseModel):
    """What of the catalogue a query names, what it rules out, and what is searched with it."""

    brands: list[str]
    categories: list[str] = Field(description="whole paths")
    unwanted: list[str] = Field(description="stems of what shall not be there, as in `belt without buckle`")
    beside: list[str] = Field(description="stems searched as well: of the word that a rare spelling stands for")


class SearchAnswer(ListAnswer):
    """Answer of ``POST /v1/search``."""

    total: int = Field(description="items found, on all pages")
    facets: dict[str, list[FacetValue]]
    rewritten_query: str | None = Field(description="what was searched for instead of the query, or null")
    understood: Understood | None = Field(None, description="with explain")


class Suggestion(BaseModel):
    """A way to go on typing."""

    text: str = Field(description="for the search box")
    kind: Literal["query", "brand", "category", "item"]
    value: str | None = Field(description="the brand, the category's path or the item's id; null of a query")


class SuggestAnswer(Answer):
    """Answer of ``GET /v1/suggest``."""

    suggestions: list[Suggestion]


class ScoredItem(BaseModel):
    """One of the items that were to be ranked; ``score`` is null when the item is unknown."""

    id: str
    rank: int
    score: float | None


class RankAnswer(Answer):
    """Answer of ``POST /v1/rank``."""

    items: list[ScoredItem]


class Rejected(BaseModel):
    """One event that was not stored."""

    index: int
    field: str
    reason: str


class EventsAnswer(Answer):
    """Answer of ``POST /v1/events``; accepted means on disk."""

    accepted: int
    duplicates: int
    rejected: list[Rejected]


class ErasureAnswer(Answer):
    """A request to forget a user; ``deadline``: by then no model that has learned from them serves."""

    erasure_id: str
    state: str = Field(description="waiting or erased")
    requested_at: str
    deadline: str
    erased_at: str | None
