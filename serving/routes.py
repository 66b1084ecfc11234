"""The table of routes: what each asks for, and what it answers. The OpenAPI document is made from it."""

from __future__ import annotations

import asyncio
import base64
import os
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, TypeVar

import orjson
from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from pipelines.contracts import Surface
from pipelines.feedback import microseconds
from pipelines.ranking import Ranking
from serving import auth, event_schemas, handlers, problems, registry, schemas
from serving.auth import Role
from serving.event_store import Impression
from serving.history import Known, Whose, known
from serving.problems import Problem
from serving.runtime import Runtime, Served

MAX_BODY = 1_000_000
MAX_EVENTS_BODY = 16_000_000
TOKEN_BYTES, TOKENS_AT_ONCE = 16, 256

Body = TypeVar("Body", bound=schemas.Request)
Query = TypeVar("Query", bound=BaseModel)


class Tokens:
    """Attribution tokens of 128 random bits; thread-safe, and no two processes have the same.

    The system is asked for many at once, which takes it as long as one: a tenth of what a kept order is answered in.
    """

    def __init__(self) -> None:
        """Draw none so far."""
        self._drawn: list[str] = []
        os.register_at_fork(after_in_child=self._drawn.clear)

    def draw(self) -> str:
        """One that nobody has had."""
        if not self._drawn:
            bits = secrets.token_bytes(TOKEN_BYTES * TOKENS_AT_ONCE)
            ones = (bits[place : place + TOKEN_BYTES] for place in range(0, len(bits), TOKEN_BYTES))
            self._drawn.extend(base64.urlsafe_b64encode(one).rstrip(b"=").decode() for one in ones)
        return self._drawn.pop()


TOKENS = Tokens()


class Call:
    """One request under way."""

    def __init__(self, request: Request, runtime: Runtime, started: float) -> None:
        """``started``: ``time.perf_counter()`` when the request arrived."""
        self.request = request
        self.runtime = runtime
        self.started = started
        self.token = TOKENS.draw()
        self.served = runtime.served
        self.fallback: str | None = None

    def current(self) -> Served:
        """The bundle that this request began with, whatever is swapped in meanwhile.

        Raises:
            Problem: 503 when there was none.
        """
        if self.served is None:
            raise Problem(503, self.runtime.failure or "no bundle is loaded")
        return self.served

    async def body(self, limit: int = MAX_BODY) -> bytes:
        """The body; a longer one is refused before it is read whole."""
        length = self.request.headers.get("content-length", "0")
        if not length.isdigit() or int(length) > limit:
            raise Problem(413, f"the body is larger than {limit} bytes", field="body")
        chunks, size = [], 0
        async for chunk in self.request.stream():
            chunks.append(chunk)
            size += len(chunk)
            if size > limit:
                raise Problem(413, f"the body is larger than {limit} bytes", field="body")
        return b"".join(chunks)

    async def parsed(self, model: type[Body]) -> Body:
        """The body as a request; replay is asked for here, because it is a setting and not a shape."""
        try:
            value = model.model_validate_json(await self.body() or b"null")
        except ValidationError as error:
            raise problems.invalid(error) from None
        if getattr(value, "event_time", None) is not None and not self.runtime.replay:
            raise problems.InvalidFields([{"field": "event_time", "reason": "is taken with FUSELINE_REPLAY=1 only"}])
        return value

    def query(self, model: type[Query]) -> Query:
        """The query string as a model."""
        try:
            return model.model_validate(dict(self.request.query_params))
        except ValidationError as error:
            raise problems.invalid(error) from None

    def answer(self, members: dict[str, Any], *, fallback: str | None = None, status: int = 200) -> Response:
        """The members that every answer carries, and these."""
        self.fallback = fallback
        value = {
            "attribution_token": self.token,
            "model_version": self.served.version if self.served else "none",
            "took_ms": self.took_ms(),
            "fallback": fallback,
            **members,
        }
        body = orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
        return Response(body, status_code=status, media_type="application/json")

    def took_ms(self) -> float:
        """Milliseconds since the request arrived."""
        return round((time.perf_counter() - self.started) * 1000, 3)

    async def reading(self, function: Callable[[], Any]) -> Any:
        """Call what reads the store: at once when it lies in this process, in a thread when it does not."""
        if self.runtime.store.embedded:
            return function()
        return await asyncio.to_thread(function)


async def _known(
    call: Call,
    request: schemas.RecommendRequest | schemas.SearchRequest | schemas.RankRequest,
    served: Served,
    *,
    recent_items: Sequence[str] = (),
) -> Known:
    """What is known of the caller who a request names."""

    def read() -> Known:
        return known(
            served.bundle,
            call.runtime.store,
            user_id=request.user_id,
            visitor_id=request.visitor_id,
            recent_items=recent_items,
            until=request.event_time,
        )

    found: Known = await call.reading(read)
    return found


