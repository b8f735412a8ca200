"""Connections: opening, accepting, many streams, ends of every kind, and keep-alive."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable

import pytest
import trio
import trio.testing

from hived.transport.limits import MuxLimits
from hived.transport.muxer import Muxer
from hived.transport.muxstream import MuxedStream
from tests.unit.transport.pairs import (
    ACK,
    DATA,
    FIN,
    GO_AWAY,
    PING,
    RST,
    SYN,
    WINDOW,
    clocked,
    muxers,
    pipes,
    raw,
    raw_peer,
    receive_all,
    receive_exactly,
    streams,
    trio_test,
)

settle = trio.testing.wait_all_tasks_blocked


@pytest.mark.parametrize("kind", ["memory", "lockstep", "socket"])
@trio_test
async def test_32_streams_at_once_arrive_whole(kind: str) -> None:
    noise = random.Random(3)
    sizes = [noise.choice([0, 1, 100, 65507, 65508, 300_000, noise.randrange(2_000_000)]) for _ in range(32)]
    async with muxers(kind) as (a, b):

        async def opener(number: int, size: int) -> None:
            data = random.Random(number).randbytes(size)
            stream = await (a if number % 2 else b).open()
            await stream.send_all(number.to_bytes(2, "big") + data)
            await stream.send_eof()
            assert await receive_all(stream) == hashlib.sha256(data).digest() + data

        async def acceptor(muxer: Muxer) -> None:
            stream = await muxer.accept()
            number = int.from_bytes(await receive_exactly(stream, 2), "big")
            data = await receive_all(stream)
            assert len(data) == sizes[number]
            await stream.send_all(hashlib.sha256(data).digest() + data)
            await stream.aclose()

        async with trio.open_nursery() as nursery:
            for number, size in enumerate(sizes):
                nursery.start_soon(opener, number, size)
                nursery.start_soon(acceptor, b if number % 2 else a)
        await settle()
        assert a.stream_count == b.stream_count == 0
        assert a._session._windows == b._session._windows == 0
        assert a._outbox.queued == b._outbox.queued == 0


@trio_test
async def test_ids_are_odd_for_the_initiator_and_even_for_the_other() -> None:
    async with muxers() as (a, b):
        assert [(await a.open()).id for _ in range(3)] == [1, 3, 5]
        assert [(await b.open()).id for _ in range(3)] == [2, 4, 6]
        assert [(await b.accept()).id for _ in range(3)] == [1, 3, 5]
        assert [(await a.accept()).id for _ in range(3)] == [2, 4, 6]
        assert a.stream_count == b.stream_count == 6


@trio_test
async def test_the_conversation_on_the_wire() -> None:
    async with raw_peer(initiator=True) as (muxer, peer):
        ping = await peer.any_frame()
        assert (ping.kind, ping.flags, ping.stream_id) == (PING, SYN, 0)
        await peer.send(raw(PING, ACK, 0, ping.length))
        stream = await muxer.open()
        await stream.send_all(b"hello")
        await stream.send_eof()
        await settle()
        # By hand from the specification: Window Update with SYN; Data; Data with FIN.
        assert await peer.pipe.receive_some(65536) == bytes.fromhex(
            "00 01 0001 00000001 0000000000 00 0000 00000001 00000005 68656c6c6f00 00 0004 00000001 00000000"
        )
        await peer.send(raw(WINDOW, ACK, 1, 0), raw(DATA, FIN, 1, 2, b"hi"))
        assert await receive_all(stream) == b"hi"
        assert muxer.rtt is not None
        assert muxer.rtt > 0


@trio_test
async def test_a_stream_on_the_wire_byte_by_byte() -> None:
    async with raw_peer() as (muxer, peer):
        for byte in raw(WINDOW, SYN, 1, 0) + raw(DATA, 0, 1, 5, b"hello") + raw(DATA, FIN, 1, 0):
            await peer.send(bytes([byte]))
        stream = await muxer.accept()
        assert await receive_all(stream) == b"hello"
        assert (await peer.frame()).told == (WINDOW, ACK, 1, 0)
        await stream.send_all(b"bye")
        await stream.aclose()
        frames = [await peer.frame(), await peer.frame()]
        assert [frame.told for frame in frames] == [(DATA, 0, 1, 3), (DATA, FIN, 1, 0)]
        assert frames[0].payload == b"bye"


@trio_test
async def test_open_waits_while_the_ack_backlog_is_full() -> None:
    async with muxers(ack_backlog=3) as (a, b), trio.open_nursery() as nursery:
        opened: list[MuxedStream] = []

        async def open_one() -> None:
            opened.append(await a.open())

        for _ in range(5):
            nursery.start_soon(open_one)
        await settle()
        async with trio.open_nursery() as inner:
            inner.start_soon(a.open)
            await settle()
            inner.cancel_scope.cancel()
        assert len(opened) == 3
        await b.accept()
        await settle()
        assert len(opened) == 4
        opened[3].reset()
        await settle()
        assert len(opened) == 5


@trio_test
async def test_a_stream_that_never_was_acknowledged_does_not_hold_its_place_for_ever() -> None:
    async with raw_peer(ack_backlog=2, lingering=1) as (muxer, _):
        for _ in range(2):
            await (await muxer.open()).aclose()
        assert (await muxer.open()).id == 6


@trio_test
async def test_open_waits_while_all_streams_are_taken() -> None:
    async with muxers(max_streams=2) as (a, b), trio.open_nursery() as nursery:
        first, _ = await a.open(), await a.open()
        await b.accept()
        await b.accept()
        nursery.start_soon(a.open)
        await settle()
        assert a.stream_count == 2
        first.reset()
        await settle()
        assert a.stream_count == 2
        assert [stream.id for stream in a._session.streams.values()] == [3, 5]


@trio_test
async def test_a_cancelled_accept_loses_no_stream() -> None:
    async with muxers() as (a, b):
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(b.accept)
                await settle()
                scope.cancel()
        stream = await a.open()
        assert (await b.accept()).id == stream.id


@trio_test
async def test_stream_ids_run_out() -> None:
    async with muxers() as (a, b):
        a._session._next_id = 2**32 - 1
        last = await a.open()
        with pytest.raises(trio.BrokenResourceError):
            await a.open()
        assert not a.closed.is_set(), "the last stream may finish"
        last.reset()
        await a.closed.wait()
        await b.closed.wait()


# Ends


async def ends(muxer: Muxer, stream: MuxedStream, *, here: bool) -> None:
    """Everything on an ended connection fails, and in the documented way."""
    await muxer.closed.wait()
    for call in (stream.send_all(b"x"), stream.receive_some(), stream.send_eof()):
        with pytest.raises(trio.BrokenResourceError):
            await call
    assert stream.was_reset
    await stream.aclose()
    with pytest.raises(trio.ClosedResourceError if here else trio.BrokenResourceError):
        await muxer.open()
    with pytest.raises(trio.ClosedResourceError if here else trio.EndOfChannel):
        await muxer.accept()
    await muxer.aclose()
    assert muxer.stream_count == 0


@pytest.mark.parametrize("kind", ["memory", "lockstep", "socket"])
@trio_test
async def test_aclose_ends_both_sides(kind: str) -> None:
    async with streams(kind) as (ours, theirs, a, b):
        await a.aclose()
        assert a.close_reason == "closed here"
        await ends(a, ours, here=True)
        await ends(b, theirs, here=False)
        if kind != "socket":  # There, one that is closed on unread bytes resets its peer.
            assert b.close_reason == "the peer closed the connection"


@trio_test
async def test_aclose_sends_what_is_queued_and_go_away() -> None:
    async with raw_peer() as (muxer, peer):
        stream = await muxer.open()
        await stream.send_all(b"last words")
        await stream.send_eof()
        await muxer.aclose()
        assert [frame.told for frame in await peer.until_end()] == [
            (WINDOW, SYN, 2, 0),
            (DATA, 0, 2, 10),
            (DATA, FIN, 2, 0),
            (GO_AWAY, 0, 0, 0),
        ]


@clocked
async def test_aclose_is_bounded_against_a_peer_that_does_not_read() -> None:
    async with raw_peer(kind="lockstep") as (muxer, _):
        before = trio.current_time()
        await muxer.aclose()
        assert trio.current_time() - before <= 2.0
        assert muxer.closed.is_set()


@trio_test
async def test_aclose_before_run() -> None:
    one, other = pipes("memory")
    muxer = Muxer(one, initiator=True)
    await muxer.aclose()
    assert await other.receive_some() == b""
    await muxer.run()
    with pytest.raises(trio.ClosedResourceError):
        await muxer.open()


@trio_test
async def test_aclose_cancelled_closes_too() -> None:
    async with raw_peer(kind="lockstep") as (muxer, peer):
        with trio.CancelScope() as scope:
            scope.cancel()
            await muxer.aclose()
        await muxer.closed.wait()
        await receive_all(peer.pipe)


@pytest.mark.parametrize("kind", ["memory", "socket"])
@trio_test
async def test_the_peer_vanishes(kind: str) -> None:
    async with raw_peer(kind=kind) as (muxer, peer):
        await peer.send(raw(WINDOW, SYN, 1, 0), raw(DATA, 0, 1, 3, b"abc"))
        stream = await muxer.accept()
        waits: list[str] = []

        async def wait_for(what: str, call: Callable[[], object], error: type[Exception]) -> None:
            with pytest.raises(error):
                await call()  # type: ignore[misc]  # any awaitable
            waits.append(what)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait_for, "accept", muxer.accept, trio.EndOfChannel)
            nursery.start_soon(
                wait_for, "send", lambda: stream.send_all(bytes(2**20)), trio.BrokenResourceError
            )
            await settle()
            await trio.aclose_forcefully(peer.pipe)
        assert sorted(waits) == ["accept", "send"]
        assert muxer.close_reason
        await ends(muxer, stream, here=False)


@trio_test
async def test_a_pipe_that_breaks_ends_the_connection_without_an_exception() -> None:
    async def breaks() -> None:
        raise trio.BrokenResourceError("cable cut")

    for side in ("receive", "send"):
        one, _ = trio.testing.memory_stream_pair()
        if side == "receive":
            one.receive_stream.receive_some_hook = breaks
        else:
            one.send_stream.send_all_hook = breaks
        muxer = Muxer(one, initiator=True)
        if side == "receive":
            one.receive_stream.put_data(b"x")
        await muxer.run()
        assert muxer.closed.is_set()


@trio_test
async def test_cancelling_run_closes_everything() -> None:
    one, other = pipes("memory")
    muxer = Muxer(one, initiator=True)
    async with trio.open_nursery() as nursery:
        await nursery.start(muxer.run)
        stream = await muxer.open()
        nursery.cancel_scope.cancel()
    assert muxer.close_reason == "cancelled"
    assert other is not None
    await ends(muxer, stream, here=False)


@trio_test
async def test_what_ended_cleanly_stays_readable_when_the_connection_is_lost() -> None:
    async with raw_peer() as (muxer, peer):
        await peer.send(raw(WINDOW, SYN, 1, 0), raw(DATA, FIN, 1, 3, b"abc"))
        stream = await muxer.accept()
        await settle()
        await trio.aclose_forcefully(peer.pipe)
        await muxer.closed.wait()
        assert await receive_all(stream) == b"abc"
        with pytest.raises(trio.BrokenResourceError):
            await stream.send_all(b"x")


# GoAway


@trio_test
async def test_go_away_lets_streams_finish() -> None:
    async with raw_peer() as (muxer, peer):
        await peer.send(raw(WINDOW, SYN, 1, 0), raw(GO_AWAY, 0, 0, 0))
        stream = await muxer.accept()
        await settle()
        with pytest.raises(trio.BrokenResourceError):
            await muxer.open()
        await peer.send(raw(WINDOW, SYN, 3, 0), raw(DATA, FIN, 1, 2, b"ok"))
        assert await receive_all(stream) == b"ok"
        assert not muxer.closed.is_set()
        await stream.aclose()
        await muxer.closed.wait()
        told = [frame.told for frame in await peer.until_end()]
        assert (WINDOW, RST, 3, 0) in told
        assert told[-1] == (GO_AWAY, 0, 0, 0)


@clocked
async def test_draining_ends_with_the_peers_last_fin() -> None:
    before = trio.current_time()
    async with raw_peer() as (muxer, peer):
        await peer.send(raw(WINDOW, SYN, 1, 0), raw(GO_AWAY, 0, 0, 0))
        stream = await muxer.accept()
        await stream.send_eof()
        await settle()
        assert not muxer.closed.is_set()
        await peer.send(raw(DATA, FIN, 1, 0))
        await muxer.closed.wait()
        assert muxer.close_reason == "the peer went away"
        assert trio.current_time() - before < 1, "and not with the next ping"


@trio_test
async def test_go_away_wakes_those_that_wait_to_open() -> None:
    async with raw_peer(ack_backlog=1) as (muxer, peer), trio.open_nursery() as nursery:
        await muxer.open()

        async def refused() -> None:
            with pytest.raises(trio.BrokenResourceError):
                await muxer.open()

        nursery.start_soon(refused)
        await settle()
        await peer.send(raw(GO_AWAY, 0, 0, 0))


@pytest.mark.parametrize("code", [1, 2, 4101])
@trio_test
async def test_go_away_with_an_error_ends_at_once(code: int) -> None:
    async with raw_peer() as (muxer, peer):
        stream = await muxer.open()
        await peer.send(raw(GO_AWAY, 0, 0, code))
        await ends(muxer, stream, here=False)
        assert muxer.close_reason == f"the peer ended the connection, code {code}"


# Keep-alive


@clocked
async def test_an_idle_connection_lives() -> None:
    async with muxers() as (a, b):
        await trio.sleep(3600)
        assert not a.closed.is_set()
        assert not b.closed.is_set()
        # Each side hears of the other's pings, so not both need to.
        assert 3600 / 60 * 24 <= a.bytes_out <= 3600 / 10 * 24 + 24


@clocked
async def test_a_silent_peer_is_pinged_and_then_given_up() -> None:
    async with raw_peer() as (muxer, peer):
        await peer.settled()  # Answers the first ping.
        await trio.sleep(9.9)
        start = trio.current_time()
        ping = await peer.any_frame()
        assert ping.told[:3] == (PING, SYN, 0)
        assert trio.current_time() - start < 0.2
        await muxer.closed.wait()
        assert trio.current_time() - start == pytest.approx(15, abs=0.3)
        assert muxer.close_reason == "keep-alive timeout"


@clocked
async def test_a_peer_that_never_answers_the_first_ping() -> None:
    async with raw_peer() as (muxer, _):
        stream = await muxer.open()
        await ends(muxer, stream, here=False)
        assert trio.current_time() == pytest.approx(15, abs=0.1)


@trio_test
async def test_a_muxer_closed_before_run_is_closed_though_cancelled() -> None:
    one, other = pipes("memory")
    muxer = Muxer(one, initiator=True)
    with trio.CancelScope() as scope:
        scope.cancel()
        await muxer.aclose()
    assert muxer.closed.is_set()
    assert await other.receive_some() == b""


def test_a_process_that_was_stopped_does_not_blame_the_peer() -> None:
    clock = trio.testing.MockClock()

    async def main() -> None:
        async with raw_peer() as (muxer, _):
            await settle()
            clock.jump(1000)
            await settle()
            assert not muxer.closed.is_set()
            clock.jump(14)
            await settle()
            assert not muxer.closed.is_set()
            clock.jump(1.1)
            await muxer.closed.wait()

    trio.run(main, clock=clock)


@clocked
async def test_who_talks_is_alive_although_the_answer_is_late() -> None:
    async with raw_peer() as (muxer, peer):
        await peer.send(raw(WINDOW, SYN, 1, 0))
        for _ in range(30):
            await trio.sleep(9)
            await peer.send(raw(WINDOW, 0, 1, 0))
        assert not muxer.closed.is_set()


@clocked
async def test_traffic_puts_the_ping_off_but_the_round_trip_is_measured() -> None:
    async with raw_peer(keep_alive=10, rtt_interval=60) as (muxer, peer):
        await peer.settled()
        await peer.send(raw(WINDOW, SYN, 1, 0))
        sent = muxer.bytes_out
        for _ in range(6):
            assert muxer.bytes_out == sent
            await trio.sleep(9)
            await peer.send(raw(WINDOW, 0, 1, 0))
        await trio.sleep(9)
        assert muxer.bytes_out == sent + 12, "after 60 s, for the round trip"
        assert muxer.last_received == pytest.approx(trio.current_time() - 9, abs=0.1)


@clocked
async def test_a_window_that_stays_empty_for_an_hour_is_no_error() -> None:
    async with streams() as (ours, theirs, _, _), trio.open_nursery() as nursery:
        data = random.Random(1).randbytes(600_000)

        async def send() -> None:
            await ours.send_all(data)
            await ours.send_eof()

        nursery.start_soon(send)
        await trio.sleep(3600)
        assert await receive_all(theirs) == data


@trio_test
async def test_rtt_and_counters() -> None:
    async with streams() as (ours, theirs, a, b):
        await ours.send_all(b"x" * 100)
        await receive_exactly(theirs, 100)
        await settle()
        assert a.rtt is not None
        assert 0 < a.rtt < 1
        assert a.bytes_out == b.bytes_in >= 112
        assert a.last_received <= trio.current_time()


def test_limits_are_checked() -> None:
    with pytest.raises(ValueError, match="262144"):
        MuxLimits(max_window=65536)
