"""A hostile peer: it may end its own streams or the connection, and cost us bounded memory."""

from __future__ import annotations

import itertools

import pytest
import trio

from hived.transport.mailbox import PIECE_BYTES
from tests.unit.transport.pairs import (
    ACK,
    DATA,
    FIN,
    GO_AWAY,
    PING,
    RST,
    SYN,
    WINDOW,
    WINDOW_BYTES,
    of_plane,
    receive_all,
    receive_exactly,
    sent_and_waits,
    settle,
    trio_test,
)
from tests.unit.transport.rawpeer import raw, raw_peer


@pytest.mark.parametrize(
    ("frames", "why"),
    [
        ([raw(DATA, SYN, 1, 0, version=1)], "version 1"),
        ([raw(4, 0, 0, 0)], "type 4"),
        ([raw(WINDOW, SYN, 0, 0)], "stream 0"),
        ([raw(DATA, SYN, 1, 16 * 2**20 + 1)], "bytes"),
        ([raw(DATA, SYN, 1, WINDOW_BYTES + 1)], "window of 262144"),
        (
            [raw(WINDOW, SYN, 1, 0), raw(DATA, 0, 1, WINDOW_BYTES, bytes(WINDOW_BYTES)), raw(DATA, 0, 1, 1)],
            "0",
        ),
        ([raw(WINDOW, SYN, 2, 0)], "a number of our side"),
        ([raw(WINDOW, SYN, 1, 0), raw(WINDOW, SYN, 1, 0)], "opened twice"),
        ([raw(WINDOW, SYN, 1, 0), raw(WINDOW, RST, 1, 0), raw(WINDOW, SYN, 1, 0)], "opened twice"),
        ([raw(DATA, 0, 2, 1, b"x")], "never opened"),
        ([raw(WINDOW, ACK, 2, 0)], "never opened"),
    ],
)
@trio_test
async def test_protocol_errors_end_the_connection(frames: list[bytes], why: str) -> None:
    async with raw_peer() as (muxer, peer):
        await peer.send(*frames)
        told = [frame.told for frame in await peer.until_end()]
        assert told[-1] == (GO_AWAY, 0, 0, 1)
        await muxer.closed.wait()
        assert muxer.close_reason.startswith("protocol error: ")
        assert why in muxer.close_reason


@trio_test
async def test_a_protocol_error_fails_the_streams_at_once() -> None:
    async with raw_peer() as (muxer, peer):
        await peer.send(raw(WINDOW, SYN, 1, 0))
        stream = await muxer.accept()
        await peer.send(raw(9, 0, 0, 0))
        with pytest.raises(trio.BrokenResourceError, match="type 9"):
            await stream.receive_some()


@trio_test
async def test_data_on_a_stream_nobody_opened_is_reset() -> None:
    async with raw_peer() as (muxer, peer):
        await peer.send(raw(DATA, 0, 7, 100_000, bytes(100_000)), raw(DATA, 0, 7, 1, b"x"))
        assert [frame.told for frame in await peer.settled()] == [(WINDOW, RST, 7, 0)]
        assert muxer.stream_count == 0


@trio_test
async def test_other_frames_on_a_stream_nobody_opened_are_ignored() -> None:
    async with raw_peer() as (_, peer):
        await peer.send(*(raw(WINDOW, flags, 9, 0) for flags in (0, ACK, FIN, RST, FIN | RST)))
        await peer.send(raw(DATA, FIN, 9, 0), raw(DATA, RST, 9, 0))
        assert await peer.settled() == []


@trio_test
async def test_late_frames_for_a_closed_stream_are_ignored() -> None:
    async with raw_peer() as (muxer, peer):
        await peer.send(raw(WINDOW, SYN, 1, 0))
        stream = await muxer.accept()
        await settle()
        stream.reset()
        told = [(await peer.frame()).told for _ in range(2)]
        assert told == [(WINDOW, ACK, 1, 0), (WINDOW, RST, 1, 0)]
        await peer.send(raw(DATA, 0, 1, 1000, bytes(1000)), raw(WINDOW, 0, 1, 5), raw(DATA, FIN, 1, 0))
        await peer.send(raw(WINDOW, RST, 1, 0))
        assert await peer.settled() == []


@trio_test
async def test_streams_above_the_limit_are_reset() -> None:
    async with raw_peer(max_streams=2) as (muxer, peer):
        await peer.send(*(raw(WINDOW, SYN, number, 0) for number in (1, 3, 5)), raw(DATA, 0, 5, 1, b"x"))
        assert [frame.told for frame in await peer.settled()] == [(WINDOW, RST, 5, 0)]
        (await muxer.accept()).reset()
        assert (await muxer.open()).id == 2, "our own streams are counted apart"
        await peer.send(raw(WINDOW, SYN, 7, 0))
        assert (WINDOW, RST, 7, 0) not in [frame.told for frame in await peer.settled()]
        assert muxer.stream_count == 3


