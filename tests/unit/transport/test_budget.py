"""What all connections hold together: counted to the byte, and given back in each way that a stream ends."""

from __future__ import annotations

import pytest
import trio

from hived.transport.budget import Budget
from hived.transport.muxstream import MuxedStream
from tests.unit.transport.pairs import (
    DATA,
    FIN,
    RST,
    SYN,
    WINDOW,
    WINDOW_BYTES,
    of_plane,
    plane,
    receive_exactly,
    settle,
    streams,
    trio_test,
)
from tests.unit.transport.rawpeer import raw, raw_peer


def test_windows_grow_while_there_is_room_and_no_pressure() -> None:
    budget = Budget(max_windows=100, pressure=10, max_buffered=20)
    budget.windows = 40
    assert budget.allows(60)
    assert not budget.allows(61)
    budget.buffered = 10
    assert budget.allows(60)
    budget.buffered = 11
    assert budget.pressed
    assert not budget.allows(1)
    assert not budget.exhausted
    budget.buffered = 21
    assert budget.exhausted


@pytest.mark.parametrize("ended_by_peer", [False, True], ids=["open", "after FIN"])
@pytest.mark.parametrize(
    "way", ["aclose", "reset", "send_eof and aclose", "peer resets", "connection lost", "lost, then aclose"]
)
@trio_test
async def test_what_was_never_read_is_given_back(way: str, ended_by_peer: bool) -> None:
    async with raw_peer() as (muxer, peer):
        budget = muxer.tunnel.plane.budget
        await peer.send(raw(WINDOW, SYN, 1, 0))
        stream = await muxer.accept()
        await peer.send(raw(DATA, FIN if ended_by_peer else 0, 1, WINDOW_BYTES, bytes(WINDOW_BYTES)))
        await settle()
        assert 0 < budget.buffered <= WINDOW_BYTES
        assert budget.windows == WINDOW_BYTES
        if way == "aclose":
            await stream.aclose()
        elif way == "reset":
            stream.reset()
        elif way == "send_eof and aclose":
            await stream.send_eof()
            await settle()
            await stream.aclose()
        elif way == "peer resets":
            await peer.send(raw(WINDOW, RST, 1, 0))
        else:
            await trio.aclose_forcefully(peer.pipe)
            await muxer.closed.wait()
            if way == "lost, then aclose" or ended_by_peer:
                await settle()
                # Until then it can be read.
                await stream.aclose()
        await settle()
        assert budget.buffered == 0
        assert budget.windows == 0


@trio_test
async def test_what_is_read_is_given_back() -> None:
    async with raw_peer() as (muxer, peer):
        budget = muxer.tunnel.plane.budget
        await peer.send(raw(WINDOW, SYN, 1, 0), raw(DATA, 0, 1, 200_000, bytes(200_000)))
        stream = await muxer.accept()
        await settle()
        assert budget.buffered > 0
        await receive_exactly(stream, 200_000)
        await settle()
        assert budget.buffered == 0


@trio_test
async def test_under_pressure_windows_shrink_to_their_first_size() -> None:
    budget = Budget()
    async with plane(budget), streams() as (ours, theirs, _, _):

        async def transfer(size: int) -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ours.send_all, bytes(size))
                await receive_exactly(theirs, size)

        while of_plane(theirs).inbox.window < 4 * WINDOW_BYTES:
            await transfer(4_000_000)
        budget._pressure = -1
        await transfer(20_000_000)
        await settle()
        assert of_plane(theirs).inbox.window == WINDOW_BYTES
        assert budget.windows == 2 * WINDOW_BYTES


@trio_test
async def test_windows_do_not_grow_when_all_have_grown_too_much() -> None:
    async with plane(Budget(max_windows=3 * WINDOW_BYTES)) as running, streams() as (ours, theirs, _, _):

        async def transfer(size: int) -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ours.send_all, bytes(size))
                await receive_exactly(theirs, size)

        for _ in range(10):
            await transfer(4_000_000)
            assert running.budget.windows <= 3 * WINDOW_BYTES


@trio_test
async def test_who_sends_to_nobody_loses_the_stream_when_memory_is_used_up() -> None:
    """And those whose readers take what comes at once go on."""
    async with plane(Budget(max_buffered=100_000)) as running, raw_peer() as (muxer, peer):
        taken: list[MuxedStream] = []
        for number in (1, 3, 5):
            await peer.send(raw(WINDOW, SYN, number, 0))
            taken.append(await muxer.accept())
            await peer.send(raw(DATA, 0, number, 130_000, bytes(130_000)))
            await settle()
        assert [stream.was_reset for stream in taken] == [False, False, True]
        assert (WINDOW, RST, 5, 0) in [frame.told for frame in await peer.settled()]
        with pytest.raises(trio.BrokenResourceError, match="waits for readers"):
            await taken[2].receive_some()
        for stream in taken[:2]:
            assert len(await receive_exactly(stream, 130_000)) == 130_000
        await settle()
        assert running.budget.buffered == 0
        await peer.send(raw(WINDOW, SYN, 7, 0), raw(DATA, 0, 7, 130_000, bytes(130_000)))
        assert len(await receive_exactly(await muxer.accept(), 130_000)) == 130_000


@trio_test
async def test_what_one_connection_may_hold() -> None:
    """More resets the stream that brings it; the others, and other connections, go on."""
    async with raw_peer(max_held=100_000) as (muxer, peer):
        for stream_id in (1, 3):
            await peer.send(raw(DATA, SYN, stream_id, 100_000, bytes(100_000)))
        first, second = await muxer.accept(), await muxer.accept()
        await settle()
        await peer.send(raw(DATA, 0, 3, 100_000, bytes(100_000)))
        while (frame := await peer.frame()).flags != RST:
            pass
        assert frame.stream_id == 3
        await settle()
        with pytest.raises(trio.BrokenResourceError, match="too much waits for readers"):
            await second.receive_some()
        assert len(await receive_exactly(first, 100_000)) == 100_000
        # There is room again, and nothing is counted twice.
        await peer.send(raw(DATA, 0, 1, 100_000, bytes(100_000)))
        assert len(await receive_exactly(first, 100_000)) == 100_000
        await settle()
        assert muxer.tunnel.session._held == muxer.tunnel.plane.budget.buffered == 0
