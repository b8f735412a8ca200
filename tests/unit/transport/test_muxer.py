"""Connections: opening, accepting, many streams, and what is on the wire."""

from __future__ import annotations

import hashlib
import random
import time

import pytest
import trio

from hived.transport import suites
from hived.transport.limits import MuxLimits
from hived.transport.muxer import Muxer
from hived.transport.muxstream import MuxedStream
from hived.transport.outbox import SHORT_BYTES
from hived.transport.suites import Suite
from tests.unit.transport.pairs import (
    ACK,
    DATA,
    FIN,
    PING,
    RST,
    SYN,
    WINDOW,
    WINDOW_BYTES,
    make_muxer,
    muxers,
    of_plane,
    on_plane,
    plane,
    receive_all,
    receive_exactly,
    settle,
    sockets,
    streams,
    trio_test,
)
from tests.unit.transport.rawpeer import RawPeer, raw, raw_peer


@pytest.mark.parametrize(
    "suite", [suites.NOISE, suites.AESGCM, suites.AESGCM_LONG], ids=lambda suite: suite.protocol
)
@pytest.mark.parametrize("kind", ["socket", "tiny"])
@trio_test
async def test_32_streams_at_once_arrive_whole(kind: str, suite: Suite) -> None:
    noise = random.Random(3)
    largest = 2_000_000 if kind == "socket" else 100_000
    sizes = [noise.choice([0, 1, 100, 65507, 65508, 300_000, noise.randrange(largest)]) for _ in range(32)]
    async with muxers(kind, suite) as (a, b):

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
        assert a.tunnel.session._windows == b.tunnel.session._windows == 0
        assert a.tunnel.outbox.empty
        assert b.tunnel.outbox.empty
        assert (a.tunnel.plane.budget.windows, a.tunnel.plane.budget.buffered) == (0, 0)


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
        # By hand from the specification: Window Update with SYN; Data; Data with FIN.
        assert await peer._exactly(12 + 12 + 5 + 12) == bytes.fromhex(
            "00 01 0001 00000001 0000000000 00 0000 00000001 00000005 68656c6c6f00 00 0004 00000001 00000000"
        )
        await peer.send(raw(WINDOW, ACK, 1, 0), raw(DATA, FIN, 1, 2, b"hi"))
        assert await receive_all(stream) == b"hi"
        assert muxer.rtt is not None
        assert muxer.rtt > 0


@trio_test
async def test_what_opens_a_stream_goes_with_its_first_data() -> None:
    """Several at once: the peer must be able to deal with each as it comes."""
    async with raw_peer() as (muxer, peer):
        ping = await peer.any_frame()
        assert ping.kind == PING
        await peer.send(raw(PING, ACK, 0, ping.length))

        def open_all() -> None:
            for text in (b"one", b"two", b"three"):
                stream = muxer.tunnel.session.open()
                stream.head = text
                stream.ready()

        muxer.tunnel.plane.call(open_all)
        assert [(await peer.frame()).told for _ in range(6)] == [
            (WINDOW, SYN, 2, 0),
            (DATA, 0, 2, 3),
            (WINDOW, SYN, 4, 0),
            (DATA, 0, 4, 3),
            (WINDOW, SYN, 6, 0),
            (DATA, 0, 6, 5),
        ]
        assert peer.records[-1] == 6 * 12 + 3 + 3 + 5, "one record for all of them"


@trio_test
async def test_several_streams_and_control_frames_fit_in_one_record() -> None:
    """Of any sizes: what does not fit goes in the next."""
    async with raw_peer() as (muxer, peer), trio.open_nursery() as nursery:
        nursery.start_soon(receive_all, peer.pipe)

        def open_all(size: int) -> None:
            session = muxer.tunnel.session
            for length in (size, size, size, SHORT_BYTES):
                stream = session.open()
                session.unacknowledged.discard(stream.id)
                stream.head = bytes(length)
                stream.ready()
            for number in range(500):
                session.outbox.reset(1001 + 2 * number)

        for size in range(14_500, 15_200, 7):
            muxer.tunnel.plane.call(open_all, size)
            await on_plane(muxer.tunnel.plane, lambda: None)
        await settle()
        assert muxer.tunnel.alive, muxer.close_reason
        nursery.cancel_scope.cancel()


