"""A whole node in this process, as the daemon builds it, and calls on its API without or with a socket."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h11
import trio
from trio.testing import memory_stream_pair

from hived import config
from hived.api.auth import Caller
from hived.daemon import Daemon

ROOT = Caller(uid=0)
USER = Caller(uid=1234)
MEMBER = Caller(peer_id="12D3KooWMember")
SECONDS = 30.0


@dataclass(frozen=True)
class Answer:
    """A status with the JSON that came with it."""

    status: int
    json: Any
    headers: dict[str, str]

    @property
    def kind(self) -> str:
        """The kind of the problem."""
        assert self.headers["content-type"] == "application/problem+json"
        assert self.json["status"] == self.status
        return str(self.json["kind"])


@asynccontextmanager
async def node(directory: Path, name: str = "alpha") -> AsyncIterator[Daemon]:
    """A whole node that runs as the daemon does; its doors are open when this is entered."""
    home = directory / name
    home.mkdir(exist_ok=True)
    flags = {"data_dir": str(home), "name": name, "listen": ["/ip4/127.0.0.1/tcp/0"]}
    settings = config.load(flags, {"HOME": str(home)}, root=False)
    daemon = Daemon(settings, lambda: settings)
    with trio.fail_after(SECONDS):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(daemon.run)
            while not settings.socket.is_socket():  # noqa: ASYNC110 - no event tells
                await trio.sleep(0.005)
            yield daemon
            nursery.cancel_scope.cancel()


async def raw(daemon: Daemon, data: bytes, caller: Caller = ROOT) -> bytes:
    """Everything that the API answers to these bytes and the client's end."""
    client, server = memory_stream_pair()
    got = bytearray()
    async with trio.open_nursery() as nursery:

        async def serve() -> None:
            await daemon.server._serve(server, caller)
            await server.aclose()

        nursery.start_soon(serve)
        await client.send_all(data)
        await client.send_eof()
        while part := await client.receive_some():
            got += part
    return bytes(got)


async def call(
    daemon: Daemon, method: str, path: str, body: object = None, caller: Caller = ROOT, token: str = ""
) -> Answer:
    """One request on a connection of its own."""
    payload = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    head = f"{method} {path} HTTP/1.1\r\nHost: hive\r\nContent-Length: {len(payload)}\r\n"
    head += f"Authorization: Bearer {token}\r\n" if token else ""
    got = await raw(daemon, head.encode() + b"\r\n" + payload, caller)
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method=method, target="/", headers=[("Host", "hive")]))
    client.send(h11.EndOfMessage())
    client.receive_data(got)
    client.receive_data(b"")
    response = client.next_event()
    assert isinstance(response, h11.Response), got
    text = b""
    while isinstance(event := client.next_event(), h11.Data):
        text += event.data
    headers = {key.decode(): value.decode() for key, value in response.headers}
    return Answer(response.status_code, json.loads(text), headers)
