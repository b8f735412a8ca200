"""Hive's transport with js-libp2p: much data, half-closes, many streams, stalled readers, resets."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import trio

from hived.overlay.connection import Connection
from hived.overlay.identify import IDENTIFY, PING
from hived.transport.muxstream import MuxedStream
from tests.integration.peer import act
from tests.interop.end import End, hive_end
from tests.interop.services import MB, STALL_SECONDS, download, echo, everything, ping, upload
from tests.interop.stock import JS_PROTOCOL, Stock

pytestmark = pytest.mark.requires("js-libp2p")


@dataclass(frozen=True)
class Meeting:
    """A connection between Hive's end and js-libp2p, with what either side does on it."""

    js: Stock
    end: End
    connection: Connection

    async def open(self, service: str) -> MuxedStream:
        return await self.connection.open_stream(self.end.name(service))

    async def ask(self, command: str, **arguments: Any) -> Any:
        """What js-libp2p opens streams for."""
        return await self.js.ask(command, peer=self.end.peer_id, **arguments)


@asynccontextmanager
async def meeting(js: Stock, dialer: str) -> AsyncIterator[Meeting]:
    async with hive_end(JS_PROTOCOL) as end:
        if dialer == "hive":
            connection = await end.host.dial(js.address, js.peer_id)
            await js.ask("dialled", peer=end.peer_id)
        else:
            arrived = trio.Event()
            end.host.on_connected.append(lambda connection: arrived.set())
            await js.ask("dial", address=end.address)
            await arrived.wait()
            (connection,) = end.host.all_connections()
        yield Meeting(js, end, connection)


@pytest.fixture(params=["hive", "js"])
def dialer(request: pytest.FixtureRequest) -> str:
    """Who has dialled: it decides whose streams have odd numbers, and the roles in the handshake."""
    return str(request.param)


def scene(js: Stock, dialer: str, play: Callable[[Meeting], Awaitable[None]]) -> None:
    async def played() -> None:
        async with meeting(js, dialer) as met:
            await play(met)

    act(played, 60)


def test_ping_and_identify(js: Stock, dialer: str) -> None:
    async def play(met: Meeting) -> None:
        await ping(await met.connection.open_stream(PING))
        stream = await met.connection.open_stream(IDENTIFY)
        await stream.send_eof()
        assert b"js-libp2p" in await everything(stream)
        assert await met.ask("ping") >= 0
        found = await met.ask("identify")
        assert found["peer"] == met.end.peer_id

    scene(js, dialer, play)


def test_100_megabytes_on_streams_of_hive(js: Stock, dialer: str) -> None:
    async def play(met: Meeting) -> None:
        await upload(await met.open("sink"), 100 * MB)
        sent = await download(await met.open("source"), 100 * MB, after=MB)
        assert (await met.js.ask("told"))["sha256"] == sent

    scene(js, dialer, play)


def test_100_megabytes_on_streams_of_js(js: Stock, dialer: str) -> None:
    async def play(met: Meeting) -> None:
        up = await met.ask("upload", service="sink", size=100 * MB)
        assert up["sent"] == up["told"]
        down = await met.ask("download", size=100 * MB, after=MB)
        assert down["got"] == down["told"]
        assert (await met.end.services.told.receive())["sha256"] == down["sent"]

    scene(js, dialer, play)


@pytest.mark.parametrize("size", [0, 1, 10, 65_000])
def test_little_and_the_end_at_once(js: Stock, size: int) -> None:
    """The last bytes and the end of a side come together; what comes the other way is still whole."""

    async def play(met: Meeting) -> None:
        for _ in range(20):
            await upload(await met.open("sink"), size)
            sent = await download(await met.open("source"), size, after=size)
            assert (await met.js.ask("told"))["sha256"] == sent
            up = await met.ask("upload", service="sink", size=size)
            assert up["sent"] == up["told"]
            down = await met.ask("download", size=size, after=size)
            assert down["got"] == down["told"]
            assert (await met.end.services.told.receive())["sha256"] == down["sent"]

    scene(js, "hive", play)


def test_64_streams_of_each_at_once(js: Stock, dialer: str) -> None:
    async def play(met: Meeting) -> None:
        async def one() -> None:
            await echo(await met.open("echo"), MB // 4)

        async with trio.open_nursery() as nursery:
            for _ in range(64):
                nursery.start_soon(one)
            assert await met.ask("echo", streams=64, size=MB // 4) == [True] * 64

    scene(js, dialer, play)


def test_a_stalled_reader_stops_nobody_else(js: Stock) -> None:
    """On both sides at once: each does not read one stream for 10 s, while others go on."""

    async def play(met: Meeting) -> None:
        stalled = {"ours", "theirs", "their own"}

        async def ours() -> None:
            await download(await met.open("source"), 8 * MB, stall=STALL_SECONDS)
            stalled.discard("ours")

        async def theirs() -> None:
            await upload(await met.open("slow"), 8 * MB)
            stalled.discard("theirs")

        async def their_own() -> None:
            up = await met.ask("upload", service="slow", size=8 * MB)
            assert up["sent"] == up["told"]
            stalled.discard("their own")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ours)
            nursery.start_soon(theirs)
            nursery.start_soon(their_own)
            for _ in range(10):
                await echo(await met.open("echo"), MB)
                assert await met.ask("echo", streams=2, size=MB // 2) == [True] * 2
            assert len(stalled) == 3
        assert not stalled
        await met.js.ask("told")

    scene(js, "hive", play)


def test_a_reset_is_seen_as_one(js: Stock, dialer: str) -> None:
    async def play(met: Meeting) -> None:
        # Of a stream of ours, by them and by us.
        stream = await met.open("reset")
        await stream.send_all(b"x")
        with pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()
        assert stream.was_reset
        stream = await met.open("hold")
        await stream.send_all(b"x")
        assert await stream.receive_some() == b"held"
        stream.reset()
        assert await met.js.ask("told") == {"service": "hold", "end": "reset"}
        # Of a stream of theirs, by us and by them.
        assert await met.ask("aborted") == "reset"
        await met.ask("abort")
        assert await met.end.services.told.receive() == {"service": "hold", "end": "reset"}
        # The connection is none the worse for it.
        await echo(await met.open("echo"), MB)

    scene(js, dialer, play)
