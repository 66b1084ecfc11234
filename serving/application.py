"""The routes as one ASGI application, and who answers what: this application or BentoML's."""

from __future__ import annotations

import functools
import time
from collections.abc import Awaitable, Callable

import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from serving import openapi, page, problems
from serving.metrics import Metrics
from serving.routes import OPERATIONS, Call, Operation, check_key
from serving.runtime import Runtime

VERSION = "1"
"""Version of the API, the ``v1`` of its paths."""

ITEM_ID = "{item_id:path}"
"""An item's id may contain any character, a slash too."""


async def describe(call: Call) -> Response:
    """The OpenAPI document."""
    return Response(_document(), media_type="application/json")


@functools.cache
def _document() -> bytes:
    return orjson.dumps(openapi.document(ALL_OPERATIONS, version=VERSION))


async def storefront(call: Call) -> Response:
    """The page; ids of users are named on it only where no keys guard them."""
    served = call.current()
    return Response(page.render(served.bundle, guarded=call.runtime.keys is not None), media_type="text/html")


ALL_OPERATIONS: tuple[Operation, ...] = (
    *OPERATIONS,
    Operation("GET", "/openapi.json", "This document", describe),
    Operation("GET", "/", "Storefront page", storefront, media_type="text/html"),
)

BENTOML_PATHS = frozenset(operation.path for operation in ALL_OPERATIONS if operation.handle is None)


def application() -> Starlette:
    """The application; ``state.runtime`` must be set before the first request."""
    metrics = Metrics()
    routes = [
        Route(operation.path.replace("{item_id}", ITEM_ID), _endpoint(operation, metrics), methods=[operation.method])
        for operation in ALL_OPERATIONS
        if operation.handle is not None
    ]

    async def refused(request: Request, error: Exception) -> Response:
        answer = problems.response(request, error)
        metrics.observe("unmatched", answer.status_code, 0.0)
        return answer

    return Starlette(routes=routes, exception_handlers={404: refused, 405: refused, 500: refused})


def _endpoint(operation: Operation, metrics: Metrics) -> Callable[[Request], Awaitable[Response]]:
    handle, path, role = operation.handle, operation.path, operation.role
    assert handle is not None  # noqa: S101 - the caller leaves out BentoML's own

    async def answer(request: Request) -> Response:
        started = time.perf_counter()
        runtime: Runtime = request.app.state.runtime
        try:
            call = Call(request, runtime, started)
            check_key(call, role)
            response = await handle(call)
        except Exception as error:  # noqa: BLE001 - every failure becomes a problem document
            response = problems.response(request, error)
        metrics.observe(path, response.status_code, time.perf_counter() - started)
        return response

    return answer


ROUTES = application()


def in_front(bentoml: ASGIApp) -> ASGIApp:
    """Answer our routes directly and leave the rest, start and stop included, to BentoML.

    BentoML's chain of middlewares (metrics with a label per path, tracing, timeout, context) costs a
    multiple of what a recommendation costs; see ``docs/adr/0003``.
    """

    async def dispatch(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in BENTOML_PATHS:
            await ROUTES(scope, receive, send)
        else:
            await bentoml(scope, receive, send)

    return dispatch
