"""Events as callers write them, made into rows of ``contracts.EVENTS``.

Both spellings are read: the contract's ``snake_case`` (``item_id`` and ``quantity`` in the event, or
``product_details``) and the camelCase of Google's retail user events. What neither knows is kept in
``attributes``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any

import orjson
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from pipelines.adapters.event_tables import EVENT_COLUMNS
from pipelines.contracts import ABOUT_NO_PRODUCT, EVENT_TYPES
from pipelines.feedback import microseconds
from serving import problems
from serving.schemas import Id, Number, OptionalId, in_utc

MAX_EVENTS = 10_000
MAX_PRODUCTS = 1_000

CAMEL_CASE: dict[str, str] = {
    "eventType": "event_type",
    "eventTime": "event_time",
    "eventId": "event_id",
    "visitorId": "visitor_id",
    "userId": "user_id",
    "sessionId": "session_id",
    "searchQuery": "search_query",
    "attributionToken": "attribution_token",
    "modelVersion": "model_version",
    "experimentId": "experiment_id",
    "productDetails": "product_details",
    "userInfo": "user_info",
    "itemId": "item_id",
}


def _time(value: Any) -> datetime:
    if not isinstance(value, str):
        # pydantic turns a ValueError into a message, and lets a TypeError through
        raise ValueError("must be text, an ISO 8601 time such as 2010-12-01T08:26:00Z")  # noqa: TRY004
    try:
        return in_utc(datetime.fromisoformat(value))
    except (ValueError, OverflowError):
        raise ValueError(f"{value[:40]!r} is not an ISO 8601 time such as 2010-12-01T08:26:00Z") from None


def _event_type(value: str) -> str:
    if value not in EVENT_TYPES:
        raise ValueError(f"{value[:40]!r} is not one of {', '.join(EVENT_TYPES)}")
    return value


def _json(value: Any) -> Any:
    if value is None or isinstance(value, str):
        return value
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


LongText = Annotated[str, Field(max_length=100_000)]


class Product(BaseModel):
    """One product of an event."""

    model_config = ConfigDict(strict=True, extra="ignore")

    item_id: Id
    quantity: Number | None = Field(None, gt=0)
    price: Number | None = Field(None, ge=0)


class Event(BaseModel):
    """One event, spelt as in the contract, with its products gathered."""

    model_config = ConfigDict(strict=True, extra="forbid")

    event_type: Annotated[str, AfterValidator(_event_type)]
    event_time: Annotated[datetime, BeforeValidator(_time)]
    event_id: OptionalId = None
    user_id: OptionalId = None
    visitor_id: OptionalId = None
    session_id: OptionalId = None
    search_query: LongText | None = None
    placement: OptionalId = None
    attribution_token: OptionalId = None
    model_version: OptionalId = None
    experiment_id: OptionalId = None
    rating: Number | None = Field(None, ge=1, le=5)
    position: int | None = Field(None, ge=1, le=2**31)
    propensity: Number | None = Field(None, gt=0, le=1)
    attributes: Annotated[LongText | None, BeforeValidator(_json)] = None
    text: LongText | None = None
    products: list[Product] = Field([], max_length=MAX_PRODUCTS)

    @model_validator(mode="after")
    def _about_something(self) -> Event:
        if not self.products and self.event_type not in ABOUT_NO_PRODUCT:
            raise ValueError(f"item_id is missing: a {self.event_type} is about a product")
        return self


class BadEvent(ValueError):
    """An event that cannot be stored: which field, spelt as the caller spelt it, and why."""

    def __init__(self, field: str, reason: str) -> None:
        """Both go into the answer."""
        super().__init__(reason)
        self.field = field
        self.reason = reason


def rows(raw: Any, *, received_at: int) -> list[dict[str, Any]]:
    """The rows of one posted event, one a product, or one without an item.

    The same product twice in one event adds up. A missing ``event_id`` is derived from what was sent, so
    that posting the same again is a duplicate. ``received_at``: microseconds since 1970.

    Raises:
        BadEvent: naming the field.
    """
    if not isinstance(raw, Mapping):
        raise BadEvent("", "an event is a JSON object")
    values, spelling = _gathered(raw)
    try:
        event = Event.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = first["loc"] or ("item_id",)
        raise BadEvent(_as_spelt(where, spelling), problems.reason(first)) from None
    if "\x00" in str(values):
        raise BadEvent("", "must not contain the character U+0000")
    return _rows(event, received_at)


def _gathered(raw: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Fields under the contract's names, and how the caller spelt those that had another name."""
    values: dict[str, Any] = {}
    spelling: dict[str, str] = {}
    for name, value in raw.items():
        known = CAMEL_CASE.get(name, name)
        if known != name:
            spelling[known] = name
        if value is not None or known not in values:
            values[known] = value
    info = values.pop("user_info", None)
    if isinstance(info, Mapping) and values.get("user_id") is None:
        name = "userId" if "userId" in info else "user_id"
        values["user_id"] = info.get(name)
        spelling["user_id"] = f"{spelling.get('user_info', 'user_info')}.{name}"
    values["products"] = _products(values, spelling)
    extra = {name: values.pop(name) for name in list(values) if name not in Event.model_fields}
    if extra:
        values["attributes"] = _with_extra(values.get("attributes"), extra)
    return values, spelling


