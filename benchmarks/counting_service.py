"""A service with the product's own server and connections whose one handler only counts: the floor of a latency.

It reads, writes and shares nothing. What its callers wait for beyond the counting is what machine, server and load
generator cost any handler of that length.
"""

from __future__ import annotations

import os
import time
from typing import Any

import bentoml
from _bentoml_sdk import Service  # type: ignore[import-untyped]
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from serving import start
from serving.even_server import even

PATH = "/counting"

_shared: Any = None


async def counting(request: Request) -> Response:
    """Count as far as the body says; tell how long that took."""
    began, steps = time.perf_counter(), int(await request.body())
    for _ in range(steps):
        pass
    took = 1000 * (time.perf_counter() - began)
    return Response(b'{"took_ms":%.3f,"counted":%d}' % (took, steps), media_type="application/json")


APPLICATION = Starlette(routes=[Route(PATH, counting, methods=["POST"])])


class EvenService(Service[Any]):  # type: ignore[misc]
    """BentoML's service with the product's server, the handler before BentoML's middlewares as there."""

    def to_asgi(self, is_main: bool = True) -> Any:  # noqa: FBT001, FBT002 - BentoML's signature
        """The application that a worker serves."""
        even(os.environ, worker=bentoml.server_context.worker_index)
        theirs = super().to_asgi(is_main)

        async def dispatch(scope: Any, receive: Any, send: Any) -> None:
            ours = scope["type"] == "http" and scope["path"] == PATH
            await (APPLICATION if ours else theirs)(scope, receive, send)

        return dispatch


@bentoml.service(
    name="counting",
    service_class=EvenService,
    workers=2,
    http={"host": "127.0.0.1"},
    logging={"access": {"enabled": False}},
)
class Counting:
    """The same settings as the product's service."""

    @bentoml.on_deployment  # type: ignore[untyped-decorator]
    @staticmethod
    def share() -> None:
        """Name to the workers the page of who holds how many connections."""
        global _shared  # noqa: PLW0603 - held as long as this process, which supervises the workers
        _shared = start.share(os.environ)
