"""Two endpoints that do nothing, as BentoML serves them: what a recommendation is compared with."""

from __future__ import annotations

from typing import Any

import bentoml
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route


async def mounted(request: Request) -> Response:
    """Read the body, answer a constant."""
    await request.body()
    return Response(b"{}", media_type="application/json")


@bentoml.asgi_app(Starlette(routes=[Route("/mounted", mounted, methods=["POST"])]))
@bentoml.service(name="empty", workers=2, http={"host": "127.0.0.1"}, logging={"access": {"enabled": False}})
class Empty:
    """The same settings as the service's own."""

    @bentoml.api  # type: ignore[untyped-decorator]
    async def api(self) -> dict[str, Any]:
        """Answer a constant."""
        return {}