@trio_test
async def test_a_stream_on_the_wire_byte_by_byte() -> None:
    """Frames in as many records as they have bytes, and records in as many pieces."""
    async with raw_peer() as (muxer, peer):
        for byte in raw(WINDOW, SYN, 1, 0) + raw(DATA, 0, 1, 5, b"hello") + raw(DATA, FIN, 1, 0):
            await peer.send(bytes([byte]))
        for byte in peer.sealed(raw(WINDOW, SYN, 3, 0) + raw(DATA, FIN, 3, 3, b"two")):
            await peer.pipe.send_all(bytes([byte]))
            await settle()
        stream, second = await muxer.accept(), await muxer.accept()
        assert await receive_all(stream) == b"hello"
        assert await receive_all(second) == b"two"
        assert [(await peer.frame()).told for _ in range(2)] == [(WINDOW, ACK, 1, 0), (WINDOW, ACK, 3, 0)]
        await stream.send_all(b"bye")
        await stream.aclose()
        frames = [await peer.frame(), await peer.frame()]
        assert [frame.told for frame in frames] == [(DATA, 0, 1, 3), (DATA, FIN, 1, 0)]
        assert frames[0].payload == b"bye"


@trio_test
async def test_what_came_with_the_handshake_is_handled_first() -> None:
    """Opened bytes that end within a frame; the rest of it comes by the pipe."""
    one, other = sockets()
    async with plane() as running, trio.open_nursery() as nursery:
        peer = RawPeer(other, initiator=True)
        frames = raw(WINDOW, SYN, 1, 0) + raw(DATA, 0, 1, 9, b"plaincold") + raw(DATA, FIN, 1, 3, b"end")
        cut = 12 + 12 + 5
        muxer = make_muxer(running, one, initiator=False, plain=frames[:cut])
        await nursery.start(muxer.run)
        await settle()
        await peer.send(frames[cut:])
        assert await receive_all(await muxer.accept()) == b"plaincoldend"
        nursery.cancel_scope.cancel()
        other.close()


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
        assert [stream.id for stream in a.tunnel.session.streams.values()] == [3, 5]


@trio_test
async def test_an_open_that_was_cancelled_leaves_no_stream() -> None:
    """Whether it waited for room, or its answer was on the way already."""
    async with muxers(max_streams=3) as (a, b):
        for _ in range(50):
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(a.open)
                    await trio.lowlevel.checkpoint()
                    scope.cancel()
        await settle()
        assert a.stream_count == 0
        streams = [await a.open() for _ in range(3)]
        assert [(await b.accept()).id for _ in range(3)] == [stream.id for stream in streams]
        await settle()
        assert b.stream_count == 3


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
        a.tunnel.session._next_id = 2**32 - 1
        last = await a.open()
        with pytest.raises(trio.BrokenResourceError):
            await a.open()
        assert not a.closed.is_set(), "the last stream may finish"
        last.reset()
        await a.closed.wait()
        await b.closed.wait()


@trio_test
async def test_rtt_and_counters() -> None:
    async with streams() as (ours, theirs, a, b):
        await ours.send_all(b"x" * 100)
        await receive_exactly(theirs, 100)
        await settle()
        assert a.rtt is not None
        assert 0 < a.rtt < 1
        assert a.bytes_out == b.bytes_in >= 112
        assert a.bytes_in == b.bytes_out
        assert a.tunnel.last_received <= time.monotonic()


@trio_test
async def test_no_record_is_empty() -> None:
    """Some take a record without bytes for the end of the connection."""
    async with raw_peer() as (muxer, peer):
        running = muxer.tunnel.plane
        session = muxer.tunnel.session
        # Opened and given up in one turn: there is nothing to say.
        await on_plane(running, lambda: session.open().reset())
        opened = await muxer.open()

        def said_and_dropped() -> None:
            session.outbox.control(of_plane(opened), credit=9)
            opened.mailbox.reset()

        await on_plane(running, said_and_dropped)
        await peer.settled()
        assert 0 not in peer.records


@trio_test
async def test_limits_may_change_while_it_runs() -> None:
    async with raw_peer(max_streams=1) as (muxer, peer):
        await peer.send(raw(WINDOW, SYN, 1, 0), raw(WINDOW, SYN, 3, 0))
        assert [frame.told for frame in await peer.settled()] == [(WINDOW, RST, 3, 0)]
        muxer.set_limits(MuxLimits(max_streams=2))
        await peer.send(raw(WINDOW, SYN, 5, 0))
        assert await peer.settled() == []
        assert muxer.stream_count == 2


def test_limits_are_checked() -> None:
    with pytest.raises(ValueError, match=str(WINDOW_BYTES)):
        MuxLimits(max_window=65536)