async def recommend(call: Call) -> Response:
    """A list for a user or visitor."""
    request = await call.parsed(schemas.RecommendRequest)
    served = call.current()
    of, past, lacking = await _known(call, request, served, recent_items=request.recent_items)
    ranking = handlers.recommend(request, bundle=served.bundle, history=past, token=call.token)
    if lacking:
        ranking = replace(ranking, fallback=lacking)
    _show(call, served, ranking, surface=request.surface, placement=request.placement, of=of, at=request.event_time)
    items = handlers.items(ranking, bundle=served.bundle, explain=request.explain, details=request.details)
    return call.answer({"items": items}, fallback=ranking.fallback)


def _show(
    call: Call,
    served: Served,
    ranking: Ranking,
    *,
    surface: str,
    placement: str | None,
    of: Whose,
    at: datetime | None = None,
    query: str | None = None,
) -> None:
    """Record a list that is shown; ``at``: when, None is now; ``query``: what it answers."""
    items = ranking.items
    if not items:
        return
    call.runtime.store.show(
        Impression(
            call.token,
            time.time_ns() // 1000 if at is None else microseconds(at),
            surface,
            placement,
            served.version,
            served.bundle_id,
            of.user,
            of.visitor,
            of.history_id,
            items[0].rank,
            [item.id for item in items],
            [item.propensity for item in items],
            ranking.fallback,
            call.took_ms(),
            query,
        )
    )


async def similar(call: Call) -> Response:
    """Items like one item."""
    query = call.query(schemas.SimilarQuery)
    served = call.current()
    item_id = call.request.path_params["item_id"]
    ranking = served.bundle.similar(item_id, query.n)
    _show(call, served, ranking, surface="similar", placement="detail", of=Whose(None, None))
    items = handlers.items(ranking, bundle=served.bundle, details=query.details)
    return call.answer({"items": items}, fallback=ranking.fallback)


async def search(call: Call) -> Response:
    """A list for a query."""
    request = await call.parsed(schemas.SearchRequest)
    served = call.current()
    of, past, lacking = await _known(call, request, served)
    ranking = handlers.search(request, bundle=served.bundle, history=past, token=call.token)
    if lacking and not ranking.fallback:
        ranking = replace(ranking, fallback=lacking)
    placement = request.placement or "search"
    at, asked = request.event_time, request.query
    _show(call, served, ranking, surface=Surface.SEARCH, placement=placement, of=of, at=at, query=asked)
    members = {
        "items": handlers.items(ranking, bundle=served.bundle, explain=request.explain, details=request.details),
        "total": ranking.total or 0,
        "facets": handlers.counted(ranking),
        "rewritten_query": ranking.rewritten_query,
        **({"understood": ranking.understood} if request.explain else {}),
    }
    return call.answer(members, fallback=ranking.fallback)


async def rank(call: Call) -> Response:
    """The given items in the best order."""
    request = await call.parsed(schemas.RankRequest)
    served = call.current()
    _, past, lacking = await _known(call, request, served)
    items, fallback = handlers.rank(request, bundle=served.bundle, history=past)
    return call.answer({"items": items}, fallback=lacking or fallback)


async def suggest(call: Call) -> Response:
    """What to offer while somebody types; nothing is recorded."""
    query = call.query(schemas.SuggestQuery)
    suggestions, fallback = handlers.suggested(query, bundle=call.current().bundle)
    return call.answer({"suggestions": suggestions}, fallback=fallback)