def _products(values: dict[str, Any], spelling: dict[str, str]) -> Any:
    flat = {name: values.pop(name, None) for name in ("item_id", "quantity", "price")}
    details = values.pop("product_details", None)
    if details is None:
        return [flat] if flat["item_id"] is not None else []
    spelling["products"] = spelling.get("product_details", "product_details")
    if not isinstance(details, Sequence) or isinstance(details, str):
        return details
    return [_product(one) for one in details]


def _product(detail: Any) -> Any:
    if not isinstance(detail, Mapping):
        return detail
    product = detail.get("product")
    inner: Mapping[str, Any] = product if isinstance(product, Mapping) else {}
    price = inner.get("priceInfo") or inner.get("price_info") or {}
    return {
        "item_id": inner.get("id", detail.get("item_id", detail.get("id"))),
        "quantity": detail.get("quantity"),
        "price": detail.get("price", price.get("price") if isinstance(price, Mapping) else None),
    }


def _with_extra(attributes: Any, extra: dict[str, Any]) -> Any:
    if isinstance(attributes, str):
        try:
            attributes = orjson.loads(attributes)
        except orjson.JSONDecodeError:
            attributes = {"attributes": attributes}
    return {**attributes, **extra} if isinstance(attributes, Mapping) else extra


def _as_spelt(location: Sequence[Any], spelling: Mapping[str, str]) -> str:
    if location[0] != "products":
        return spelling.get(str(location[0]), str(location[0]))
    if "products" not in spelling:
        return str(location[-1]) if len(location) > 2 else "item_id"
    inner = ["product.id" if part == "item_id" else str(part) for part in location[1:]]
    return ".".join([spelling["products"], *inner])


def _rows(event: Event, received_at: int) -> list[dict[str, Any]]:
    shared: dict[str, Any] = dict.fromkeys(EVENT_COLUMNS)
    shared.update((name, getattr(event, name)) for name in Event.model_fields if name != "products")
    shared["event_time"] = microseconds(event.event_time)
    products = _summed(event.products) or [Product.model_construct(item_id="", quantity=None, price=None)]
    made = [{**shared, "item_id": p.item_id, "quantity": p.quantity, "price": p.price} for p in products]
    if event.event_id is None:
        whole = orjson.dumps(made, option=orjson.OPT_SORT_KEYS)
        derived = hashlib.blake2b(whole, digest_size=16).hexdigest()
        for row in made:
            row["event_id"] = derived
    for row in made:
        row["content"] = hashlib.blake2b(orjson.dumps(row, option=orjson.OPT_SORT_KEYS), digest_size=12).hexdigest()
        row["event_share"] = 1.0 / len(made)
        row["received_at"] = received_at
    return made


def _summed(products: Sequence[Product]) -> list[Product]:
    """One product an item: quantities of repeated lines add up, a missing one counts as 1."""
    if len(products) < 2:
        return list(products)
    by_item: dict[str, Product] = {}
    for product in products:
        before = by_item.get(product.item_id)
        if before is not None:
            total = (before.quantity or 1.0) + (product.quantity or 1.0)
            price = product.price if before.price is None else before.price
            by_item[product.item_id] = before.model_copy(update={"quantity": total, "price": price})
        else:
            by_item[product.item_id] = product
    return list(by_item.values())


def events_of(body: bytes) -> list[Any]:
    """The events of a body: one, a list, ``{"events": [...]}`` or JSON lines; a bad line is a ``BadEvent``.

    Raises:
        BadEvent: when the body is none of these, or holds too many.
    """
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        parsed = _lines(body)
        if parsed is None:
            raise BadEvent("body", f"is neither JSON nor JSON lines: {error}") from None
    if isinstance(parsed, dict):
        parsed = parsed.get("events", [parsed])
    if not isinstance(parsed, list):
        raise BadEvent("events", "must be a list of events")
    if len(parsed) > MAX_EVENTS:
        raise BadEvent("events", f"holds {len(parsed)} events, at most {MAX_EVENTS} go in one request")
    return parsed


def _lines(body: bytes) -> list[Any] | None:
    lines = [line for line in body.splitlines() if line.strip()]
    if len(lines) < 2:
        return None
    parsed = [_line(line) for line in lines]
    return None if all(isinstance(one, BadEvent) for one in parsed) else parsed


def _line(line: bytes) -> Any:
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError as error:
        return BadEvent("", f"the line is not JSON: {error}")
