"""A stream joined to a socket: every byte, each end, each reset, in both directions."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import trio

from hived.transport.joint import Joint, join_socket
from hived.transport.limits import MuxLimits
from hived.transport.muxstream import MuxedStream
from hived.transport.socketend import abort
from tests.unit.transport.joins import tcp_pair
from tests.unit.transport.pairs import (
    WINDOW_BYTES,
    break_soon,
    muxers,
    on_plane,
    receive_all,
    receive_exactly,
    settle,
    trio_test,
)


@dataclass
class Joined:
    """``client`` - local socket - ``near`` stream - connection - ``far`` stream."""

    client: trio.SocketStream
    far: MuxedStream
    joint: Joint


@asynccontextmanager
async def joined(early: bytes = b"", unread: bytes = b"", **limits: Any) -> AsyncIterator[Joined]:
    """``early`` was sent on the stream before the join; ``unread`` had come."""
    async with muxers(**limits) as (a, b):
        near, far = await a.open(), await b.accept()
        await near.send_all(early)
        await far.send_all(unread)
        await settle()
        client, local = tcp_pair()
        running = a.tunnel.plane
        handlers = len(running._handlers)
        joint = join_socket(running, near, local)
        with pytest.raises(trio.ClosedResourceError):
            await near.send_all(b"x")
        yield Joined(client, far, joint)
        client.socket.close()
        far.reset()
        await settle()
        assert len(running._handlers) == handlers
        assert (a.stream_count, b.stream_count) == (0, 0)
        assert (running.budget.windows, running.budget.buffered) == (0, 0)
        assert local.fileno() < 0


@trio_test
async def test_bytes_and_half_closes_pass_both_ways() -> None:
    """The client ends its side first and still gets the whole answer; the counters count."""
    async with joined() as found:
        await found.client.send_all(b"question")
        await found.client.send_eof()
        assert await receive_all(found.far) == b"question"
        await found.far.send_all(b"answer" * 1000)
        await found.far.send_eof()
        assert await receive_all(found.client) == b"answer" * 1000
        await found.joint.wait()
        assert (found.joint.bytes_out, found.joint.bytes_in) == (8, 6000)


@trio_test
async def test_the_streams_end_may_come_first() -> None:
    async with joined() as found:
        await found.far.send_eof()
        assert await found.client.receive_some() == b""
        await found.client.send_all(b"late")
        await found.client.send_eof()
        assert await receive_all(found.far) == b"late"
        await found.joint.wait()


@pytest.mark.parametrize("size", [1, 70_000, 200_000])
@trio_test
async def test_what_was_sent_and_not_read_before_the_join_comes_first(size: int) -> None:
    """Whether trio had it in its hands, it was on the way there, or the window held it."""
    early, unread = os.urandom(min(size, 65536)), os.urandom(size)
    async with joined(early, unread) as found:
        await found.client.send_all(b"and more")
        await found.far.send_all(b"and more")
        await found.client.send_eof()
        await found.far.send_eof()
        assert await receive_all(found.far) == early + b"and more"
        assert await receive_all(found.client) == unread + b"and more"
        await found.joint.wait()


@trio_test
async def test_what_trio_had_read_in_part_is_not_lost() -> None:
    async with muxers() as (a, b):
        near, far = await a.open(), await b.accept()
        data = os.urandom(150_000)
        await far.send_all(data)
        await far.send_eof()
        assert await receive_exactly(near, 1000) == data[:1000]
        client, local = tcp_pair()
        joint = join_socket(a.tunnel.plane, near, local)
        assert await receive_all(client) == data[1000:]
        await client.send_eof()
        await joint.wait()
        client.socket.close()


@trio_test
async def test_what_was_on_its_way_to_trio_is_not_lost() -> None:
    """Handed over by the data plane, and trio has not run since."""
    async with muxers() as (a, b):
        near, far = await a.open(), await b.accept()
        await settle()
        await far.send_all(b"on the way")
        while not near.mailbox._pieces:
            # Blocks trio, on purpose.
            time.sleep(0.001)  # noqa: ASYNC251
        client, local = tcp_pair()
        joint = join_socket(a.tunnel.plane, near, local)
        await far.send_eof()
        assert await receive_all(client) == b"on the way"
        await client.send_eof()
        await joint.wait()
        client.socket.close()


@trio_test
async def test_megabytes_each_way_at_once() -> None:
    data = os.urandom(20_000_000)
    digest = hashlib.sha256(data).digest()
    async with joined() as found:
        got: dict[str, bytes] = {}

        async def write(stream: trio.abc.HalfCloseableStream) -> None:
            await stream.send_all(data)
            await stream.send_eof()

        async def read(name: str, stream: trio.abc.ReceiveStream) -> None:
            got[name] = hashlib.sha256(await receive_all(stream)).digest()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write, found.client)
            nursery.start_soon(write, found.far)
            nursery.start_soon(read, "client", found.client)
            nursery.start_soon(read, "far", found.far)
        await found.joint.wait()
        assert got == {"client": digest, "far": digest}
        assert found.joint.bytes_in == found.joint.bytes_out == len(data)


@trio_test
async def test_a_reset_of_the_client_is_a_reset_of_the_stream() -> None:
    async with joined() as found:
        await found.client.send_all(b"x")
        assert await found.far.receive_some() == b"x"
        abort(found.client.socket._sock)  # type: ignore[attr-defined]  # the one that trio wraps
        with pytest.raises(trio.BrokenResourceError):
            await found.far.receive_some()
        with pytest.raises(trio.BrokenResourceError):
            await found.joint.wait()


@trio_test
async def test_a_reset_of_the_stream_is_a_reset_of_the_client() -> None:
    async with joined() as found:
        found.far.reset()
        with pytest.raises(trio.BrokenResourceError):
            await found.client.receive_some()
        with pytest.raises(trio.BrokenResourceError, match="reset"):
            await found.joint.wait()


@trio_test
async def test_a_cancelled_wait_is_a_reset_of_both() -> None:
    async with joined() as found:
        await found.client.send_all(b"x")
        assert await found.far.receive_some() == b"x"
        with trio.CancelScope() as scope:
            scope.cancel()
            await found.joint.wait()
        with pytest.raises(trio.BrokenResourceError):
            await found.far.receive_some()
        with pytest.raises(trio.BrokenResourceError):
            await found.client.receive_some()


@trio_test
async def test_the_loss_of_the_connection_is_a_reset_of_the_client() -> None:
    async with muxers() as (a, b):
        near, far = await a.open(), await b.accept()
        client, local = tcp_pair()
        joint = join_socket(a.tunnel.plane, near, local)
        await far.send_all(b"x")
        assert await client.receive_some() == b"x"
        await b.aclose()
        with pytest.raises(trio.BrokenResourceError):
            await joint.wait()
        with pytest.raises(trio.BrokenResourceError):
            await client.receive_some()
        client.socket.close()


@pytest.mark.parametrize("unread", [False, True])
@trio_test
async def test_a_stream_that_ended_before_the_join(unread: bool) -> None:
    """It breaks while the join is on its way: the client hears of it, and nothing is left."""
    async with muxers() as (a, b):
        running = a.tunnel.plane
        near, far = await a.open(), await b.accept()
        if unread:
            await far.send_all(bytes(200_000))
            await settle()
        client, local = tcp_pair()
        stream = near.mailbox.stream
        assert stream is not None
        break_soon(running, stream)
        joint = join_socket(running, near, local)
        with pytest.raises(trio.BrokenResourceError, match="ended"):
            await joint.wait()
        with pytest.raises(trio.BrokenResourceError):
            await client.receive_some()
        await settle()
        assert (running.budget.windows, running.budget.buffered) == (0, 0)
        client.socket.close()


@trio_test
async def test_only_who_may_send_may_join() -> None:
    async with muxers() as (a, b):
        near, _ = await a.open(), await b.accept()
        await near.send_eof()
        client, local = tcp_pair()
        with pytest.raises(trio.ClosedResourceError):
            join_socket(a.tunnel.plane, near, local)
        assert local.fileno() >= 0, "the caller's still"
        local.close()
        client.socket.close()


@trio_test
async def test_a_reader_that_does_not_read_stops_the_writer() -> None:
    """Back-pressure both ways: what is under way is bounded, and comes in the end."""
    async with joined() as found:
        budget = found.joint.plane.budget

        async def flood(stream: trio.abc.SendStream) -> int:
            sent = 0
            with trio.move_on_after(0.5):
                while True:
                    await stream.send_all(bytes(65536))
                    sent += 65536
            return sent

        await flood(found.client)
        await settle()
        assert budget.buffered <= 4 * WINDOW_BYTES
        taken = found.joint.bytes_out
        # A whole window of the connection, and what the kernel holds of the client's.
        assert taken <= 4 * WINDOW_BYTES
        with trio.fail_after(10):
            await receive_exactly(found.far, taken)
        await flood(found.far)
        await settle()
        assert found.joint.bytes_in < 16_000_000, "what the kernel has taken"
        # A window each way, grown while the kernel took it.
        assert budget.buffered <= 2 * MuxLimits().max_window
        taken = found.joint.bytes_in
        with trio.fail_after(10):
            await receive_exactly(found.client, taken)


@trio_test
async def test_the_client_half_closes_and_is_lost_later() -> None:
    async with joined() as found:
        await found.client.send_all(b"x")
        await found.client.send_eof()
        assert await receive_all(found.far) == b"x"
        abort(found.client.socket._sock)  # type: ignore[attr-defined]  # the one that trio wraps
        with pytest.raises(trio.BrokenResourceError):
            while True:
                await found.far.send_all(bytes(1000))
                await settle()


@trio_test
async def test_idle_is_no_error() -> None:
    async with joined(keep_alive=0.05, keep_alive_timeout=0.3) as found:
        await trio.sleep(1)
        await found.client.send_all(b"still")
        assert await receive_exactly(found.far, 5) == b"still"
        assert await on_plane(found.joint.plane, lambda: found.joint._over) is False
