"""The OpenAPI 3.1 document, from the routes table and the types of its functions."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

import msgspec

from .. import __version__
from ..schema import ForwardEvent, Problem
from .routes import Access, Route, Shape

_REF = "#/components/schemas/{name}"


def document(routes: Iterable[Route]) -> bytes:
    """The document as JSON."""
    table = list(routes)
    types: list[Any] = [Problem, ForwardEvent]
    types += [route.body for route in table if route.body is not None]
    types += [route.hints["return"] for route in table if route.shape in (Shape.CALL, Shape.WATCH)]
    schemas, components = msgspec.json.schema_components(types, ref_template=_REF)
    by_type = dict(zip(map(repr, types), schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in table:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, by_type)
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {
                "title": "Hive node",
                "version": __version__,
                "description": "The same API on the local Unix socket and, to members, over the overlay.",
            },
            "paths": paths,
            "components": {
                "schemas": components,
                "securitySchemes": {"session": {"type": "http", "scheme": "bearer"}},
            },
        }
    )


def _operation(route: Route, schemas: dict[str, Any]) -> dict[str, Any]:
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in route.parameters
    ]
    parameters += [{"name": name, "in": "query", "schema": {"type": "string"}} for name in route.query]
    if route.shape is Shape.WATCH:
        parameters.append(
            {
                "name": "watch",
                "in": "query",
                "schema": {"type": "boolean"},
                "description": "One JSON line now and after each change.",
            }
        )
    operation: dict[str, Any] = {
        "operationId": route.function.__name__,
        "summary": (inspect.getdoc(route.function) or "").split("\n")[0],
        "parameters": parameters,
        "responses": {
            **_answer(route, schemas),
            "default": {
                "description": "It failed.",
                "content": {"application/problem+json": {"schema": schemas[repr(Problem)]}},
            },
        },
    }
    if route.body is not None:
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": schemas[repr(route.body)]}},
        }
    if route.access is Access.ADMIN:
        operation["security"] = [{"session": []}, {}]
    return operation


def _answer(route: Route, schemas: dict[str, Any]) -> dict[str, Any]:
    if route.shape is Shape.TUNNEL:
        return {"101": {"description": "The API of the other node follows (send Upgrade: hive-api)."}}
    if route.shape is Shape.STREAM:
        content = {"application/jsonl": {"schema": schemas[repr(ForwardEvent)]}}
    else:
        schema = schemas[repr(route.hints["return"])]
        content = {"application/json": {"schema": schema}}
        if route.shape is Shape.WATCH:
            content["application/jsonl"] = {"schema": schema}
    return {"200": {"description": "It was done.", "content": content}}