@trio_test
async def test_streams_above_the_backlog_are_reset() -> None:
    async with raw_peer() as (muxer, peer):
        await peer.send(*(raw(WINDOW, SYN, number, 0) for number in range(1, 2 * 258, 2)))
        told = [frame.told for frame in await peer.settled()]
        assert told == [(WINDOW, RST, number, 0) for number in (513, 515)]
        await muxer.accept()
        await settle()
        await peer.send(raw(WINDOW, SYN, 517, 0))
        assert [frame.told for frame in await peer.settled()] == [(WINDOW, ACK, 1, 0)]


@trio_test
async def test_a_stream_reset_before_it_is_accepted_is_never_seen() -> None:
    async with raw_peer() as (muxer, peer):
        for number in range(1, 201, 2):
            await peer.send(raw(WINDOW, SYN, number, 0), raw(WINDOW, RST, number, 0))
        await peer.send(raw(DATA, SYN, 2001, 2, b"me"))
        stream = await muxer.accept()
        await settle()
        assert (stream.id, muxer.stream_count) == (2001, 1)
        assert muxer.tunnel.session._backlog == set()
        assert len(muxer.tunnel.session._departed._recent) == 100


@trio_test
async def test_streams_opened_and_reset_cost_bounded_memory_while_nobody_accepts() -> None:
    async with raw_peer(accept_backlog=4) as (muxer, peer), trio.open_nursery() as nursery:
        for number in range(1, 201, 2):
            await peer.send(raw(WINDOW, SYN, number, 0), raw(WINDOW, RST, number, 0))
        # Who does not even read the refusals is ended for that.
        await peer.settled()
        assert muxer.stream_count == 0
        assert len(muxer._incoming) <= 4
        taken: list[int] = []

        async def accept() -> None:
            taken.append((await muxer.accept()).id)

        nursery.start_soon(accept)
        await settle()
        await peer.send(raw(DATA, SYN, 4001, 2, b"me"))
        await settle()
        assert taken == [4001], "there is room again once they were looked at"


@trio_test
async def test_refused_streams_cost_bounded_memory_when_the_peer_reads_nothing() -> None:
    async with raw_peer(kind="tiny", max_streams=1, close_timeout=0.01) as (muxer, peer):
        with pytest.raises((trio.BrokenResourceError, trio.ClosedResourceError)):
            for number in itertools.count(1, 2):
                await peer.send(raw(WINDOW, SYN, number, 0))
                assert muxer.tunnel.outbox.pending_resets <= 1025
        await muxer.closed.wait()
        assert "refused" in muxer.close_reason


@trio_test
async def test_stray_data_costs_bounded_memory_when_the_peer_reads_nothing() -> None:
    async with raw_peer(kind="tiny") as (muxer, peer):
        for number in range(1, 10_001, 2):
            await peer.send(raw(DATA, 0, number, 1, b"x"))
        assert muxer.tunnel.outbox.pending_resets <= 1025
        assert len(muxer.tunnel.session._departed._recent) <= 1024


@trio_test
async def test_a_ping_flood_costs_bounded_memory_when_the_peer_reads_nothing() -> None:
    async with raw_peer(kind="tiny") as (muxer, peer), trio.open_nursery() as nursery:
        nursery.start_soon((await muxer.open()).send_all, bytes(WINDOW_BYTES))
        await settle()
        flood = b"".join(raw(PING, SYN, 0, number) for number in range(100_000))
        await peer.send(flood)
        await settle()
        assert len(muxer.tunnel.outbox._pongs) == 16
        answers = []
        while (frame := await peer.any_frame()).told != (PING, ACK, 0, 99_999):
            answers.append(frame)
        assert len([frame for frame in answers if frame.kind == PING]) < 40
        nursery.cancel_scope.cancel()


@trio_test
async def test_answers_to_pings_nobody_sent_are_ignored() -> None:
    async with raw_peer() as (muxer, peer):
        await peer.send(raw(PING, ACK, 0, 12345), raw(PING, 0, 0, 54321))
        assert (await peer.any_frame()).kind == PING
        await settle()
        assert muxer.rtt is None


@trio_test
async def test_window_updates_beyond_all_measure() -> None:
    async with raw_peer() as (muxer, peer), trio.open_nursery() as nursery:
        await peer.send(raw(WINDOW, SYN, 1, 2**32 - 1), *[raw(WINDOW, 0, 1, 2**32 - 1)] * 10)
        stream = await muxer.accept()
        await settle()
        assert of_plane(stream).send_window == 2**32 - 1
        nursery.start_soon(stream.send_all, bytes(1_000_000))
        await settle()
        assert sent_and_waits(stream) <= PIECE_BYTES
        nursery.cancel_scope.cancel()


