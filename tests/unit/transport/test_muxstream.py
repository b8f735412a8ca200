"""Streams: half-close, cancellation, resets, closing, and stalled readers."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

from hived.transport.muxer import Muxer
from hived.transport.muxstream import MuxedStream
from tests.unit.transport.pairs import (
    WINDOW_BYTES,
    muxers,
    pipes,
    raw_peer,
    receive_all,
    receive_exactly,
    streams,
    trio_test,
)

settle = trio.testing.wait_all_tasks_blocked


@trio_test
async def test_half_close_both_ways() -> None:
    async with streams() as (ours, theirs, a, b):
        await ours.send_all(b"question")
        await ours.send_eof()
        assert await receive_all(theirs) == b"question"
        assert await theirs.receive_some() == b"", "EOF stays"
        await theirs.send_all(b"answer")
        await theirs.send_eof()
        assert await receive_all(ours) == b"answer"
        await settle()
        assert a.stream_count == b.stream_count == 0
        assert not ours.was_reset
        assert not theirs.was_reset
        assert (ours.bytes_out, ours.bytes_in) == (8, 6) == (theirs.bytes_in, theirs.bytes_out)


@trio_test
async def test_what_came_before_the_end_outlives_the_stream() -> None:
    async with streams() as (ours, theirs, _, b):
        await ours.send_all(b"last words")
        await ours.aclose()
        await theirs.send_eof()
        await settle()
        assert b.stream_count == 0
        await b.aclose()
        assert await receive_all(theirs) == b"last words"


@trio_test
async def test_max_bytes() -> None:
    async with streams() as (ours, theirs, _, _):
        await ours.send_all(b"abcdef")
        assert await theirs.receive_some(2) == b"ab"
        assert await theirs.receive_some(1) == b"c"
        assert await theirs.receive_some() == b"def"
        with pytest.raises(ValueError):
            await theirs.receive_some(0)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
@trio_test
async def test_any_buffer_is_the_callers_again_after_send_all(kind: Callable[[bytes], bytes]) -> None:
    async with streams() as (ours, theirs, _, _):
        data = kind(b"before")
        await ours.send_all(data)
        if isinstance(data, bytearray):
            data[:] = b"after!"
        await ours.send_all(b"")
        assert await receive_exactly(theirs, 6) == b"before"


@trio_test
async def test_after_our_own_end_sending_fails() -> None:
    async with streams() as (ours, _, _, _):
        await ours.send_eof()
        await ours.send_eof()
        for call in (ours.send_all(b"x"), ours.wait_send_all_might_not_block()):
            with pytest.raises(trio.ClosedResourceError):
                await call
        await ours.aclose()
        calls: list[Awaitable[object]] = [ours.send_all(b"x"), ours.send_eof(), ours.receive_some()]
        for each in calls:
            with pytest.raises(trio.ClosedResourceError):
                await each
        await ours.aclose()


@trio_test
async def test_two_at_once_in_one_direction_are_busy() -> None:
    async with streams() as (ours, _, _, _), trio.open_nursery() as nursery:
        nursery.start_soon(ours.receive_some)
        nursery.start_soon(ours.send_all, bytes(WINDOW_BYTES + 1))
        await settle()
        for call in (
            ours.receive_some(),
            ours.send_all(b"x"),
            ours.send_eof(),
            ours.wait_send_all_might_not_block(),
        ):
            with pytest.raises(trio.BusyResourceError):
                await call
        nursery.cancel_scope.cancel()


@trio_test
async def test_a_reset_is_seen_at_once() -> None:
    async with streams() as (ours, theirs, a, b), trio.open_nursery() as nursery:
        broken: list[str] = []

        async def breaks(call: Callable[[], Awaitable[object]]) -> None:
            with pytest.raises(trio.BrokenResourceError, match="reset"):
                await call()
            broken.append("seen")

        await ours.send_all(b"never read")
        await theirs.send_all(bytes(WINDOW_BYTES))
        nursery.start_soon(breaks, lambda: theirs.send_all(b"waits for window"))
        await settle()
        ours.reset()
        await settle()
        assert broken == ["seen"]
        nursery.start_soon(breaks, theirs.receive_some)
        nursery.start_soon(breaks, theirs.send_eof)
        await settle()
        assert len(broken) == 3
        assert ours.was_reset
        assert theirs.was_reset
        with pytest.raises(trio.ClosedResourceError):
            await ours.receive_some()
        with pytest.raises(trio.ClosedResourceError):
            await ours.send_all(b"")
        await theirs.aclose()
        assert a.stream_count == b.stream_count == 0


@trio_test
async def test_reset_after_a_clean_end_or_aclose_does_nothing() -> None:
    async with streams() as (ours, theirs, _, _):
        await ours.send_all(b"all of it")
        await ours.aclose()
        ours.reset()
        assert not ours.was_reset
        assert await receive_all(theirs) == b"all of it"
        await theirs.send_eof()
        theirs.reset()
        assert not theirs.was_reset


@trio_test
async def test_own_aclose_and_reset_wake_own_waits() -> None:
    for end in ("aclose", "reset"):
        async with streams() as (ours, _, _, _), trio.open_nursery() as nursery:

            async def closed(call: Callable[[], Awaitable[object]]) -> None:
                with pytest.raises(trio.ClosedResourceError):
                    await call()

            await ours.send_all(bytes(WINDOW_BYTES))
            nursery.start_soon(closed, ours.receive_some)
            nursery.start_soon(closed, ours.wait_send_all_might_not_block)
            await settle()
            if end == "aclose":
                await ours.aclose()
            else:
                ours.reset()
            assert ours.was_reset == (end == "reset")


@trio_test
async def test_a_cancelled_send_leaves_everything_else_alone() -> None:
    async with muxers() as (a, b):
        ours, neighbour = await a.open(), await a.open()
        theirs, their_neighbour = await b.accept(), await b.accept()
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ours.send_all, bytes(2 * WINDOW_BYTES))
                await settle()
                scope.cancel()
        await neighbour.send_all(b"alive")
        assert await receive_exactly(their_neighbour, 5) == b"alive"
        # A prefix came, and the stream goes on behind it.
        assert await receive_exactly(theirs, WINDOW_BYTES) == bytes(WINDOW_BYTES)
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


@pytest.mark.parametrize("kind", ["memory", "socket"])
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
async def test_a_stalled_reader_stalls_only_itself() -> None:
    async with muxers("socket") as (a, b), trio.open_nursery() as nursery:
        stalled, lively = await a.open(), await a.open()
        theirs, their_lively = await b.accept(), await b.accept()
        data = random.Random(1).randbytes(3 * WINDOW_BYTES)

        async def send_stalled() -> None:
            await stalled.send_all(data)
            await stalled.send_eof()

        async def send_lively() -> None:
            for _ in range(64):
                await lively.send_all(bytes(65536))
            await lively.send_eof()

        nursery.start_soon(send_stalled)
        nursery.start_soon(send_lively)
        assert len(await receive_all(their_lively)) == 64 * 65536
        assert theirs.inbox.buffered == WINDOW_BYTES, "flow control bounds what is held"
        assert stalled.bytes_out == WINDOW_BYTES
        assert await receive_all(theirs) == data


@trio_test
async def test_the_writer_holds_64_kib_of_a_stream() -> None:
    async with raw_peer(kind="lockstep") as (muxer, _), trio.open_nursery() as nursery:
        ours = [await muxer.open() for _ in range(4)]
        for stream in ours:
            nursery.start_soon(stream.send_all, bytes(10 * WINDOW_BYTES))
        await settle()
        # The peer reads nothing: one batch is with the pipe, and that may be of any stream.
        assert all(stream.lane.queued <= 64 * 1024 for stream in ours)
        assert sum(stream.bytes_out for stream in ours) <= 5 * 64 * 1024
        nursery.cancel_scope.cancel()


@trio_test
async def test_windows_grow_for_a_reader_that_keeps_up() -> None:
    async with streams("socket") as (ours, theirs, _, _), trio.open_nursery() as nursery:

        async def send() -> None:
            for _ in range(1000):
                await ours.send_all(bytes(65536))
            await ours.send_eof()

        nursery.start_soon(send)
        total = 0
        while data := await theirs.receive_some():
            total += len(data)
        assert total == 1000 * 65536
        assert WINDOW_BYTES < theirs.inbox.window <= 4 * 2**20


@trio_test
async def test_windows_do_not_grow_above_the_bound_of_the_connection() -> None:
    bound = 3 * WINDOW_BYTES
    async with muxers("socket", max_windows=bound) as (a, b):

        async def send(stream: MuxedStream) -> None:
            for _ in range(100):
                await stream.send_all(bytes(65536))
            await stream.send_eof()

        windows: list[int] = []

        async def receive(stream: MuxedStream) -> None:
            await receive_all(stream)
            windows.append(stream.inbox.window)

        async with trio.open_nursery() as inner:
            for _ in range(2):
                ours = await a.open()
                inner.start_soon(send, ours)
                inner.start_soon(receive, await b.accept())
        assert sum(windows) <= bound


# aclose, as its docstring has it


@trio_test
async def test_aclose_delivers_what_was_sent_although_the_peer_still_sends() -> None:
    async with streams() as (ours, theirs, _, b):
        await theirs.send_all(b"request, half of it")
        await ours.send_all(b"refused")
        await ours.aclose()
        await theirs.send_all(bytes(1000))
        await settle()
        assert await receive_all(theirs) == b"refused"
        await theirs.send_eof()
        await settle()
        assert b.stream_count == 0
        assert not theirs.was_reset


@trio_test
async def test_a_peer_that_goes_on_sending_is_reset() -> None:
    async with streams() as (ours, theirs, a, _):
        await ours.aclose()
        assert a.stream_count == 0
        with pytest.raises(trio.BrokenResourceError):
            while True:
                await theirs.send_all(bytes(10_000))
        assert theirs.bytes_out <= 2 * WINDOW_BYTES
        assert a._session._departed.lingering == 0


@trio_test
async def test_a_peer_that_waits_for_window_is_told_too() -> None:
    async with streams() as (ours, theirs, a, _), trio.open_nursery() as nursery:

        async def send_for_ever() -> None:
            with pytest.raises(trio.BrokenResourceError):
                await theirs.send_all(bytes(100 * WINDOW_BYTES))

        nursery.start_soon(send_for_ever)
        await settle()
        await ours.aclose()
        await settle()
        assert theirs.was_reset
        assert a._session._departed.lingering == 0


@trio_test
async def test_lingering_streams_are_bounded() -> None:
    async with muxers(lingering=4) as (a, b):
        theirs = []
        for _ in range(6):
            ours = await a.open()
            theirs.append(await b.accept())
            await ours.aclose()
        await settle()
        assert a._session._departed.lingering == 4
        assert [stream.was_reset for stream in theirs] == [True, True, False, False, False, False]


@trio_test
async def test_aclose_forcefully_closes_as_well() -> None:
    async with streams() as (ours, theirs, a, _):
        await ours.send_all(b"sent")
        await trio.aclose_forcefully(ours)
        assert a.stream_count == 0
        assert await receive_all(theirs) == b"sent"


@trio_test
async def test_the_rules_of_trios_half_closeable_streams() -> None:
    async with trio.open_nursery() as nursery:

        async def pair() -> tuple[MuxedStream, MuxedStream]:
            one, other = pipes("memory")
            a, b = Muxer(one, initiator=True), Muxer(other, initiator=False)
            await nursery.start(a.run)
            await nursery.start(b.run)
            return await a.open(), await b.accept()

        await trio.testing.check_half_closeable_stream(pair, None)
        nursery.cancel_scope.cancel()
