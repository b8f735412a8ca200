"""Receiving: so many frames in a turn, whatever the records they come in, and none lost or handled twice."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from hived.transport import suites
from hived.transport.budget import Budget
from hived.transport.limits import MuxLimits
from hived.transport.outbox import Outbox
from hived.transport.plane import Plane
from hived.transport.reader import PipeError, Reader
from hived.transport.records import Opener, Sealer
from hived.transport.session import Session
from hived.transport.stream import Stream
from tests.unit.transport.pairs import (
    DATA,
    FIN,
    GO_AWAY,
    PING,
    SYN,
    WINDOW,
    plane,
    receive_all,
    settle,
    trio_test,
)
from tests.unit.transport.rawpeer import raw, raw_peer

KEY = b"reader's" * 4


class Script:
    """A pipe of which each read gives one of these pieces; b"" is its end."""

    def __init__(self, pieces: list[bytes]) -> None:
        self.pieces = pieces

    def recv_into(self, buffer: memoryview) -> int:
        if not self.pieces:
            raise BlockingIOError
        piece = self.pieces.pop(0)
        buffer[: len(piece)] = piece
        return len(piece)


@pytest.fixture(scope="module")
def still() -> Iterator[Plane]:
    """A plane that does not run: a reader only uses its buffers."""
    made = Plane()
    yield made
    made.close()


def sealed(records: list[bytes]) -> bytes:
    sealer = Sealer(suites.NOISE, KEY)
    out = memoryview(bytearray(70_000))
    made = bytearray()
    for record in records:
        made += out[: sealer.seal(memoryview(bytearray(record)), out)]
    return bytes(made)


def reader_of(
    still: Plane, pieces: list[bytes], frames_at_once: int = 256, *, borrows: bool = True
) -> tuple[Reader, Script, list[Stream]]:
    """A reader of a responder's session, and the streams that its peer has opened."""
    opened: list[Stream] = []
    session = Session(
        initiator=False,
        limits=MuxLimits(frames_at_once=frames_at_once, borrows=borrows),
        outbox=Outbox(),
        budget=Budget(),
        on_incoming=opened.append,
    )
    script = Script(pieces)
    return Reader(still, script.recv_into, Opener(suites.NOISE, KEY), session), script, opened


def parts(data: bytes, cuts: list[int]) -> list[bytes]:
    """``data`` cut at these places."""
    at = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    return [data[start:end] for start, end in itertools.pairwise(at) if end > start]


def everything(stream: Stream) -> bytes:
    """What a stream that has no end has kept."""
    space = bytearray(stream.inbox.buffered)
    stream.inbox.get_into(memoryview(space))
    return bytes(space)


@settings(max_examples=200, deadline=None)
@given(
    payloads=st.lists(
        st.tuples(st.integers(0, 2), st.binary(max_size=40) | st.just(bytes(300))), min_size=1, max_size=40
    ),
    records=st.lists(st.integers(0, 4000), max_size=12),
    reads=st.lists(st.integers(0, 4000), max_size=12),
    frames_at_once=st.sampled_from([1, 2, 3, 7, 256]),
    borrows=st.booleans(),
)
def test_frames_arrive_whatever_they_are_cut_into(
    still: Plane,
    payloads: list[tuple[int, bytes]],
    records: list[int],
    reads: list[int],
    frames_at_once: int,
    borrows: bool,
) -> None:
    wire = b"".join(raw(WINDOW, SYN, number, 0) for number in (1, 3, 5))
    expected = [b"", b"", b""]
    for which, payload in payloads:
        expected[which] += payload
        wire += raw(PING, SYN, 0, 7) + raw(DATA, 0, 1 + 2 * which, len(payload), payload)
    wire += b"".join(raw(DATA, FIN, number, 0) for number in (1, 3, 5))
    pieces = parts(sealed(parts(wire, records)), reads)
    reader, script, opened = reader_of(still, pieces, frames_at_once, borrows=borrows)
    reader.readable = True
    turns = 0
    while script.pieces or reader.wants_turn:
        before = reader.bytes_in
        was_behind = reader.behind
        assert reader.read()
        assert not was_behind or reader.bytes_in == before, "nothing new is read while frames wait"
        turns += 1
    assert turns >= len(payloads) // frames_at_once
    assert [everything(stream) for stream in opened] == expected
    assert all(stream.got_fin for stream in opened)
    reader.close()


def test_whole_records_wait_behind_frames_that_wait(still: Plane) -> None:
    ping = raw(PING, SYN, 0, 1)
    wire = sealed([ping * 5, ping * 5, raw(WINDOW, SYN, 1, 0)])
    reader, _, opened = reader_of(still, [wire], frames_at_once=4)
    turns = 0
    reader.readable = True
    while reader.wants_turn:
        reader.read()
        turns += 1
    # 3 records and 11 frames, four of these in a turn.
    assert (turns, len(opened)) == (4, 1)
    reader.close()