@trio_test
async def test_single_bytes_do_not_cost_an_object_each() -> None:
    async with raw_peer() as (muxer, peer):
        await peer.send(raw(WINDOW, SYN, 1, 0), raw(DATA, 0, 1, 1, b"x") * 100_000)
        stream = await muxer.accept()
        await settle()
        inbox = of_plane(stream).inbox
        assert inbox.buffered >= 100_000 - PIECE_BYTES
        assert len(inbox.queue._chunks or ()) < 10


def expected(kind: int, *frames: int) -> str:
    """What two frames of one kind with these flags leave of stream 1, by the specification."""
    state = "unknown"
    for flags in frames:
        if flags & SYN:
            if state != "unknown":
                return "opened twice"
            state = "ended" if flags & RST else "open"
        if state == "unknown":
            # Stray data is answered by RST, and the number is burnt.
            state = "ended" if kind == DATA and not flags & (FIN | RST) else state
        elif flags & RST or (state == "half-closed" and kind == DATA):
            state = "ended"
        elif flags & FIN and state == "open":
            state = "half-closed"
    return state


@pytest.mark.parametrize("kind", [DATA, WINDOW])
@pytest.mark.parametrize("first", range(16))
@trio_test
async def test_any_two_combinations_of_flags(kind: int, first: int) -> None:
    payload = b"abc" if kind == DATA else b""
    for second in range(16):
        async with raw_peer() as (muxer, peer):
            await peer.send(*(raw(kind, flags, 1, len(payload), payload) for flags in (first, second)))
            await settle()
            outcome = expected(kind, first, second)
            if outcome == "opened twice":
                await muxer.closed.wait()
                assert outcome in muxer.close_reason
                continue
            assert not muxer.closed.is_set()
            assert muxer.stream_count == (outcome in ("open", "half-closed"))
            if not muxer.stream_count:
                continue
            stream = await muxer.accept()
            # A frame before SYN was none of this stream's.
            received = payload * (2 if first & SYN else 1)
            if outcome == "half-closed":
                assert await receive_all(stream) == received
            else:
                assert await receive_exactly(stream, len(received)) == received
                assert of_plane(stream).inbox.buffered == 0
            await stream.send_all(b"answer")
            assert [frame.told for frame in await peer.settled()] == [(WINDOW, ACK, 1, 0), (DATA, 0, 1, 6)]


@pytest.mark.parametrize("flags", [SYN | FIN, SYN | ACK, SYN | ACK | FIN])
@trio_test
async def test_a_stream_in_one_frame(flags: int) -> None:
    async with raw_peer() as (muxer, peer):
        await peer.send(raw(DATA, flags, 1, 3, b"abc"))
        stream = await muxer.accept()
        assert await stream.receive_some() == b"abc"
        if flags & FIN:
            assert await stream.receive_some() == b""
        await stream.aclose()
        await settle()
        assert muxer.stream_count == 0


@pytest.mark.parametrize("flags", [RST, ACK | RST, FIN | RST, ACK | FIN | RST])
@pytest.mark.parametrize("kind", [DATA, WINDOW])
@trio_test
async def test_the_peer_refuses_a_stream_of_ours(kind: int, flags: int) -> None:
    async with raw_peer(ack_backlog=1) as (muxer, peer):
        stream = await muxer.open()
        assert (await peer.frame()).told == (WINDOW, SYN, 2, 0)
        await peer.send(raw(kind, flags, 2, 0))
        with pytest.raises(trio.BrokenResourceError, match="reset"):
            await stream.receive_some()
        assert (await muxer.open()).id == 4, "a refused stream no longer waits for its ACK"


@trio_test
async def test_rst_discards_what_was_not_yet_read() -> None:
    async with raw_peer() as (muxer, peer):
        await peer.send(raw(WINDOW, SYN, 1, 0), raw(DATA, 0, 1, 3, b"abc"))
        stream = await muxer.accept()
        await peer.send(raw(DATA, FIN, 1, 0), raw(DATA, RST, 1, 0))
        await settle()
        with pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()


@trio_test
async def test_junk_after_go_away_is_ignored() -> None:
    async with raw_peer() as (muxer, peer):
        await peer.send(raw(9, 0, 0, 0), b"\xff" * 100_000)
        assert [frame.told for frame in await peer.until_end()] == [(GO_AWAY, 0, 0, 1)]
        await muxer.closed.wait()
        assert "type 9" in muxer.close_reason
