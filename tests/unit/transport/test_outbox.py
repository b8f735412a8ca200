"""What waits for a connection's writer: order, whose turn it is, and bounds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hived.transport.budget import Budget
from hived.transport.frames import (
    ACK,
    DATA,
    FIN,
    GO_AWAY,
    PING,
    RST,
    SYN,
    WINDOW_UPDATE,
    Decoder,
    Frame,
)
from hived.transport.limits import MuxLimits
from hived.transport.outbox import QUANTUM, SHORT_BYTES, Outbox
from hived.transport.session import Session
from hived.transport.stream import Stream

ROOM = 4096


def streams(outbox: Outbox, count: int = 1) -> list[Stream]:
    session = Session(
        initiator=True, limits=MuxLimits(), outbox=outbox, budget=Budget(), on_incoming=lambda stream: None
    )
    return [Stream(number, session) for number in range(1, count + 1)]


def frames(wire: bytes) -> list[tuple[Any, ...]]:
    decoder = Decoder()
    found = [frame[:4] for frame in decoder.feed(wire)]
    assert decoder.idle, "a frame was cut"
    return found


def control(outbox: Outbox, room: int = ROOM) -> list[tuple[Any, ...]]:
    wire = outbox.take_control(room)
    assert len(wire) <= room
    return frames(wire)


def next_stream(outbox: Outbox, size: int, *, more: bool = True) -> int:
    """Whose turn it is, as the writer does it: short ones before bulk. It sends ``size`` bytes."""
    stream = outbox.quick.popleft() if outbox.quick else outbox.bulk.popleft()
    stream.queued = False
    outbox.sent(stream, size, more)
    return stream.id


def test_nothing_waits() -> None:
    outbox = Outbox()
    assert outbox.empty
    assert not outbox.urgent
    assert outbox.take_control(ROOM) == b""
    assert outbox.take_go_away() == b""


def test_the_order_of_control_frames() -> None:
    """Pings, resets before window updates (a new stream may take the place of a reset one), then ends."""
    outbox = Outbox()
    (stream,) = streams(outbox)
    outbox.finish(stream)
    outbox.control(stream, credit=7)
    outbox.reset(9)
    outbox.pong(2)
    outbox.ping(1)
    assert outbox.urgent
    assert control(outbox) == [
        (PING, SYN, 0, 1),
        (PING, ACK, 0, 2),
        (WINDOW_UPDATE, RST, 9, 0),
        (WINDOW_UPDATE, 0, 1, 7),
        (DATA, FIN, 1, 0),
    ]
    assert not outbox.urgent
    assert outbox.empty


def test_no_more_than_there_is_room_for() -> None:
    outbox = Outbox()
    for number in range(1, 11):
        outbox.reset(number)
    assert [told[2] for told in control(outbox, 12 * 4 + 11)] == [1, 2, 3, 4]
    assert outbox.urgent
    assert [told[2] for told in control(outbox, 12 * 6)] == [5, 6, 7, 8, 9, 10]
    assert not outbox.urgent


def test_whatever_is_added_wakes_the_writer() -> None:
    woken: list[int] = []
    outbox = Outbox(lambda: woken.append(1))
    (stream,) = streams(outbox)
    adds: list[Callable[[], None]] = [
        lambda: outbox.ready(stream),
        lambda: outbox.control(stream, ACK),
        lambda: outbox.finish(stream),
        lambda: outbox.reset(3),
        lambda: outbox.ping(1),
        lambda: outbox.pong(1),
        lambda: outbox.go_away(0, drop=False),
    ]
    for number, add in enumerate(adds, 1):
        add()
        assert len(woken) == number


# Whose turn it is


def test_a_new_stream_is_quick_until_it_fills_its_records() -> None:
    outbox = Outbox()
    (stream,) = streams(outbox)
    outbox.ready(stream)
    assert list(outbox.quick) == [stream]
    outbox.quick.popleft()
    outbox.sent(stream, SHORT_BYTES - 1, True)
    assert list(outbox.quick) == [stream]
    outbox.quick.popleft()
    outbox.sent(stream, SHORT_BYTES, True)
    assert (list(outbox.quick), list(outbox.bulk)) == ([], [stream])
    outbox.bulk.popleft()
    outbox.sent(stream, 10, False)
    assert outbox.empty
    outbox.ready(stream)
    assert list(outbox.quick) == [stream], "quick again behind one short record"


def test_short_messages_go_before_bulk() -> None:
    outbox = Outbox()
    bulk, short = streams(outbox, 2)
    bulk.bulk = True
    outbox.ready(bulk)
    outbox.ready(short)
    assert next_stream(outbox, 100, more=False) == short.id
    assert next_stream(outbox, 60_000) == bulk.id


SIZES = [(65_507, 65_507, 65_507), (20_000, 65_507, 131_072), (131_072, 16_384, 40_000)]


@pytest.mark.parametrize("sizes", SIZES)
def test_bulk_streams_are_equal_by_bytes(sizes: tuple[int, ...]) -> None:
    """Whoever fills its records has no more than whoever half fills them."""
    outbox = Outbox()
    made = streams(outbox, 3)
    for stream in made:
        stream.bulk = True
        outbox.ready(stream)
    sent = dict.fromkeys((1, 2, 3), 0)
    while sum(sent.values()) < 60_000_000:
        number = outbox.bulk[0].id
        assert next_stream(outbox, sizes[number - 1]) == number
        sent[number] += sizes[number - 1]
    share = sum(sent.values()) / 3
    for number, total in sent.items():
        turn = -(-QUANTUM // sizes[number - 1]) * sizes[number - 1]
        assert total / share == pytest.approx(turn / _mean_turn(sizes), rel=0.05)
        assert total / share > 0.7


def _mean_turn(sizes: tuple[int, ...]) -> float:
    return sum(-(-QUANTUM // size) * size for size in sizes) / len(sizes)


def test_a_turn_lasts_a_quantum() -> None:
    outbox = Outbox()
    for stream in streams(outbox, 2):
        stream.bulk = True
        outbox.ready(stream)
    order = [next_stream(outbox, QUANTUM // 4) for _ in range(16)]
    assert order == ([1] * 4 + [2] * 4) * 2


def test_who_becomes_bulk_waits_behind_those_that_are() -> None:
    outbox = Outbox()
    bulk, growing = streams(outbox, 2)
    bulk.bulk = True
    outbox.ready(bulk)
    outbox.ready(growing)
    assert next_stream(outbox, 60_000) == growing.id
    assert next_stream(outbox, 60_000) == bulk.id


# Ends


def test_window_updates_of_a_stream_become_one() -> None:
    outbox = Outbox()
    (stream,) = streams(outbox)
    outbox.control(stream, ACK)
    outbox.control(stream, credit=1000)
    outbox.control(stream, credit=24)
    assert control(outbox) == [(WINDOW_UPDATE, ACK, 1, 1024)]
    outbox.control(stream, credit=1)
    assert control(outbox) == [(WINDOW_UPDATE, 0, 1, 1)]


def test_reset_replaces_what_waits() -> None:
    outbox = Outbox()
    (stream,) = streams(outbox)
    outbox.control(stream, ACK, 5)
    outbox.finish(stream)
    outbox.reset(1, stream)
    assert outbox.pending_resets == 1
    assert control(outbox) == [(WINDOW_UPDATE, RST, 1, 0)]
    assert outbox.empty


def test_a_stream_that_the_peer_does_not_know_is_forgotten_in_silence() -> None:
    outbox = Outbox()
    (stream,) = streams(outbox)
    outbox.control(stream, SYN)
    outbox.reset(1, stream)
    assert control(outbox) == []
    assert outbox.empty


@pytest.mark.parametrize("what", ["control", "finish", "syn and reset"])
def test_what_was_dropped_is_not_said(what: str) -> None:
    outbox = Outbox()
    (stream,) = streams(outbox)
    if what == "control":
        outbox.control(stream, credit=1)
        outbox.drop(stream)
    elif what == "finish":
        outbox.finish(stream)
        outbox.drop(stream)
    else:
        outbox.control(stream, SYN)
        outbox.reset(1, stream)
    assert outbox.take_control(ROOM) == b""
    assert not outbox.urgent
    assert outbox.empty


def test_pings_and_their_answers_are_bounded() -> None:
    outbox = Outbox()
    for value in range(100_000):
        outbox.ping(value)
        outbox.pong(value)
    found = control(outbox)
    assert len(found) <= 32
    assert found[-1] == (PING, ACK, 0, 99_999)
    assert outbox.empty


def test_go_away_waits_for_what_was_there_before() -> None:
    outbox = Outbox()
    (stream,) = streams(outbox)
    outbox.finish(stream)
    outbox.ready(stream)
    outbox.go_away(0, drop=False)
    assert outbox.urgent
    assert outbox.quick
    assert not outbox.empty
    assert frames(outbox.take_go_away()) == [(GO_AWAY, 0, 0, 0)]
    assert outbox.take_go_away() == b""


def test_go_away_alone() -> None:
    outbox = Outbox()
    (stream,) = streams(outbox)
    outbox.ready(stream)
    outbox.control(stream, credit=1)
    outbox.reset(9)
    outbox.pong(1)
    outbox.ping(1)
    outbox.go_away(1, drop=True)
    assert not outbox.urgent
    assert not outbox.quick
    assert not outbox.bulk
    assert control(outbox) == []
    assert frames(outbox.take_go_away()) == [(GO_AWAY, 0, 0, 1)]
    assert outbox.empty


steps = st.lists(
    st.tuples(st.sampled_from(["control", "take", "reset", "finish", "drop"]), st.integers(1, 5)), max_size=80
)


@given(steps, st.integers(12, 100))
def test_control_frames_come_out_as_they_went_in(steps: list[tuple[str, int]], room: int) -> None:
    outbox = Outbox()
    made = {stream.id: stream for stream in streams(outbox, 5)}
    credit = dict.fromkeys(made, 0)
    ended: set[int] = set()
    reset: set[int] = set()
    finished: set[int] = set()
    dropped: set[int] = set()

    def take() -> bool:
        wire = outbox.take_control(room)
        assert len(wire) <= room
        assert bool(wire) or not outbox.urgent
        found = [Frame(*told) for told in frames(wire)]
        for frame in found:
            assert frame.stream_id not in ended, "something came after the end"
            assert frame.stream_id not in dropped
            if frame.flags & RST:
                assert frame.stream_id in reset
                ended.add(frame.stream_id)
            elif frame.kind == WINDOW_UPDATE:
                credit[frame.stream_id] -= frame.length
            else:
                assert frame.flags & FIN
                assert credit[frame.stream_id] == 0, "the end before what was said earlier"
                ended.add(frame.stream_id)
        return bool(found)

    for action, number in steps:
        stream = made[number]
        if action == "take":
            take()
        elif number in reset or number in finished or number in dropped:
            continue
        elif action == "control":
            outbox.control(stream, credit=10)
            credit[number] += 10
        elif action == "finish":
            outbox.finish(stream)
            finished.add(number)
        elif action == "drop":
            outbox.drop(stream)
            dropped.add(number)
        else:
            outbox.reset(number, stream)
            reset.add(number)
    while take():
        pass
    assert not outbox.urgent
    for number in set(made) - reset - dropped:
        assert credit[number] == 0
        assert (number in ended) == (number in finished)
    assert reset <= ended


def test_syn_goes_with_the_first_record() -> None:
    outbox = Outbox()
    first, second, third = streams(outbox, 3)
    for stream in (first, second, third):
        outbox.control(stream, SYN)
    outbox.ready(first)
    outbox.ready(second)
    outbox.control(second, credit=7)
    # The third has nothing to say yet.
    assert control(outbox) == [(WINDOW_UPDATE, SYN, 3, 0)]
    assert not outbox.urgent
    assert not outbox.empty
    outbox.reset(first.id, first)
    assert outbox.take_opening(first) == b"", "the peer has never heard of it"
    assert not outbox.urgent
    assert frames(outbox.take_opening(second)) == [(WINDOW_UPDATE, SYN, 2, 7)]
    assert outbox.take_opening(second) == b""
    outbox.control(second, credit=9)
    assert control(outbox) == [(WINDOW_UPDATE, 0, 2, 9)]