async def post_events(call: Call) -> Response:
    """Store events; the answer comes after they are on disk."""
    body = await call.body(MAX_EVENTS_BODY)
    try:
        raw = event_schemas.events_of(body)
    except event_schemas.BadEvent as error:
        raise problems.InvalidFields([{"field": error.field, "reason": error.reason}]) from None
    posted = handlers.Posted(raw, received_at=time.time_ns() // 1000)
    outcomes = await asyncio.wrap_future(call.runtime.store.post(posted.events)) if posted.events else []
    return call.answer(posted.answer(outcomes), status=202)


async def erase_user(call: Call) -> Response:
    """Remember that a user is to be forgotten; ``fuseline erase --due`` carries it out."""
    user, now = call.request.path_params["user_id"], time.time_ns() // 1000
    if not 0 < len(user) <= schemas.MAX_ID or "\x00" in user:
        raise problems.InvalidFields([{"field": "user_id", "reason": f"has 1 to {schemas.MAX_ID} characters"}])
    made = await asyncio.to_thread(call.runtime.store.request_erasure, user, now=now)
    return call.answer(made.as_json(), status=202)


async def erasure(call: Call) -> Response:
    """How far a request to forget a user is."""
    found = await asyncio.to_thread(call.runtime.store.erasure, call.request.path_params["erasure_id"])
    if found is None:
        raise Problem(404, "there is no such erasure", field="erasure_id")
    return call.answer(found.as_json())


async def models(call: Call) -> Response:
    """Versions, aliases and verdicts of the registry."""
    return call.answer(await registry.ask("models"))


async def promote(call: Call) -> Response:
    """Make a registered version the champion."""
    version = call.request.path_params["version"]
    if not version.isdigit():
        raise problems.InvalidFields([{"field": "version", "reason": "must be the number of a registered version"}])
    return call.answer(await registry.ask("promote", version))


async def rollback(call: Call) -> Response:
    """Make the previous champion the champion again."""
    return call.answer(await registry.ask("rollback"))


@dataclass(frozen=True)
class Operation:
    """One route: how it is called, who may, and what goes in and out.

    ``role`` None means that no key is asked for. ``handle`` None means that BentoML answers it.
    """

    method: str
    path: str
    summary: str
    handle: Callable[[Call], Awaitable[Response]] | None = None
    role: Role | None = None
    request: type[BaseModel] | None = None
    query: type[BaseModel] | None = None
    answer: type[BaseModel] | None = None
    status: int = 200
    media_type: str = "application/json"


OPERATIONS: tuple[Operation, ...] = (
    Operation(
        "POST",
        "/v1/recommend",
        "A list for a user or visitor",
        recommend,
        Role.READ,
        schemas.RecommendRequest,
        answer=schemas.ListAnswer,
    ),
    Operation(
        "POST",
        "/v1/events",
        "Post one event, a list, {events: [...]} or JSON lines",
        post_events,
        Role.WRITE,
        event_schemas.Event,
        answer=schemas.EventsAnswer,
        status=202,
    ),
    Operation(
        "POST",
        "/v1/search",
        "A list for a query",
        search,
        Role.READ,
        schemas.SearchRequest,
        answer=schemas.SearchAnswer,
    ),
    Operation(
        "GET",
        "/v1/suggest",
        "What to offer while somebody types",
        suggest,
        Role.READ,
        query=schemas.SuggestQuery,
        answer=schemas.SuggestAnswer,
    ),
    Operation(
        "POST",
        "/v1/rank",
        "Put given items in order",
        rank,
        Role.READ,
        schemas.RankRequest,
        answer=schemas.RankAnswer,
    ),
    Operation(
        "GET",
        "/v1/items/{item_id}/similar",
        "Items like one item",
        similar,
        Role.READ,
        query=schemas.SimilarQuery,
        answer=schemas.ListAnswer,
    ),
    Operation("GET", "/v1/models", "Versions, aliases, verdicts", models, Role.ADMIN, answer=schemas.Answer),
    Operation(
        "POST",
        "/v1/models/{version}/promote",
        "Make a version the champion",
        promote,
        Role.ADMIN,
        answer=schemas.Answer,
    ),
    Operation(
        "POST",
        "/v1/models/rollback",
        "Bring the previous champion back",
        rollback,
        Role.ADMIN,
        answer=schemas.Answer,
    ),
    Operation(
        "DELETE",
        "/v1/users/{user_id}",
        "Ask that a user is forgotten",
        erase_user,
        Role.ADMIN,
        answer=schemas.ErasureAnswer,
        status=202,
    ),
    Operation(
        "GET",
        "/v1/erasures/{erasure_id}",
        "State and deadline of an erasure",
        erasure,
        Role.ADMIN,
        answer=schemas.ErasureAnswer,
    ),
    Operation("GET", "/livez", "Alive", media_type="text/plain"),
    Operation("GET", "/healthz", "Alive", media_type="text/plain"),
    Operation("GET", "/readyz", "Ready to answer", media_type="text/plain"),
    Operation("GET", "/metrics", "Prometheus metrics", media_type="text/plain"),
    Operation("GET", "/schema.json", "BentoML's own description"),
)
"""All routes but ``/`` and ``/openapi.json``, which ``application`` adds; the busiest come first."""


def check_key(call: Call, role: Role | None) -> None:
    """Refuse a caller who may not use a route; a route without role asks for nothing but loopback or keys."""
    keys, headers = call.runtime.keys, call.request.headers
    if role is None and keys is not None:
        return
    server = call.request.scope.get("server")
    auth.check(
        keys,
        role or Role.READ,
        key=headers.get(auth.HEADER),
        server=server[0] if server else None,
        origin=headers.get("origin"),
    )
