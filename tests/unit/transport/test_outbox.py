"""The writer's queue: order, fairness, whole frames and bounds."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from hived.transport.frames import (
    ACK,
    DATA,
    FIN,
    GO_AWAY,
    MAX_BATCH,
    MAX_PAYLOAD,
    PING,
    RST,
    SYN,
    WINDOW_UPDATE,
    Decoder,
    Frame,
)
from hived.transport.outbox import QUEUE_BYTES, SHORT_BYTES, Lane, Outbox


def taken(outbox: Outbox) -> list[Frame]:
    batch = outbox.take()
    assert len(batch) <= MAX_BATCH
    decoder = Decoder()
    frames = list(decoder.feed(batch))
    assert not decoder._missing, "a frame was cut"
    assert not decoder._header, "a frame was cut"
    return frames


def heads(outbox: Outbox) -> list[tuple[Any, ...]]:
    return [frame[:4] for frame in taken(outbox)]


def outbox_with(**lanes: int) -> tuple[Outbox, dict[str, Lane]]:
    outbox = Outbox(2**22)
    made = {name: Lane(number) for number, name in enumerate(lanes, 1)}
    for name, size in lanes.items():
        if size:
            outbox.send(made[name], bytes(size))
    return outbox, made


def test_nothing_waits() -> None:
    assert Outbox(2**22).take() == b""


def test_control_goes_first_and_short_before_bulk() -> None:
    outbox, lanes = outbox_with(bulk=QUEUE_BYTES, short=100)
    outbox.control(lanes["bulk"], credit=7)
    outbox.ping(1)
    outbox.pong(2)
    outbox.reset(9)
    assert heads(outbox) == [
        (PING, SYN, 0, 1),
        (PING, ACK, 0, 2),
        (WINDOW_UPDATE, RST, 9, 0),
        (WINDOW_UPDATE, 0, 1, 7),
        (DATA, 0, 2, 100),
        (DATA, 0, 1, MAX_BATCH - 4 * 12 - 112 - 12),
    ]


def test_a_full_frame_alone_fills_one_noise_message() -> None:
    outbox, _ = outbox_with(bulk=QUEUE_BYTES)
    assert len(outbox.take()) == MAX_BATCH
    assert heads(outbox) == [(DATA, 0, 1, QUEUE_BYTES - MAX_PAYLOAD)]


def test_bulk_takes_turns_by_frame() -> None:
    outbox, lanes = outbox_with(a=QUEUE_BYTES, b=QUEUE_BYTES, c=QUEUE_BYTES)
    order = []
    for _ in range(9):
        order += [frame.stream_id for frame in taken(outbox)]
        for lane in lanes.values():
            if room := outbox.room(lane):
                outbox.send(lane, bytes(room))
    assert order == [1, 2, 3] * 3


def test_short_messages_share_a_batch() -> None:
    outbox, _ = outbox_with(a=10, b=20, c=30)
    assert heads(outbox) == [(DATA, 0, 1, 10), (DATA, 0, 2, 20), (DATA, 0, 3, 30)]


def test_short_messages_do_not_starve_bulk() -> None:
    outbox, lanes = outbox_with(bulk=QUEUE_BYTES, **{f"s{n}": SHORT_BYTES - 1 for n in range(8)})
    for turn in range(20):
        if any(frame.stream_id == 1 for frame in taken(outbox)):
            assert 1 < turn < 10
            return
        for name, lane in lanes.items():
            if name != "bulk" and not lane.queued:
                outbox.send(lane, bytes(SHORT_BYTES - 1))
    raise AssertionError("bulk never had a turn")


def test_a_growing_queue_becomes_bulk() -> None:
    outbox, lanes = outbox_with(a=10, b=10)
    outbox.send(lanes["a"], bytes(SHORT_BYTES))
    assert [frame.stream_id for frame in taken(outbox)] == [2, 1]


def test_window_updates_of_a_stream_become_one() -> None:
    outbox, lane = Outbox(2**22), Lane(5)
    outbox.control(lane, ACK)
    outbox.control(lane, credit=1000)
    outbox.control(lane, credit=24)
    assert heads(outbox) == [(WINDOW_UPDATE, ACK, 5, 1024)]
    outbox.control(lane, credit=1)
    assert heads(outbox) == [(WINDOW_UPDATE, 0, 5, 1)]


def test_fin_follows_the_data_in_a_frame_of_its_own() -> None:
    outbox, lanes = outbox_with(a=10)
    outbox.finish(lanes["a"])
    assert heads(outbox) == [(DATA, 0, 1, 10), (DATA, FIN, 1, 0)]
    assert outbox.take() == b""


def test_fin_waits_for_bulk_to_pass() -> None:
    outbox, lanes = outbox_with(a=QUEUE_BYTES)
    outbox.finish(lanes["a"])
    assert heads(outbox) == [(DATA, 0, 1, MAX_PAYLOAD)]
    assert heads(outbox) == [(DATA, 0, 1, QUEUE_BYTES - MAX_PAYLOAD), (DATA, FIN, 1, 0)]


def test_reset_replaces_what_waits() -> None:
    outbox, lanes = outbox_with(a=10)
    outbox.control(lanes["a"], ACK, 5)
    outbox.finish(lanes["a"])
    outbox.reset(1, lanes["a"])
    assert heads(outbox) == [(WINDOW_UPDATE, RST, 1, 0)]
    assert outbox.take() == b""
    assert outbox.queued == 0


def test_a_stream_that_the_peer_does_not_know_is_forgotten_in_silence() -> None:
    outbox, lane = Outbox(2**22), Lane(1)
    outbox.control(lane, SYN)
    outbox.send(lane, b"hello")
    outbox.reset(1, lane)
    assert outbox.take() == b""


def test_pings_and_their_answers_are_bounded() -> None:
    outbox = Outbox(2**22)
    for value in range(100_000):
        outbox.ping(value)
        outbox.pong(value)
    assert [frame[1:] for frame in taken(outbox)][-1] == (ACK, 0, 99_999, b"")
    assert outbox.take() == b""


def test_go_away_comes_last() -> None:
    outbox, lanes = outbox_with(a=QUEUE_BYTES)
    outbox.finish(lanes["a"])
    outbox.go_away(0, drop=False)
    kinds = []
    while frames := taken(outbox):
        kinds += [frame.kind for frame in frames]
    assert kinds == [DATA, DATA, DATA, GO_AWAY]


def test_go_away_alone() -> None:
    outbox, lanes = outbox_with(a=QUEUE_BYTES)
    outbox.control(lanes["a"], credit=1)
    outbox.reset(9)
    outbox.pong(1)
    outbox.go_away(1, drop=True)
    assert heads(outbox) == [(GO_AWAY, 0, 0, 1)]
    assert outbox.take() == b""


def test_room() -> None:
    outbox, lanes = outbox_with(a=10, b=0)
    assert outbox.room(lanes["a"]) == QUEUE_BYTES - 10
    outbox = Outbox(max_queued=100)
    outbox.send(lanes["b"], bytes(100))
    assert outbox.room(lanes["b"]) == SHORT_BYTES - 100


def test_who_waits_for_room_is_told() -> None:
    told: list[int] = []
    outbox = Outbox(2**22)
    lane = Lane(1, lambda: told.append(lane.queued))
    outbox.send(lane, bytes(QUEUE_BYTES))
    outbox.take()
    assert told == [QUEUE_BYTES - MAX_PAYLOAD]


steps = st.lists(
    st.tuples(st.sampled_from(["send", "control", "take", "reset", "finish"]), st.integers(1, 5)), max_size=80
)


@given(steps, st.randoms(use_true_random=False))
def test_each_stream_comes_out_as_it_went_in(steps: list[tuple[str, int]], noise: Any) -> None:
    outbox = Outbox(2**22)
    lanes = {number: Lane(number) for number in range(1, 6)}
    sent = dict.fromkeys(lanes, b"")
    got = dict.fromkeys(lanes, b"")
    credit = dict.fromkeys(lanes, 0)
    ended: set[int] = set()
    reset: set[int] = set()
    finished: set[int] = set()

    def take() -> bool:
        frames = taken(outbox)
        for frame in frames:
            assert frame.stream_id not in ended, "something came after the end"
            if frame.flags & RST:
                assert frame.stream_id in reset
            elif frame.kind == WINDOW_UPDATE:
                credit[frame.stream_id] -= frame.length
            else:
                got[frame.stream_id] += frame.payload
                if frame.flags & FIN:
                    ended.add(frame.stream_id)
        return bool(frames)

    for action, number in steps:
        lane = lanes[number]
        if action == "take":
            take()
        elif number in reset or number in finished:
            continue
        elif action == "send":
            data = noise.randbytes(min(outbox.room(lane), noise.choice([1, 100, 20_000, QUEUE_BYTES])))
            outbox.send(lane, data)
            sent[number] += data
        elif action == "control":
            outbox.control(lane, credit=10)
            credit[number] += 10
        elif action == "finish":
            outbox.finish(lane)
            finished.add(number)
        else:
            outbox.reset(number, lane)
            reset.add(number)
    while take():
        pass
    assert outbox.queued == 0
    for number in lanes:
        if number in reset:
            assert sent[number].startswith(got[number])
        else:
            assert sent[number] == got[number]
            assert credit[number] == 0
            assert (number in ended) == (number in finished)
