"""Cancelling what a stream's task waits for: nothing lost, nothing torn, nobody else harmed."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

from hived.transport.muxstream import MuxedStream
from tests.unit.transport.pairs import (
    STALLED_BYTES,
    WINDOW_BYTES,
    muxers,
    receive_all,
    receive_exactly,
    settle,
    streams,
    trio_test,
)


@trio_test
async def test_a_cancelled_send_leaves_everything_else_alone() -> None:
    async with muxers() as (a, b):
        ours, neighbour = await a.open(), await a.open()
        theirs, their_neighbour = await b.accept(), await b.accept()
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ours.send_all, bytes(3 * WINDOW_BYTES))
                await settle()
                scope.cancel()
        await neighbour.send_all(b"alive")
        assert await receive_exactly(their_neighbour, 5) == b"alive"
        # A prefix came, and the stream goes on behind it.
        prefix = ours.bytes_out
        assert 0 < prefix < 3 * WINDOW_BYTES
        assert await receive_exactly(theirs, prefix) == bytes(prefix)
        await ours.send_all(b"more")
        assert await receive_exactly(theirs, 4) == b"more"
        assert not a.closed.is_set()


@trio_test
async def test_what_was_torn_never_looks_complete() -> None:
    async with streams() as (ours, theirs, _, _):
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ours.send_all, bytes(2 * WINDOW_BYTES))
                await settle()
                scope.cancel()
        await ours.aclose()
        with pytest.raises(trio.BrokenResourceError):
            await receive_all(theirs)


@trio_test
async def test_a_send_cancelled_before_its_first_byte_tears_nothing() -> None:
    async with streams() as (ours, theirs, _, _):
        with trio.CancelScope() as scope:
            scope.cancel()
            await ours.send_all(b"never")
        assert ours.bytes_out == 0
        await ours.aclose()
        assert await receive_all(theirs) == b""


@trio_test
async def test_a_cancelled_receive_loses_nothing() -> None:
    async with streams() as (ours, theirs, _, _):
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(theirs.receive_some)
                await settle()
                scope.cancel()
        await ours.send_all(b"kept")
        assert await receive_exactly(theirs, 4) == b"kept"


@pytest.mark.parametrize("kind", ["tiny", "socket"])
@trio_test
async def test_cancel_storm(kind: str) -> None:
    """Sends and receives cancelled at random: what arrives is what ``bytes_out`` says was sent."""
    noise = random.Random(7)
    async with muxers(kind) as (a, b):

        async def sender(stream: MuxedStream, data: bytes) -> None:
            while stream.bytes_out < len(data):
                rest = data[stream.bytes_out :]
                with trio.move_on_after(noise.choice([0, 0, 0.0005, 0.002])):
                    await stream.send_all(rest[: noise.randrange(1, 200_000)])
            await stream.send_eof()

        async def receiver(stream: MuxedStream, data: bytes) -> None:
            got = b""
            while True:
                with trio.move_on_after(noise.choice([0, 0.0005, 0.002])):
                    part = await stream.receive_some(noise.randrange(1, 100_000))
                    if not part:
                        break
                    got += part
            assert got == data

        async with trio.open_nursery() as nursery:
            for number in range(8):
                data = random.Random(number).randbytes(700_000)
                ours = await a.open()
                theirs = await b.accept()
                nursery.start_soon(sender, ours, data)
                nursery.start_soon(receiver, theirs, data)
        assert not a.closed.is_set()
        assert not b.closed.is_set()


@trio_test
async def test_cancel_at_any_await_harms_neither_connection_nor_neighbours() -> None:
    """Each call is cancelled before it begins, in its first checkpoint, and while it waits."""
    async with muxers() as (a, b):
        neighbour, theirs_of_neighbour = await a.open(), await b.accept()

        async def cancelled(call: Callable[[], Awaitable[object]], after: str) -> None:
            with trio.CancelScope() as scope:
                if after == "nothing":
                    scope.cancel()
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(call)
                    if after == "a checkpoint":
                        await trio.lowlevel.checkpoint()
                    elif after == "rest":
                        await settle()
                    scope.cancel()

        async def open_one() -> None:
            (await a.open()).reset()

        async def accept_one() -> None:
            (await b.accept()).reset()

        for after in ("nothing", "a checkpoint", "rest"):
            ours, theirs = await a.open(), await b.accept()
            calls: list[Callable[[], Awaitable[object]]] = [
                open_one,
                accept_one,
                ours.receive_some,
                lambda ours=ours: ours.send_all(bytes(2 * STALLED_BYTES)),  # type: ignore[misc]
                ours.wait_send_all_might_not_block,
                ours.wait_broken,
                ours.send_eof,
                ours.aclose,
            ]
            for call in calls:
                await cancelled(call, after)
                await neighbour.send_all(b"alive")
                assert await receive_exactly(theirs_of_neighbour, 5) == b"alive"
            await theirs.aclose()
            await settle()
            assert a.stream_count == b.stream_count == 1
        assert not a.closed.is_set()
        assert not b.closed.is_set()
