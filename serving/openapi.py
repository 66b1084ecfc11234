"""The OpenAPI document of all routes, made from the table of routes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from serving.auth import HEADER
from serving.routes import Operation

_PARAMETER = re.compile(r"{(\w+)}")


class ProblemDocument(BaseModel):
    """An error, RFC 9457."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    field: str | None = None
    errors: list[dict[str, str]] = []


def document(operations: Iterable[Operation], *, version: str) -> dict[str, Any]:
    """OpenAPI 3.1 of these operations."""
    operations = list(operations)
    models = {m for o in operations for m in (o.request, o.answer) if m is not None} | {ProblemDocument}
    ordered = sorted(models, key=lambda model: model.__name__)
    _, schemas = models_json_schema(
        [(model, "validation") for model in ordered], ref_template="#/components/schemas/{model}"
    )
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Fuseline", "version": version},
        "paths": paths,
        "components": {
            "schemas": schemas.get("$defs", {}),
            "securitySchemes": {"key": {"type": "apiKey", "in": "header", "name": HEADER}},
        },
    }


def _operation(operation: Operation) -> dict[str, Any]:
    content = {operation.media_type: {"schema": _reference(operation.answer)}}
    said: dict[str, Any] = {
        "summary": operation.summary,
        "operationId": re.sub(r"\W+", "_", f"{operation.method.lower()}{operation.path}").strip("_"),
        "parameters": _parameters(operation),
        "responses": {
            str(operation.status): {"description": operation.summary, "content": content},
            "default": {
                "description": "what went wrong, and in which field",
                "content": {"application/problem+json": {"schema": _reference(ProblemDocument)}},
            },
        },
    }
    if operation.request is not None:
        said["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": _reference(operation.request)}},
        }
    if operation.role is not None:
        said["security"] = [{"key": [operation.role.value]}]
    return said


def _parameters(operation: Operation) -> list[dict[str, Any]]:
    found = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in _PARAMETER.findall(operation.path)
    ]
    if operation.query is not None:
        for name, schema in operation.query.model_json_schema()["properties"].items():
            found.append({"name": name, "in": "query", "required": False, "schema": schema})
    return found


def _reference(model: type[BaseModel] | None) -> dict[str, str]:
    return {} if model is None else {"$ref": f"#/components/schemas/{model.__name__}"}
