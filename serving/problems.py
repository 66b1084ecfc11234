"""Errors as RFC 9457 problem documents that name the field."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import orjson
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from pipelines.adapters.event_availability import RETRY_AFTER_S, StoreUnavailable
from pipelines.errors import FuselineError, RequestError

logger = logging.getLogger("fuseline.service")

MEDIA_TYPE = "application/problem+json"
CONTENT_TYPE = b"application/problem+json"


class Problem(FuselineError):
    """A request refused with a given status; ``headers`` go with the answer."""

    def __init__(
        self, status: int, detail: str, *, field: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        """``field`` names the culprit: a field of the body or query, a header, or a path segment."""
        super().__init__(detail)
        self.http_status = status
        self.field = field
        self.headers = dict(headers or {})


class InvalidFields(Problem):
    """A request of which some fields are wrong; each entry has ``field`` and ``reason``."""

    def __init__(self, errors: Sequence[Mapping[str, str]]) -> None:
        """``errors`` must not be empty; the first one gives ``field``."""
        first = errors[0]
        super().__init__(400, f"{first['field']}: {first['reason']}", field=first["field"])
        self.errors = [dict(error) for error in errors]


def invalid(error: ValidationError) -> InvalidFields:
    """Name every field that pydantic refused; a body that is no JSON object is the field ``body``."""
    return InvalidFields([{"field": path(e["loc"]) or "body", "reason": reason(e)} for e in error.errors()])


def reason(said: Mapping[str, Any]) -> str:
    """What is wrong, of one of pydantic's errors, in words that need no knowledge of it."""
    if said["type"] == "extra_forbidden":
        return "is not a field that can be given here"
    text: str = said["msg"]
    return text.removeprefix("Value error, ")


def path(location: Sequence[Any]) -> str:
    """``("filter", "brand")`` as ``filter.brand``."""
    return ".".join(str(part) for part in location)


def document(error: Exception, *, instance: str) -> dict[str, Any]:
    """The members of the problem document; an error of our own making says nothing of the inside."""
    status = status_of(error)
    phrase = HTTPStatus(status).phrase
    slug = phrase.lower().replace(" ", "-")
    members: dict[str, Any] = {
        "type": f"urn:fuseline:problem:{slug}",
        "title": phrase,
        "status": status,
        "detail": _detail(error, status),
        "instance": instance,
    }
    if isinstance(error, Problem | RequestError) and error.field is not None:
        members["field"] = error.field
    if isinstance(error, InvalidFields):
        members["errors"] = error.errors
    return members


def status_of(error: Exception) -> int:
    """The HTTP status of any exception."""
    if isinstance(error, FuselineError):
        return error.http_status
    return error.status_code if isinstance(error, HTTPException) else 500


def _detail(error: Exception, status: int) -> str:
    if isinstance(error, FuselineError):
        return str(error)
    if status == 404:
        return "no such route; GET /openapi.json lists them"
    if status == 405:
        return "the route exists, but not with this method; see the header Allow"
    if isinstance(error, HTTPException):
        return str(error.detail)
    return "something failed inside the service; its log says what"


def response(request: Request, error: Exception) -> Response:
    """The answer to a request that failed; what was not foreseen goes to the log."""
    status = status_of(error)
    if status == 500:
        logger.error("%s %s failed", request.method, request.url.path, exc_info=error)
    headers = dict(getattr(error, "headers", None) or {})
    if isinstance(error, StoreUnavailable):
        headers["Retry-After"] = str(RETRY_AFTER_S)
    body = orjson.dumps(document(error, instance=request.url.path))
    return Response(body, status_code=status, media_type=MEDIA_TYPE, headers=headers)
