"""Hive's transport with Kubo, whose forwards lead between TCP and streams: much data, many streams, a stall.

A forward ends both directions with the first, so half-closes are looked at elsewhere: through its relay.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import trio

from hived.overlay.connection import Connection
from hived.overlay.identify import IDENTIFY, PING
from tests.integration.nodes import free_port
from tests.integration.peer import act
from tests.interop.end import End, hive_end
from tests.interop.services import MB, STALL_SECONDS, Stream, echo, everything, get, ping, put
from tests.interop.stock import KUBO_PROTOCOL, Stock

pytestmark = pytest.mark.requires("kubo")

_numbers = itertools.count()


@dataclass(frozen=True)
class Meeting:
    """A connection between Hive's end and Kubo; behind Kubo the services on TCP, and doors to ours."""

    go: Stock
    end: End
    connection: Connection
    nursery: trio.Nursery

    async def opener(self, service: str, by: str) -> Callable[[], Awaitable[Stream]]:
        """What opens streams to a service: streams of "hive", or of "kubo", from a TCP connection."""
        protocol = self.end.name(service)
        if by == "hive":
            serve = partial(_serve, self.end.services.all()[service])
            (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
            port = listener.socket.getsockname()[1]
            self.nursery.start_soon(trio.serve_listeners, serve, [listener])
            assert await self.go.ask("listen", protocol=protocol, port=port) == 1
            return partial(self.connection.open_stream, protocol)
        port = free_port()
        assert await self.go.ask("forward", protocol=protocol, port=port, peer=self.end.peer_id) == 1
        return partial(trio.open_tcp_stream, "127.0.0.1", port)


async def _serve(service: Callable[[Any], Awaitable[None]], stream: trio.SocketStream) -> None:
    async with stream:
        await service(stream)


@asynccontextmanager
async def meeting(go: Stock, dialer: str) -> AsyncIterator[Meeting]:
    # Kubo keeps its forwards, so each meeting has protocols of its own.
    protocol = KUBO_PROTOCOL.replace("*", f"{next(_numbers)}/*")
    async with hive_end(protocol) as end, trio.open_nursery() as nursery:
        if dialer == "hive":
            connection = await end.host.dial(go.address, go.peer_id)
        else:
            assert await go.ask("connect", address=end.address) == 0
            (connection,) = end.host.all_connections()
        yield Meeting(go, end, connection, nursery)
        nursery.cancel_scope.cancel()


@pytest.fixture(params=["hive", "kubo"])
def dialer(request: pytest.FixtureRequest) -> str:
    """Who has dialled: it decides whose streams have odd numbers, and the roles in the handshake."""
    return str(request.param)


@pytest.fixture(params=["hive", "kubo"])
def opener(request: pytest.FixtureRequest) -> str:
    """Whose streams they are."""
    return str(request.param)


def scene(go: Stock, dialer: str, play: Callable[[Meeting], Awaitable[None]]) -> None:
    async def played() -> None:
        async with meeting(go, dialer) as met:
            await play(met)

    act(played, 60)


def test_ping_and_identify(go: Stock, dialer: str) -> None:
    async def play(met: Meeting) -> None:
        await ping(await met.connection.open_stream(PING))
        await ping(await (await met.opener("ping", "kubo"))())
        # For that stream it has identified us.
        assert met.end.host.listening == await met.go.ask("addresses", peer=met.end.peer_id)
        # We end first, and what Kubo says of itself comes to its end.
        stream = await met.connection.open_stream(IDENTIFY)
        await stream.send_eof()
        assert b"kubo/0.22" in await everything(stream)

    scene(go, dialer, play)


def test_100_megabytes_each_way(go: Stock, dialer: str, opener: str) -> None:
    async def play(met: Meeting) -> None:
        await put(await (await met.opener("take", opener))(), 100 * MB)
        await get(await (await met.opener("give", opener))(), 100 * MB)

    scene(go, dialer, play)


def test_64_streams_of_each_at_once(go: Stock, dialer: str) -> None:
    async def play(met: Meeting) -> None:
        async def one(open_one: Callable[[], Awaitable[Stream]]) -> None:
            await echo(await open_one(), MB // 4)

        async with trio.open_nursery() as nursery:
            for by in ("hive", "kubo"):
                open_one = await met.opener("echo", by)
                for _ in range(64):
                    nursery.start_soon(one, open_one)

    scene(go, dialer, play)


def test_a_stalled_reader_stops_nobody_else(go: Stock) -> None:
    """On both sides at once: each does not read one stream for 10 s, while others go on."""

    async def play(met: Meeting) -> None:
        stalled: set[str] = set()

        async def ours(by: str) -> None:
            name = f"we, on a stream of {by}"
            stalled.add(name)
            await get(await (await met.opener("give", by))(), 32 * MB, stall=STALL_SECONDS)
            stalled.discard(name)

        async def theirs(by: str) -> None:
            name = f"they, on a stream of {by}"
            stalled.add(name)
            await put(await (await met.opener("lazy", by))(), 32 * MB)
            stalled.discard(name)

        async with trio.open_nursery() as nursery:
            for by in ("hive", "kubo"):
                nursery.start_soon(ours, by)
                nursery.start_soon(theirs, by)
            doors = [await met.opener("echo", by) for by in ("hive", "kubo")]
            for _ in range(10):
                for door in doors:
                    await echo(await door(), MB)
            assert len(stalled) == 4
        assert not stalled

    scene(go, "hive", play)
