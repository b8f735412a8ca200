"""Streams: half-close, resets, and stalled readers."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

from hived.transport.mailbox import PIECE_BYTES
from hived.transport.muxstream import MuxedStream
from tests.unit.transport.pairs import (
    STALLED_BYTES,
    WINDOW_BYTES,
    clogged,
    make_muxer,
    muxers,
    of_plane,
    plane,
    receive_all,
    receive_exactly,
    sent_and_waits,
    settle,
    sockets,
    streams,
    trio_test,
)
from tests.unit.transport.rawpeer import raw_peer


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
        nursery.start_soon(ours.send_all, bytes(2 * STALLED_BYTES))
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
        nursery.start_soon(breaks, lambda: theirs.send_all(bytes(2 * STALLED_BYTES)))
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
        await settle()
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
        await settle()
        theirs.reset()
        assert not theirs.was_reset


@trio_test
async def test_own_aclose_and_reset_wake_own_waits() -> None:
    for end in ("aclose", "reset"):
        async with streams() as (ours, _, _, _), trio.open_nursery() as nursery:

            async def closed(call: Callable[[], Awaitable[object]]) -> None:
                with pytest.raises(trio.ClosedResourceError):
                    await call()

            await clogged(ours)
            nursery.start_soon(closed, ours.receive_some)
            nursery.start_soon(closed, ours.wait_send_all_might_not_block)
            await settle()
            assert len(nursery.child_tasks) == 2
            if end == "aclose":
                await ours.aclose()
            else:
                ours.reset()
            assert ours.was_reset == (end == "reset")


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
        await settle()
        assert of_plane(theirs).inbox.allowed == 0, "flow control bounds what is held"
        assert of_plane(theirs).inbox.window == WINDOW_BYTES
        assert WINDOW_BYTES <= stalled.bytes_out <= STALLED_BYTES
        assert await receive_all(theirs) == data


@trio_test
async def test_the_data_plane_holds_64_kib_of_a_stream() -> None:
    async with raw_peer(kind="tiny") as (muxer, _), trio.open_nursery() as nursery:
        ours = [await muxer.open() for _ in range(4)]
        for stream in ours:
            nursery.start_soon(stream.send_all, bytes(10 * WINDOW_BYTES))
        await settle()
        # The peer reads nothing: one record is with the pipe, and that may be of any stream.
        assert all(sent_and_waits(stream) <= PIECE_BYTES for stream in ours)
        assert sum(stream.bytes_out for stream in ours) <= 5 * PIECE_BYTES + 8192
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
        assert WINDOW_BYTES < of_plane(theirs).inbox.window <= 4 * 2**20


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
            windows.append(of_plane(stream).inbox.window)

        async with trio.open_nursery() as inner:
            for _ in range(2):
                ours = await a.open()
                inner.start_soon(send, ours)
                inner.start_soon(receive, await b.accept())
        assert sum(windows) <= bound


@trio_test
async def test_the_rules_of_trios_half_closeable_streams() -> None:
    async with plane() as running, trio.open_nursery() as nursery:

        async def pair() -> tuple[MuxedStream, MuxedStream]:
            one, other = sockets()
            a, b = make_muxer(running, one, initiator=True), make_muxer(running, other, initiator=False)
            await nursery.start(a.run)
            await nursery.start(b.run)
            return await a.open(), await b.accept()

        # No clogged pair: send_all returns when its bytes wait in the data plane.
        await trio.testing.check_half_closeable_stream(pair, None)
        nursery.cancel_scope.cancel()
