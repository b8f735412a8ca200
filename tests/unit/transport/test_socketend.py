"""A socket at the end of a stream: what its events and its stream's do to it, one by one."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
import trio

from hived.transport.muxstream import MuxedStream
from hived.transport.plane import Plane
from hived.transport.socketend import SocketEnd, abort
from hived.transport.stream import Stream
from tests.unit.transport.joins import tcp_pair
from tests.unit.transport.pairs import (
    muxers,
    on_plane,
    receive_exactly,
    settle,
    trio_test,
)


@dataclass
class Traffic:
    bytes_in: int = 0
    bytes_out: int = 0


class Ended(SocketEnd):
    """Keeps what it is told of its end."""

    __slots__ = ("said",)

    def __init__(self, plane: Plane, stream: Stream | None, sock: socket.socket, traffic: Traffic) -> None:
        super().__init__(plane, stream, sock, traffic)
        self.said: list[str | None] = []

    def ended(self, why: str | None) -> None:
        self.said.append(why)


@dataclass
class Wired:
    running: Plane
    client: trio.SocketStream
    sock: socket.socket
    end: Ended
    far: MuxedStream
    traffic: Traffic = field(default_factory=Traffic)


@asynccontextmanager
async def wired() -> AsyncIterator[Wired]:
    """A client's connection - its local socket at the end of a stream - the stream's other end."""
    async with muxers() as (a, b):
        running = a.tunnel.plane
        client, sock = tcp_pair()
        sock.setblocking(False)
        traffic = Traffic()

        def begin() -> Ended:
            end = Ended(running, a.tunnel.session.open(), sock, traffic)
            end.start()
            return end

        end = await on_plane(running, begin)
        number = sock.fileno()
        yield Wired(running, client, sock, end, await b.accept(), traffic)
        client.socket.close()
        await settle()
        assert sock.fileno() < 0
        assert len(end.said) == 1, "told once"
        assert number not in running._handlers
        assert running.budget.buffered == 0


@trio_test
async def test_it_ends_in_order_when_both_sides_have() -> None:
    async with wired() as found:
        await found.client.send_all(b"up")
        await found.client.send_eof()
        await settle()
        assert found.end.said == []
        await found.far.send_all(b"down")
        await found.far.send_eof()
        assert await receive_exactly(found.client, 4) == b"down"
        await settle()
        assert found.end.said == [None]
        assert (found.traffic.bytes_out, found.traffic.bytes_in) == (2, 4)


@pytest.mark.parametrize("how", ["client resets", "peer resets", "cut", "crashed"])
@trio_test
async def test_any_other_end_has_a_reason_and_is_a_reset_of_both(how: str) -> None:
    async with wired() as found:
        await found.client.send_all(b"x")
        assert await receive_exactly(found.far, 1) == b"x"
        if how == "client resets":
            abort(found.client.socket._sock)  # type: ignore[attr-defined]  # the one that trio wraps
        elif how == "peer resets":
            found.far.reset()
        else:
            found.running.call(found.end.cut if how == "cut" else found.end.crashed)
            found.running.call(found.end.cut)
        await settle()
        (why,) = found.end.said
        assert why
        if how != "peer resets":
            with pytest.raises(trio.BrokenResourceError):
                await found.far.receive_some()
        if how != "client resets":
            with pytest.raises(trio.BrokenResourceError):
                await found.client.receive_some()


@trio_test
async def test_a_slow_client_gets_everything_although_the_stream_has_ended() -> None:
    """Both sides have said FIN, and the stream is off its connection's table; the rest is still to write."""
    async with wired() as found:
        await found.client.send_eof()
        size = 0
        with trio.move_on_after(0.3):
            while True:
                await found.far.send_all(bytes(16384))
                size += 16384
        size = found.far.bytes_out
        await settle()
        taken = found.traffic.bytes_in
        assert taken < size, "the client must be too slow for this test"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive_exactly, found.client, size)
        await found.far.send_eof()
        await settle()
        assert found.end.said == [None]


@trio_test
async def test_a_client_that_writes_and_goes_loses_nothing() -> None:
    """Data and both kinds of hang-up in one event."""
    async with wired() as found:
        await on_plane(found.running, lambda: None)
        found.client.socket._sock.setblocking(True)  # type: ignore[attr-defined]  # the one that trio wraps
        found.client.socket._sock.sendall(bytes(100_000))  # type: ignore[attr-defined]
        found.client.socket._sock.shutdown(socket.SHUT_WR)  # type: ignore[attr-defined]
        assert await receive_exactly(found.far, 100_000) == bytes(100_000)
        assert await found.far.receive_some() == b""
        await found.far.send_eof()
        await settle()
        assert found.end.said == [None]


@trio_test
async def test_the_peers_end_waits_for_what_the_client_has_not_taken() -> None:
    async with wired() as found:
        await found.far.send_all(b"all of it")
        await found.far.send_eof()
        assert await receive_exactly(found.client, 9) == b"all of it"
        assert await found.client.receive_some() == b""
        await found.client.send_eof()
        await settle()
        assert found.end.said == [None]


@trio_test
async def test_the_loss_of_the_connection_behind_the_peers_end_leaves_nothing() -> None:
    async with muxers() as (a, b):
        running = a.tunnel.plane
        client, sock = tcp_pair()
        sock.setblocking(False)

        def begin() -> Ended:
            end = Ended(running, a.tunnel.session.open(), sock, Traffic())
            end.start()
            return end

        end = await on_plane(running, begin)
        far = await b.accept()
        with trio.move_on_after(0.3):
            while True:
                await far.send_all(bytes(16384))
        await settle()
        assert running.budget.buffered > 0
        await far.send_eof()
        stream = end.stream
        assert stream is not None
        # The last of it leaves with the FIN once there is window: so much is read first.
        while not stream.got_fin:
            await client.receive_some()
            await settle()
        assert running.budget.buffered > 0
        running.call(b.tunnel.end_now)
        await a.closed.wait()
        await settle()
        assert len(end.said) == 1
        assert end.said[0]
        assert running.budget.buffered == 0
        client.socket.close()
