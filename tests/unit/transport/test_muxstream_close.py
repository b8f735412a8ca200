"""Closing streams, as the docstring of ``aclose`` has it; and what is left of those that ended."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from hived.transport.mailbox import PIECE_BYTES
from tests.unit.transport.pairs import (
    STALLED_BYTES,
    WINDOW_BYTES,
    clogged,
    muxers,
    receive_all,
    settle,
    streams,
    trio_test,
)


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
        await settle()
        assert a.stream_count == 0
        with pytest.raises(trio.BrokenResourceError):
            while True:
                await theirs.send_all(bytes(10_000))
        assert theirs.bytes_out <= 2 * WINDOW_BYTES + PIECE_BYTES
        await settle()
        assert a.tunnel.session._departed.lingering == 0


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
        assert a.tunnel.session._departed.lingering == 0


@trio_test
async def test_lingering_streams_are_bounded() -> None:
    async with muxers(lingering=4) as (a, b):
        theirs = []
        for _ in range(6):
            ours = await a.open()
            theirs.append(await b.accept())
            await ours.aclose()
        await settle()
        assert a.tunnel.session._departed.lingering == 4
        assert [stream.was_reset for stream in theirs] == [True, True, False, False, False, False]


@trio_test
async def test_aclose_forcefully_closes_as_well() -> None:
    async with streams() as (ours, theirs, a, _):
        await ours.send_all(b"sent")
        await trio.aclose_forcefully(ours)
        await settle()
        assert a.stream_count == 0
        assert await receive_all(theirs) == b"sent"


@trio_test
async def test_a_peer_that_neither_reads_nor_stops_is_bounded_too() -> None:
    """Closed with data that cannot leave: what comes is discarded, and too much of it ends the stream."""
    async with streams() as (ours, theirs, a, _), trio.open_nursery() as nursery:
        assert WINDOW_BYTES <= await clogged(ours) <= STALLED_BYTES
        await ours.aclose()
        await settle()
        assert a.stream_count == 1, "something is still to be sent"

        async def send_for_ever() -> None:
            with pytest.raises(trio.BrokenResourceError):
                await theirs.send_all(bytes(100 * WINDOW_BYTES))

        nursery.start_soon(send_for_ever)
        await settle()
        assert theirs.was_reset
        assert a.stream_count == 0
        assert a.tunnel.plane.budget.buffered == 0


@trio_test
async def test_closing_with_data_still_to_send_waits_for_window() -> None:
    async with streams() as (ours, theirs, a, _):
        size = await clogged(ours)
        await ours.aclose()
        assert await receive_all(theirs) == bytes(size)
        await theirs.send_eof()
        await settle()
        assert a.stream_count == 0


@trio_test
async def test_streams_closed_with_data_to_send_are_bounded() -> None:
    async with muxers(lingering=4) as (a, b):
        theirs = []
        for _ in range(6):
            ours = await a.open()
            theirs.append(await b.accept())
            await clogged(ours)
            await ours.aclose()
        await settle()
        assert a.stream_count == 4
        assert [stream.was_reset for stream in theirs] == [True, True, False, False, False, False]


@trio_test
async def test_a_thousand_streams_leave_nothing() -> None:
    """Ended in each way that there is, from either side: by FIN, close, reset, cancellation."""
    async with muxers() as (a, b):
        running = a.tunnel.plane
        await settle()
        handlers = len(running._handlers)
        for number in range(1000):
            ours = await a.open()
            theirs = await b.accept()
            await ours.send_all(bytes(100))
            one, other = (ours, theirs) if number % 2 else (theirs, ours)
            way = number % 5
            if way == 0:
                await one.send_eof()
                await receive_all(other)
                await other.send_eof()
                await receive_all(one)
            elif way == 1:
                await one.aclose()
                await other.aclose()
            elif way == 2:
                one.reset()
            elif way == 3:
                await one.send_eof()
                await other.aclose()
            else:
                with trio.CancelScope() as scope:
                    scope.cancel()
                    await one.receive_some()
                await one.aclose()
                other.reset()
        await settle()
        for session in (a.tunnel.session, b.tunnel.session):
            assert session.streams == {}
            assert session._windows == 0
            assert session.unacknowledged == set()
            assert session._backlog == set()
            assert not session._closing
            assert not session._waiting
            assert session._departed.lingering == 0
        assert (running.budget.windows, running.budget.buffered) == (0, 0)
        assert len(running._handlers) == handlers
        assert len([timer for _, _, timer in running._timers if not timer.cancelled]) == 2, "keep-alive"
