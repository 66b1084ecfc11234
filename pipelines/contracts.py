"""Columns, types and keys of every table that crosses a border, said once.

Validation, ingestion, features, serving and the tests read these; nobody repeats a column's name
or type. A type is one of the small set in :class:`Type`; each maps to one Arrow type.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import pyarrow as pa


class Type(StrEnum):
    """Types that an export may use."""

    STRING = "string"
    FLOAT = "float"
    INT = "int"
    BOOL = "bool"
    TIMESTAMP = "timestamp"
    JSON = "json"


ARROW: dict[Type, pa.DataType] = {
    Type.STRING: pa.string(),
    Type.FLOAT: pa.float64(),
    Type.INT: pa.int64(),
    Type.BOOL: pa.bool_(),
    Type.TIMESTAMP: pa.timestamp("us", tz="UTC"),
    Type.JSON: pa.string(),
}


@dataclass(frozen=True)
class Column:
    """A column of a table: its type, and whether the table makes no sense without it."""

    name: str
    type: Type
    required: bool = False


@dataclass(frozen=True)
class Table:
    """A table of the contract; ``key`` names the columns whose values identify a row."""

    name: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]

    def column(self, name: str) -> Column:
        """The column of this name; KeyError when there is none."""
        return next(column for column in self.columns if column.name == name)

    @property
    def names(self) -> tuple[str, ...]:
        """Column names in order."""
        return tuple(column.name for column in self.columns)

    @property
    def schema(self) -> pa.Schema:
        """Arrow schema of the canonical table."""
        return pa.schema([pa.field(c.name, ARROW[c.type]) for c in self.columns])


CATALOG = Table(
    "catalog",
    (
        Column("item_id", Type.STRING, required=True),
        Column("title", Type.STRING, required=True),
        Column("description", Type.STRING),
        Column("brand", Type.STRING),
        Column("category", Type.STRING),
        Column("price", Type.FLOAT),
        Column("currency", Type.STRING),
        Column("available", Type.BOOL),
        Column("image_uri", Type.STRING),
        Column("attributes", Type.JSON),
        Column("updated_at", Type.TIMESTAMP),
    ),
    key=("item_id", "updated_at"),
)

EVENTS = Table(
    "events",
    (
        Column("event_id", Type.STRING),
        Column("event_type", Type.STRING, required=True),
        Column("event_time", Type.TIMESTAMP, required=True),
        Column("user_id", Type.STRING),
        Column("visitor_id", Type.STRING),
        Column("session_id", Type.STRING),
        Column("item_id", Type.STRING),
        Column("search_query", Type.STRING),
        Column("placement", Type.STRING),
        Column("attribution_token", Type.STRING),
        Column("model_version", Type.STRING),
        Column("experiment_id", Type.STRING),
        Column("quantity", Type.FLOAT),
        Column("price", Type.FLOAT),
        Column("rating", Type.FLOAT),
        Column("position", Type.INT),
        Column("propensity", Type.FLOAT),
        Column("attributes", Type.JSON),
        Column("text", Type.STRING),
    ),
    key=("event_id", "item_id"),
)

JUDGMENTS = Table(
    "judgments",
    (
        Column("query", Type.STRING, required=True),
        Column("item_id", Type.STRING, required=True),
        Column("gain", Type.FLOAT, required=True),
    ),
    key=("query", "item_id"),
)

USERS = Table(
    "users",
    (Column("user_id", Type.STRING, required=True), Column("attributes", Type.JSON)),
    key=("user_id",),
)

TABLES: dict[str, Table] = {table.name: table for table in (CATALOG, EVENTS, JUDGMENTS, USERS)}


class EventType(StrEnum):
    """Google's retail user events, plus ``review`` and the service's own ``impression``."""

    SEARCH = "search"
    HOME_PAGE_VIEW = "home-page-view"
    CATEGORY_PAGE_VIEW = "category-page-view"
    DETAIL_PAGE_VIEW = "detail-page-view"
    ADD_TO_CART = "add-to-cart"
    REMOVE_FROM_CART = "remove-from-cart"
    SHOPPING_CART_PAGE_VIEW = "shopping-cart-page-view"
    PURCHASE_COMPLETE = "purchase-complete"
    REVIEW = "review"
    IMPRESSION = "impression"


EVENT_TYPES: tuple[str, ...] = tuple(EventType)
ABOUT_NO_PRODUCT: frozenset[str] = frozenset(
    {EventType.SEARCH, EventType.HOME_PAGE_VIEW, EventType.CATEGORY_PAGE_VIEW, EventType.SHOPPING_CART_PAGE_VIEW}
)
"""Event types whose rows may come without ``item_id``."""

TARGET_ORDER: tuple[str, ...] = (EventType.PURCHASE_COMPLETE, EventType.ADD_TO_CART, EventType.DETAIL_PAGE_VIEW)
"""The target is the first of these that the log has: purchases, else carts, else views."""

DEFAULT_STRENGTH: dict[str, float] = {
    EventType.PURCHASE_COMPLETE: 1.0,
    EventType.ADD_TO_CART: 0.3,
    EventType.DETAIL_PAGE_VIEW: 0.1,
}
"""How much one positive event says about liking a product, in units of one purchase."""

MULTI_CATEGORY = "|"
CATEGORY_PATH = " > "

FUSED = "fused"
"""What serves, among the systems of ``metrics.json``; the others have the names of members."""


class Surface(StrEnum):
    """A list that a shop shows, each with its own fusion."""

    RECOMMEND = "recommend"
    RECOMMEND_NEW = "recommend_new"
    SEARCH = "search"


INTERACTIONS = Table(
    "interactions",
    (
        Column("history_id", Type.STRING),
        Column("item_id", Type.STRING, required=True),
        Column("event_id", Type.STRING, required=True),
        Column("event_type", Type.STRING, required=True),
        Column("event_time", Type.TIMESTAMP, required=True),
        Column("strength", Type.FLOAT, required=True),
        Column("target", Type.FLOAT, required=True),
        Column("event_share", Type.FLOAT, required=True),
        Column("quantity", Type.FLOAT, required=True),
        Column("spend", Type.FLOAT),
        Column("query", Type.STRING),
    ),
    key=("event_id", "item_id"),
)
"""Positive events as models learn from them: ``history_id`` is the user, else the visitor, else null;
``strength`` > 0; ``target`` is 1 for the target type, else 0; ``event_share`` is one over the number of
rows of the event, so that its sum counts events; ``spend`` is price times quantity (null without a price);
``query`` is what was searched for before, where the event says so."""

SEARCHES = Table(
    "searches",
    (
        Column("instant", Type.STRING, required=True),
        Column("query", Type.STRING, required=True),
        Column("item_id", Type.STRING, required=True),
        Column("gain", Type.FLOAT, required=True),
        Column("first_time", Type.TIMESTAMP, required=True),
    ),
    key=("instant", "query", "item_id"),
)
"""What was chosen after a search within an instant's window; ``gain`` is the strongest event's strength."""

LABELS: dict[str, str] = {
    EventType.DETAIL_PAGE_VIEW: "view",
    EventType.ADD_TO_CART: "cart",
    EventType.PURCHASE_COMPLETE: "purchase",
}
"""What may follow an impression, and the column that says whether it did."""

IMPRESSIONS = Table(
    "impressions",
    (
        Column("impression_id", Type.STRING, required=True),
        Column("item_id", Type.STRING, required=True),
        Column("shown_at", Type.TIMESTAMP, required=True),
        Column("attribution_token", Type.STRING),
        Column("history_id", Type.STRING),
        Column("position", Type.INT),
        Column("propensity", Type.FLOAT),
        Column("weight", Type.FLOAT, required=True),
        Column("placement", Type.STRING),
        Column("model_version", Type.STRING),
        *(Column(name, Type.FLOAT) for name in LABELS.values()),
        *(Column(f"{name}_at", Type.TIMESTAMP) for name in LABELS.values()),
    ),
    key=("impression_id", "item_id"),
)
"""One row an item shown. A label is 1 when the event followed within its window, 0 when the window is over, and
null while it may still come; ``…_at`` is the first time. ``weight`` is the clipped inverse of the propensity
(``exploration.weights``), 1 where none is known. ``position`` is what the customer saw: it explains a label and
is not known when a list is made, so it is a feature in training only."""