CUT_PING = raw(PING, SYN, 0, 1)


@pytest.mark.parametrize(
    "records",
    [
        [b""] * 500,
        [CUT_PING[:6], CUT_PING[6:]] * 250,
        [raw(WINDOW, SYN, 1, 0), raw(DATA, 0, 1, 498), *[b"x"] * 498],
        [raw(DATA, 0, 9, 498), *[b"x"] * 499],
    ],
    ids=["empty", "cut", "bytes of a frame", "bytes of nobody's frame"],
)
@pytest.mark.parametrize("borrows", [True, False])
def test_records_count_whatever_is_in_them(still: Plane, records: list[bytes], borrows: bool) -> None:
    reader, script, _ = reader_of(still, [sealed(records)], 10, borrows=borrows)
    reader.readable = True
    turns, opened = 0, 0
    while reader.wants_turn:
        reader.read()
        assert reader._opener._next - opened <= 10, "so many in a turn"
        opened, turns = reader._opener._next, turns + 1
    assert opened == len(records)
    assert turns >= 50
    assert not script.pieces
    reader.close()


def test_part_of_a_record_holds_no_more_memory_than_it_has(still: Plane) -> None:
    """Of one who has proved nothing, however much of a record has come."""
    wire = sealed([bytes(60_000)])
    reader, _, _ = reader_of(still, [wire[:40_000], wire[40_000:50_000]], borrows=False)
    for expected in (40_000, 50_000):
        reader.read()
        assert reader._buffer is None
        assert len(reader._rest) == expected
    reader.close()
    assert not reader._rest


def test_the_end_and_what_breaks_the_pipe_are_told(still: Plane) -> None:
    reader, _, _ = reader_of(still, [b""])
    assert not reader.read()

    def broken(buffer: memoryview) -> int:
        raise ConnectionResetError(104, "Connection reset by peer")

    reader._recv_into = broken
    with pytest.raises(PipeError, match="reset by peer"):
        reader.read()


@trio_test
async def test_a_record_of_many_frames_leaves_the_others_their_turns() -> None:
    """One peer's thousand frames came first; the other's one is handled long before the last of them."""
    order: list[str] = []
    release = threading.Event()
    async with plane() as running, raw_peer(frames_at_once=10) as (one, greedy), raw_peer() as (two, modest):
        await settle()
        running.call(release.wait)
        try:
            one.tunnel.session._on_incoming = lambda stream: order.append(f"greedy {stream.id}")
            two.tunnel.session._on_incoming = lambda stream: order.append("modest")
            pings = raw(PING, SYN, 0, 5) * 1000
            await greedy.send(raw(WINDOW, SYN, 1, 0), pings, raw(WINDOW, SYN, 3, 0))
            await modest.send(raw(WINDOW, SYN, 1, 0))
        finally:
            release.set()
        await settle()
    assert order == ["greedy 1", "modest", "greedy 3"]


@trio_test
async def test_what_came_before_the_end_is_handled_before_it() -> None:
    async with raw_peer(frames_at_once=2) as (muxer, peer):
        await peer.send(raw(WINDOW, SYN, 1, 0))
        stream = await muxer.accept()
        data = b"".join(raw(DATA, 0, 1, 1, b"x") for _ in range(50))
        await peer.send(data, raw(DATA, FIN, 1, 0))
        peer.pipe.socket.shutdown(trio.socket.SHUT_WR)
        assert await receive_all(stream) == b"x" * 50


@trio_test
async def test_what_came_is_handled_though_nothing_can_be_sent_any_more() -> None:
    """The peer has said all, and closed: an answer to its pings finds the pipe broken while data waits."""
    release = threading.Event()
    async with plane() as running, raw_peer(frames_at_once=2) as (muxer, peer):
        await peer.send(raw(WINDOW, SYN, 1, 0))
        stream = await muxer.accept()
        await settle()
        running.call(release.wait)
        try:
            data = b"".join(raw(PING, SYN, 0, n) + raw(DATA, 0, 1, 1, b"x") for n in range(50))
            await peer.send(data, raw(DATA, FIN, 1, 0), raw(GO_AWAY, 0, 0, 0))
            peer.pipe.socket.close()
        finally:
            release.set()
        assert await receive_all(stream) == b"x" * 50
        await muxer.closed.wait()
        assert not muxer.lost, "its GoAway was read"


@trio_test
async def test_nothing_is_handled_behind_a_protocol_error() -> None:
    async with raw_peer(frames_at_once=3) as (muxer, peer):
        pings = raw(PING, SYN, 0, 5) * 10
        await peer.send(pings, raw(9, 0, 0, 0), raw(WINDOW, SYN, 1, 0))
        told = [frame.told for frame in await peer.until_end()]
        assert told[-1] == (GO_AWAY, 0, 0, 1)
        await muxer.closed.wait()
        assert "type 9" in muxer.close_reason
        assert muxer.stream_count == 0
        assert not muxer.tunnel.reader.behind
