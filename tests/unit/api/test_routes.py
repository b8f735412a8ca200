"""The routes table, the door it keeps, and the OpenAPI document that is made from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import trio_test

from hived.api import openapi
from hived.api.routes import ROUTES, Access, Route, find
from hived.errors import HiveError, Kind
from tests.unit.api.doors import MEMBER, ROOT, USER, call, node, raw

DOCUMENT: dict[str, Any] = json.loads(openapi.document(ROUTES))
METHODS = ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"]


def path_of(route: Route) -> str:
    """A path that fits the route."""
    return "/".join("7" if part.startswith("{") else part for part in route.parts)


def test_a_path_has_one_route_for_a_method() -> None:
    assert len({(route.method, route.path) for route in ROUTES}) == len(ROUTES)
    for route in ROUTES:
        assert find(route.method, path_of(route))[0] is route


def test_parameters_are_unquoted() -> None:
    route, found = find("GET", "/v1/nodes/a%2Fb%20c")
    assert (route.path, found) == ("/v1/nodes/{node_ref}", {"node_ref": "a/b c"})


@given(st.sampled_from(METHODS), st.text(max_size=40).map(lambda t: "/v1/" + t))
def test_any_path_is_found_or_not(method: str, path: str) -> None:
    try:
        find(method, path)
    except HiveError as error:
        if error.kind is not Kind.NOT_FOUND:
            raise


def test_only_the_harmless_is_open() -> None:
    """DESIGN.md: over the overlay nothing but info and the log-in goes without a session."""
    open_to = {access: {r.path for r in ROUTES if r.access is access} for access in Access}
    assert open_to[Access.ANYONE] == {"/v1/info", "/v1/login", "/v1/logout"}
    assert open_to[Access.LOCAL] == {"/v1/id"}


@trio_test
async def test_each_route_asks_who_is_calling(tmp_path: Path) -> None:
    """A local user and a member without a session get 401 from every route that is not theirs."""
    async with node(tmp_path) as daemon:
        for route in ROUTES:
            for caller in (USER, MEMBER):
                answer = await call(daemon, route.method, path_of(route), {}, caller)
                barred = route.access is Access.ADMIN or (route.access is Access.LOCAL and caller is MEMBER)
                assert (answer.status == 401) == barred, (route.path, caller, answer)
                if barred:
                    assert answer.kind == "login-required"


@trio_test
async def test_a_dead_token_is_told_everywhere(tmp_path: Path) -> None:
    async with node(tmp_path) as daemon:
        for caller in (USER, MEMBER, ROOT):
            assert (await call(daemon, "GET", "/v1/info", None, caller, token="dead")).status == 401


@trio_test
async def test_bodies_that_are_not_what_the_schema_says(tmp_path: Path) -> None:
    """400 with a line, and nothing done."""
    async with node(tmp_path) as daemon:
        bodies: list[object] = [
            {"unknown_field": 1},
            [],
            1,
            "x",
            b"",
            b"{",
            b'{"name": "\xff"}',
            b"[" * 100_000,
            b"\x00",
        ]
        for route in ROUTES:
            for body in [b"x"] if route.body is None else bodies:
                answer = await call(daemon, route.method, path_of(route), body)
                assert (answer.status, answer.kind) == (400, "usage"), (route.path, body, answer)
                assert answer.json["detail"]
        assert daemon.membership.keys == {}
        assert await daemon.admins.all() == []


@trio_test
async def test_wrong_types_and_queries(tmp_path: Path) -> None:
    proxy = {"direction": "egress", "peer": "x", "port": 1, "peer_port": 2}
    wrong: list[tuple[str, str, dict[str, Any]]] = [
        ("POST", "/v1/proxies", {**proxy, "port": 0}),
        ("POST", "/v1/proxies", {**proxy, "port": 65536}),
        ("POST", "/v1/proxies", {**proxy, "port": "80"}),
        ("POST", "/v1/proxies", {**proxy, "direction": "sideways"}),
        ("POST", "/v1/proxies", {**proxy, "kind": "ssh"}),
        ("POST", "/v1/networks", {"name": "a b"}),
        ("POST", "/v1/networks", {"name": "a", "password": ""}),
        ("PUT", "/v1/name", {"name": "x" * 64}),
        ("PUT", "/v1/name", {"name": None}),
        ("PUT", "/v1/admins/bad%20name", {"password": "x"}),
        ("POST", "/v1/register", {"identity": "x" * 16385}),
    ]
    async with node(tmp_path) as daemon:
        for method, path, body in wrong:
            assert (await call(daemon, method, path, body)).kind == "usage", (path, body)
        for path in (
            "/v1/info?x=1",
            "/v1/nodes?network=a&y=1",
            "/v1/sessions?watch=true&z",
            "/v1/info?" + "a=b&" * 50,
        ):
            assert (await call(daemon, "GET", path)).kind == "usage", path


@trio_test
async def test_paths_and_methods_that_are_not_there(tmp_path: Path) -> None:
    async with node(tmp_path) as daemon:
        for path in (
            "/",
            "/v1",
            "/v1/",
            "/v1/nothing",
            "/v2/info",
            "/v1/info/",
            "//v1/info",
            "/v1/nodes//alias",
        ):
            assert (await call(daemon, "GET", path)).kind == "not-found", path
        answer = await call(daemon, "POST", "/v1/info")
        assert answer.kind == "not-found"
        assert "GET" in answer.json["detail"]
        head = await raw(daemon, b"HEAD /v1/info HTTP/1.1\r\nHost: x\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 404 ")
        assert head.endswith(b"\r\n\r\n")


@given(st.binary(max_size=200))
def test_any_body_is_decoded_or_refused(data: bytes) -> None:
    from hived.api.http import Request
    from hived.api.server import _body

    for route in ROUTES:
        try:
            _body(route, Request("POST", "/", {}, data))
        except HiveError as error:
            if error.kind is not Kind.USAGE:
                raise


# OpenAPI


def test_every_route_is_in_the_document() -> None:
    told = {(method.upper(), path) for path, item in DOCUMENT["paths"].items() for method in item}
    assert told == {(route.method, route.path) for route in ROUTES}
    operations = [operation for item in DOCUMENT["paths"].values() for operation in item.values()]
    assert len({operation["operationId"] for operation in operations}) == len(operations)
    assert all(operation["summary"] for operation in operations)


def references(item: Any) -> list[str]:
    if isinstance(item, dict):
        mine = [item["$ref"]] if "$ref" in item else []
        return mine + [found for value in item.values() for found in references(value)]
    return [found for value in item for found in references(value)] if isinstance(item, list) else []


def test_every_reference_leads_somewhere() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    found = references(DOCUMENT)
    assert found
    for reference in found:
        assert reference.removeprefix("#/components/schemas/") in schemas


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_each_operation_is_complete(route: Route) -> None:
    operation = DOCUMENT["paths"][route.path][route.method.lower()]
    in_path = [p["name"] for p in operation["parameters"] if p["in"] == "path"]
    assert in_path == route.parameters
    assert ("requestBody" in operation) == (route.body is not None)
    assert ("security" in operation) == (route.access is Access.ADMIN)
    assert "default" in operation["responses"]
    assert len(operation["responses"]) == 2


def test_requests_forbid_unknown_fields_in_the_document_too() -> None:
    for route in ROUTES:
        if route.body is not None:
            assert DOCUMENT["components"]["schemas"][route.body.__name__]["additionalProperties"] is False


@trio_test
async def test_anyone_may_read_the_document(tmp_path: Path) -> None:
    async with node(tmp_path) as daemon:
        for caller in (USER, MEMBER):
            assert (await call(daemon, "GET", "/v1/openapi.json", None, caller)).json == DOCUMENT
