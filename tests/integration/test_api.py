"""The API's local door under clients that are many, slow, silent, greedy or confused."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator

import pytest

from hived.api.http import MAX_BODY, MAX_HEADERS
from hived.api.routes import ROUTES, Route
from tests.integration.nodes import Node, cluster
from tests.integration.rawhttp import GONE, Client, await_open_files, call, open_files, request, state

NETWORK = "my-network"
ANSWERS_WITHIN = 5.0
INFO = request("GET", "/v1/info")
WITH_BODY = [route for route in ROUTES if route.body is not None]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with cluster(tmp_path_factory.mktemp("api"), "alpha") as (alpha,):
        alpha.create(NETWORK)
        yield alpha


@pytest.fixture
def node(running: Node) -> Iterator[Node]:
    """The node, which must be afterwards what it was before: state, open files, promptness, a quiet log."""
    before, files, after = state(running), open_files(running), len(running.log.lines)
    yield running
    started = time.monotonic()
    assert call(running.socket, "GET", "/v1/status").status == 200
    assert time.monotonic() - started < ANSWERS_WITHIN
    assert state(running) == before
    await_open_files(running, files)
    assert not [e for e in running.log.lines[after:] if "traceback" in e or "error hived" in e]


def test_hundred_clients_at_once(node: Node) -> None:
    """All are connected before the first one asks, and all are answered."""
    clients = [Client(node.socket) for _ in range(100)]
    try:
        for client in clients:
            client.send(request("GET", "/v1/status"))
        answers = [client.answer() for client in clients]
        assert {answer.status for answer in answers} == {200}
        assert len({answer.json()["peer_id"] for answer in answers}) == 1
    finally:
        for client in clients:
            client.close()


def test_hundred_clients_that_do_nothing(node: Node) -> None:
    """Silent clients, half requests and watches that nobody reads keep nobody else from an answer."""
    clients = [Client(node.socket) for _ in range(100)]
    try:
        for number, client in enumerate(clients):
            client.send((b"", b"G", INFO[:-1], request("GET", "/v1/nodes?watch=true"))[number % 4])
        for name in ("other-name", "alpha"):
            assert call(node.socket, "PUT", "/v1/name", {"name": name}).status == 200
        started = time.monotonic()
        assert call(node.socket, "GET", "/v1/status").status == 200
        assert time.monotonic() - started < ANSWERS_WITHIN
    finally:
        for client in clients:
            client.close()


def test_keep_alive_and_pipelining(node: Node) -> None:
    """One connection serves request after request, also those sent ahead, answers in order."""
    with Client(node.socket) as client:
        for _ in range(5):
            assert client.call("GET", "/v1/info").status == 200
        client.send(INFO + request("GET", "/v1/no-such") + request("GET", "/v1/id") + INFO)
        answers = [client.answer() for _ in range(4)]
        assert [answer.status for answer in answers] == [200, 404, 200, 200]
        assert "identity" in answers[2].json()
        client.send(request("GET", "/v1/info", more="Connection: close\r\n"))
        assert client.answer().status == 200
        assert client.at_end()


def test_http_1_0(node: Node) -> None:
    """A client of HTTP/1.0 gets its answer, and then the end of the connection."""
    with Client(node.socket) as client:
        client.send(b"GET /v1/info HTTP/1.0\r\n\r\n")
        assert client.answer().json()["name"] == "alpha"
        assert client.at_end()


def test_head_and_options(node: Node) -> None:
    """Methods that no call has are refused; HEAD never has a body."""
    with Client(node.socket) as client:
        client.send(request("HEAD", "/v1/info"))
        assert client.answer(has_body=False).status in (404, 405)
        assert client.answer() == GONE
    for method in ("OPTIONS", "PATCH", "TRACE", "BREW"):
        answer = call(node.socket, method, "/v1/info")
        assert answer.status in (404, 405)
        assert answer.headers["content-type"] == "application/problem+json"


def test_one_byte_at_a_time(node: Node) -> None:
    """A slow request is a request, as long as it ends within the time that it has."""
    with Client(node.socket) as client:
        for byte in INFO:
            client.send(bytes([byte]))
        assert client.answer().status == 200


def test_bodies_in_chunks(node: Node) -> None:
    """Chunked bodies are read as others; the client that waits for 100 Continue gets it."""
    chunked = "Transfer-Encoding: chunked\r\n"
    with Client(node.socket) as client:
        body = b'8\r\n{"name":\r\n8\r\n"alpha"}\r\n0\r\n\r\n'
        client.send(request("PUT", "/v1/name", more=chunked) + body)
        assert client.answer().json()["note"] == "that is its name already"
        client.send(request("PUT", "/v1/name", more=chunked) + b"zz\r\n")
        assert client.answer().status == 400
        assert client.at_end()
    with Client(node.socket) as client:
        body = b'{"name":"alpha"}'
        client.send(
            request("PUT", "/v1/name", more=f"Content-Length: {len(body)}\r\nExpect: 100-continue\r\n")
        )
        assert b" 100 " in client.line()
        assert client.line() == b"\r\n"
        client.send(body)
        assert client.answer().status == 200


LARGE = b'{"name":"' + b"x" * MAX_BODY + b'"}'
BAD_REQUESTS = {
    "body too large": request("PUT", "/v1/name", LARGE),
    "chunks too large": request("PUT", "/v1/name", more="Transfer-Encoding: chunked\r\n")
    + b"10000\r\n"
    + b"x" * 0x10000
    + b"\r\n"
    + (b"10000\r\n" + b"x" * 0x10000 + b"\r\n") * 4,
    "headers too large": request("GET", "/v1/info", more=f"X: {'x' * MAX_HEADERS * 5}\r\n"),
    "too many headers": request("GET", "/v1/info", more="X: y\r\n" * MAX_HEADERS * 4),
    "path too long": request("GET", "/v1/" + "x" * MAX_HEADERS * 5),
    "two lengths": request("PUT", "/v1/name", b"{}", more="Content-Length: 5\r\n"),
    "negative length": request("PUT", "/v1/name", more="Content-Length: -1\r\n"),
    "length in words": request("PUT", "/v1/name", more="Content-Length: many\r\n"),
    "huge length": request("PUT", "/v1/name", more="Content-Length: 99999999999999999999\r\n") + LARGE,
    "no host": b"GET /v1/info HTTP/1.1\r\n\r\n",
    "NUL in a header": request("GET", "/v1/info", more="X: a\0b\r\n"),
    "not HTTP": b"EHLO hive\r\n\r\n",
    "TLS": bytes.fromhex("1603010200010001fc0303") + bytes(200),
    "noise": bytes((i * 197 + 13) % 256 for i in range(5000)) + b"\r\n\r\n",
    "newlines": b"\r\n" * 9000,
    "not JSON": request("PUT", "/v1/name", b"name=x"),
    "not UTF-8": request("PUT", "/v1/name", b'{"name":"\xff"}'),
    "half of a surrogate": request("PUT", "/v1/name", b'{"name":"\\ud800"}'),
    "too deep": request("PUT", "/v1/name", b"[" * 100_000),
    "two documents": request("PUT", "/v1/name", b'{"name":"a"}{"name":"b"}'),
    "nothing": request("PUT", "/v1/name"),
    "a body where none goes": request("GET", "/v1/info", b'{"a":1}'),
    "unknown parameter": request("GET", "/v1/nodes?netwrok=x"),
    "many parameters": request("GET", "/v1/nodes?" + "&".join(f"a{n}=1" for n in range(100))),
    "tunnel without upgrade": request("POST", "/v1/tunnel/nobody"),
}


@pytest.mark.parametrize("what", BAD_REQUESTS)
def test_bad_request(node: Node, what: str) -> None:
    """It is answered with a 4xx problem document, or the connection ends; nothing else happens."""
    with Client(node.socket) as client:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            client.send(BAD_REQUESTS[what])  # what comes first may be enough
        answer = client.answer()
        if answer is not GONE:
            assert 400 <= answer.status < 500, answer
            assert answer.headers["content-type"] == "application/problem+json"
            problem = answer.json()
            assert problem["status"] == answer.status
            assert problem["title"]
            assert problem["kind"] in ("usage", "not-found")


REASONS = {
    "body too large": "larger than",
    "chunks too large": "larger than",
    "not JSON": "malformed",
    "too deep": "Expected `object`",
    "two lengths": "Content-Length",
    "headers too large": "too long",
}


@pytest.mark.parametrize("what", REASONS)
def test_reason_is_told(node: Node, what: str) -> None:
    """For these the client is told why, not just cut off."""
    with Client(node.socket) as client:
        client.send(BAD_REQUESTS[what])
        answer = client.answer()
        assert answer.status in (400, 413, 431)
        assert REASONS[what] in answer.json()["detail"]


@pytest.mark.parametrize(
    "path",
    ["/", "/v1", "/v1/", "//v1/info", "/v1/info/", "/V1/INFO", "/v1/../v1/info", "/v1/nodes/%2e%2e/alias/x",
     "*", "/v1/proxies/", "/v1/proxies/-1", "/v1/proxies/1e3", "/v1/proxies/%F0%9F%90%9D", "/v1/nodes/%00",
     "/v1/proxies/" + "9" * 5000, "/v1/nodes/nobody", "/v1/nodes/%ff%fe", "/v1/nodes/a%2Fb"],
)  # fmt: skip
def test_no_such_path(node: Node, path: str) -> None:
    """Neither odd paths nor odd names in them reach anything."""
    answer = call(node.socket, "GET", path)
    assert answer.status in (400, 404), answer


@pytest.mark.parametrize("route", WITH_BODY, ids=lambda route: f"{route.method} {route.path}")
def test_bodies_that_do_not_fit(node: Node, route: Route) -> None:
    """Unknown fields and wrong types are errors in every call that takes a body, and change nothing."""
    fields = {name: {"wrong": ["type"]} for name in route.body.__struct_fields__}
    path = route.path.replace("{", "").replace("}", "")
    unknown = call(node.socket, route.method, path, {"no_such_field": 1})
    assert "unknown field `no_such_field`" in unknown.json()["detail"]
    for body in (fields, [], [1], "text", 5, None, True, {"": ""}):
        with Client(node.socket) as client:
            answer = client.call(route.method, path, json.dumps(body).encode())
            assert answer.status == 400, (body, answer)
            assert answer.json()["kind"] == "usage"
            # The connection is as good as before.
            assert client.call("GET", "/v1/info").status == 200


def test_early_close(node: Node) -> None:
    """Clients that leave in the middle of a request, or before its answer, leave nothing behind."""
    half, watch = request("PUT", "/v1/name", LARGE)[:3000], request("GET", "/v1/status?watch=true")
    many = request("GET", "/v1/openapi.json") * 20
    for data in (b"", b"GET ", INFO[:-2], INFO, INFO * 50, half, watch, many):
        for _ in range(5):
            with Client(node.socket) as client:
                client.send(data)


def test_watch(node: Node) -> None:
    """A watch tells the state at once and after each change, a line each, as chunks."""
    with Client(node.socket) as client:
        client.send(request("GET", "/v1/status?watch=true"))
        answer = client.answer()
        assert (answer.status, answer.headers["content-type"]) == (200, "application/jsonl")
        names: list[str] = []
        for name in ("renamed", "alpha"):
            assert call(node.socket, "PUT", "/v1/name", {"name": name}).status == 200
            while not names or names[-1] != name:
                entry = client.line()
                if entry.startswith(b"{"):
                    names.append(json.loads(entry)["name"])


@pytest.mark.full
def test_slow_and_silent_clients_are_dropped(node: Node) -> None:
    """A request that does not end is dropped after 10 s, sent byte by byte or not at all; an idle client
    after 75 s."""
    with Client(node.socket, 30) as silent, Client(node.socket, 30) as slow, Client(node.socket, 90) as idle:
        silent.send(INFO[:-1])
        started = time.monotonic()
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            while time.monotonic() - started < 25:
                slow.send(b"X")
                time.sleep(0.2)
        assert silent.at_end()
        assert time.monotonic() - started < 25
        assert idle.at_end()
        assert time.monotonic() - started < 90
