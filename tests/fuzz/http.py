"""The API's HTTP: any bytes on a connection, in pieces of any size, are answered or end it.

First byte: the parser alone; the whole API for a stranger, a member, or (reading only) the node's owner; or
the body of one call. Second: how many bytes come at a time.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import os
import tempfile
from pathlib import Path

import trio

from hived import config
from hived.api.auth import Auth, Caller
from hived.api.http import ClientGoneError, HttpConnection, Request
from hived.api.node import Node
from hived.api.passwords import HashingThread
from hived.api.routes import ROUTES
from hived.api.server import Server, _body
from hived.daemon import Daemon
from hived.errors import HiveError, Kind
from hived.store import seal
from hived.store.database import FILE_NAME, Database

from .target import Script, Target

STRANGER, MEMBER, OWNER = Caller(uid=1234), Caller(peer_id="12D3KooWMember"), Caller(uid=os.geteuid())
CHANGES = (b"POST", b"PUT", b"DELETE")
MOST_BYTES = 2 * 1024 * 1024


class Client(trio.abc.HalfCloseableStream):
    """A client that has sent everything already; ``got`` is what it was answered."""

    def __init__(self, data: bytes, size: int) -> None:
        self._data = data
        self._size = size or len(data) + 1
        self.got = bytearray()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        count = min(self._size, max_bytes or self._size)
        part, self._data = self._data[:count], self._data[count:]
        return part

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        self.got += data
        assert len(self.got) < MOST_BYTES, "an answer without an end"

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def send_eof(self) -> None:
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


class Defects(logging.Handler):
    """What hived holds for defects of its own: the API answers 500 then, and the log has the traceback."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[1]:
            self.found = record.exc_info[1]

    found: BaseException | None = None


@functools.cache
def node() -> tuple[Node, Defects, tempfile.TemporaryDirectory[str]]:
    """The parts of a node as the daemon builds them, with a network; nothing runs, so nothing changes."""
    home = tempfile.TemporaryDirectory(prefix="hive-fuzz-")
    settings = config.load({"data_dir": home.name, "name": "alpha"}, {"HOME": home.name}, root=False)

    async def build() -> Node:
        daemon = Daemon(settings, lambda: settings)
        path = Path(home.name) / FILE_NAME
        key = seal.load(Path(home.name), None, False)
        await daemon._build(await Database.open(path), key, hashing())
        await daemon.networks.add("net", b"k" * 32)
        await daemon._load()
        return daemon.node

    defects, log = Defects(), logging.getLogger("hived")
    log.addHandler(defects)
    log.propagate = False
    return trio.run(build), defects, home


@functools.cache
def hashing() -> HashingThread:
    return HashingThread()


async def parse(data: bytes, size: int) -> list[Request | Kind]:
    """What a connection reads; a refusal is answered, as the API does it."""
    http = HttpConnection(Client(data, size))
    found: list[Request | Kind] = []
    try:
        while True:
            try:
                request = await http.receive()
                if request is None:
                    break
                found.append(request)
                if request.method in ("HEAD", "CONNECT"):
                    break  # no call has these methods: none is ever answered with 200 and a body
                await http.answer(200, b"{}")
            except HiveError as error:
                found.append(error.kind)
                try:
                    await http.answer(error.kind.status, b"{}")
                except Exception as failure:  # as in the server: only closing is left
                    raise ClientGoneError from failure
    except ClientGoneError:
        pass
    return found


async def serve(data: bytes, size: int, caller: Caller) -> None:
    base, defects, _ = node()
    # Log-ins are delayed by those before: each input gets what a first one would.
    fresh = dataclasses.replace(base, auth=Auth(base.admins, hashing(), lambda: 0.0))
    client = Client(data, size)
    defects.found = None
    await Server(fresh)._serve(client, caller)
    if defects.found is not None:
        raise AssertionError("a defect that a client can cause") from defects.found
    assert not client.got or client.got.startswith(b"HTTP/1.1 ")


def call_body(script: Script, number: int) -> None:
    routes = [route for route in ROUTES if route.body is not None]
    route = routes[number % len(routes)]
    try:
        _body(route, Request(route.method, route.path, {}, script.rest()))
    except HiveError as error:
        if error.kind is not Kind.USAGE:
            raise


def run(data: bytes) -> None:
    script = Script(data)
    how, size = script.byte() % 5, script.byte()
    if how == 4:
        call_body(script, size)
        return
    rest = script.rest()
    if how == 0:
        pieces, whole = trio.run(parse, rest, size), trio.run(parse, rest, 0)
        # Where a refusal comes may depend on the pieces, what was read before may not.
        requests = [[item for item in found if isinstance(item, Request)] for found in (pieces, whole)]
        assert requests[0] == requests[1]
        return
    node()  # not from within a run
    owner = OWNER if not any(method in rest for method in CHANGES) else MEMBER
    trio.run(serve, rest, size, (STRANGER, MEMBER, owner)[how - 1])


def seeds() -> list[bytes]:
    head = b"Host: hive\r\n"
    requests = [b"GET " + route.path.encode() + b" HTTP/1.1\r\n" + head + b"\r\n" for route in ROUTES]
    requests += [
        b"GET /v1/nodes?watch=true HTTP/1.1\r\n" + head + b"\r\n",
        b"GET /v1/nodes?network=net&network=x HTTP/1.1\r\n" + head + b"\r\n",
        b"GET /v1/nodes/%00%ff%2f HTTP/1.1\r\n" + head + b"\r\n",
        b"GET http://[::1/v1/info?a=%%% HTTP/1.1\r\n" + head + b"\r\n",
        b"GET /v1/info HTTP/1.1\r\n" + head + b"Authorization: Bearer x\r\n\r\n" * 2,
        b"GET /v1/info HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        b'POST /v1/login HTTP/1.1\r\nHost: x\r\nContent-Length: 31\r\n\r\n{"user":"olga","password":"pw"}',
        b"PUT /v1/name HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\na: b\r\n\r\n",
        b"POST /v1/login HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n{}",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999\r\n\r\n" + b"x" * 99,
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01",
        b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 200 + b"\r\n",
    ]
    bodies = [b"{}", b"[]", b'{"user":1}', b'{"name":"a","password":"b","later":1}', b"\xff", b"[" * 2000]
    found = [bytes([how, 7 * (at % 3)]) + request for at, request in enumerate(requests) for how in range(4)]
    return found + [bytes([4, number]) + body for number in range(16) for body in bodies]


TARGET = Target("http", run, seeds, most_bytes=8 * 1024)
