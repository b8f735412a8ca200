"""The state of a connection without any of its I/O: what a frame does, and what it must not do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from hived.transport.budget import Budget
from hived.transport.frames import (
    ACK,
    DATA,
    FIN,
    GO_AWAY,
    INITIAL_WINDOW,
    PING,
    RST,
    SYN,
    WINDOW_UPDATE,
    Frame,
    ProtocolError,
)
from hived.transport.limits import MuxLimits
from hived.transport.outbox import Outbox
from hived.transport.session import NoStreamsError, PeerEndedError, Session
from hived.transport.stream import EOF, Stream


class Recorder:
    """An end that keeps what it is told. ``on_finish`` is called when the peer ends."""

    def __init__(self, takes: int = 2**30, on_finish: Callable[[], None] = lambda: None) -> None:
        self.takes = takes
        self.data = b""
        self.said: list[str] = []
        self.gives = b""
        self.ended = False
        self.on_finish = on_finish

    @property
    def readable(self) -> bool:
        return bool(self.gives) or self.ended

    def deliver(self, data: memoryview) -> int:
        size = min(len(data), self.takes)
        self.takes -= size
        self.data += bytes(data[:size])
        return size

    def pull(self, space: memoryview) -> int:
        size = min(len(space), len(self.gives))
        space[:size] = self.gives[:size]
        self.gives = self.gives[size:]
        return size or (EOF if self.ended else 0)

    def finished(self) -> None:
        self.said.append("finished")
        self.on_finish()

    def broken(self, why: str, *, received: bool) -> None:
        self.said.append(f"broken, received {received}")


class Side:
    """A session with what it says."""

    def __init__(self, **limits: Any) -> None:
        self.incoming: list[Stream] = []
        self.outbox = Outbox()
        self.budget = Budget()
        self.session = Session(
            initiator=True,
            limits=MuxLimits(**limits),
            outbox=self.outbox,
            budget=self.budget,
            on_incoming=self.incoming.append,
        )

    def handle(self, kind: int, flags: int, stream_id: int, length: int = 0, payload: bytes = b"") -> None:
        self.session.handle(Frame(kind, flags, stream_id, length or len(payload), payload))

    def opened(self, end: Recorder) -> Stream:
        """A stream of the peer's with this end."""
        self.handle(WINDOW_UPDATE, SYN, 2)
        stream = self.incoming.pop()
        stream.attach(end)
        return stream


def test_a_side_that_was_cut_off_has_no_end() -> None:
    """Data and FIN, of which a part waits; then RST: what is asked for afterwards was not all there was."""
    side, end = Side(), Recorder(takes=1)
    stream = side.opened(end)
    side.handle(DATA, FIN, stream.id, payload=b"abc")
    side.handle(WINDOW_UPDATE, RST, stream.id)
    stream.drain()
    assert end.said == ["broken, received False"]


@pytest.mark.parametrize("waiting", [True, False])
def test_an_end_may_close_its_stream_while_it_is_given_bytes(waiting: bool) -> None:
    """What it did not take is forgotten, and counted no more."""

    class Closing(Recorder):
        def deliver(self, data: memoryview) -> int:
            taken = super().deliver(data)
            if taken:
                side.session.close(stream)
            return taken

    side, end = Side(), Closing(takes=0 if waiting else 1)
    stream = side.opened(end)
    side.handle(DATA, 0, stream.id, payload=b"abc")
    if waiting:
        end.takes = 2
        stream.drain()
    assert end.data == (b"ab" if waiting else b"a")
    assert side.budget.buffered == 0


def test_bytes_go_to_the_end_as_far_as_it_takes_them() -> None:
    side, end = Side(), Recorder(takes=3)
    stream = side.opened(end)
    side.handle(DATA, 0, 2, payload=b"abcdef")
    side.handle(DATA, FIN, 2, payload=b"ghi")
    assert (end.data, side.budget.buffered, end.said) == (b"abc", 6, [])
    end.takes = 4
    stream.drain()
    assert (end.data, side.budget.buffered, end.said) == (b"abcdefg", 2, [])
    end.takes = 99
    stream.drain()
    assert (end.data, side.budget.buffered, end.said) == (b"abcdefghi", 0, ["finished"])
    stream.drain()
    assert end.said == ["finished"]


def test_another_end_gets_what_the_first_has_left() -> None:
    side, first, second = Side(), Recorder(takes=4), Recorder()
    stream = side.opened(first)
    side.handle(DATA, FIN, 2, payload=b"abcdef")
    stream.put_back(b"cd")
    stream.attach(second)
    assert (second.data, second.said) == (b"cdef", ["finished"])
    assert side.budget.buffered == 0


def test_another_end_hears_of_the_peers_end_too() -> None:
    side, first, second = Side(), Recorder(), Recorder()
    stream = side.opened(first)
    side.handle(DATA, FIN, 2, payload=b"abc")
    assert first.said == ["finished"]
    stream.put_back(b"bc")
    stream.attach(second)
    assert (second.data, second.said) == (b"bc", ["finished"])


@pytest.mark.parametrize("sent_fin", [False, True])
def test_an_end_may_reset_the_stream_when_the_peer_ends_it(sent_fin: bool) -> None:
    """Of all moments in that one, and whether we had ended our side or not."""
    side = Side()
    end = Recorder()
    stream = side.opened(end)
    end.on_finish = stream.reset
    if sent_fin:
        side.session.finish(stream)
    side.handle(DATA, FIN, 2, payload=b"x")
    assert side.session.streams == {}
    assert (side.budget.windows, side.budget.buffered) == (0, 0)


def test_a_reset_tells_the_end_once_and_frees_all() -> None:
    side, end = Side(), Recorder(takes=0)
    side.opened(end)
    side.handle(DATA, 0, 2, payload=b"abc")
    side.handle(WINDOW_UPDATE, RST, 2)
    side.handle(WINDOW_UPDATE, RST, 2)
    assert end.said == ["broken, received False"]
    assert (side.budget.windows, side.budget.buffered) == (0, 0)


def test_our_own_reset_does_not_come_back_to_the_end() -> None:
    side, end = Side(), Recorder()
    stream = side.opened(end)
    stream.reset()
    stream.reset()
    assert end.said == []
    assert side.outbox.pending_resets == 1
    assert side.session.streams == {}


def test_data_behind_the_peers_end_ends_the_stream() -> None:
    side, end = Side(), Recorder()
    side.opened(end)
    side.handle(DATA, FIN, 2)
    side.handle(DATA, 0, 2, payload=b"x")
    assert end.said == ["finished", "broken, received False"]
    assert side.outbox.pending_resets == 1


def test_the_loss_of_the_connection() -> None:
    side, open_end, ended = Side(), Recorder(takes=0), Recorder(takes=0)
    side.opened(open_end)
    side.handle(DATA, 0, 2, payload=b"abc")
    side.handle(DATA, SYN, 4, payload=b"def")
    stream = side.incoming.pop()
    stream.attach(ended)
    side.handle(DATA, FIN, 4)
    told: list[str] = []

    def learns() -> None:
        with pytest.raises(NoStreamsError):
            side.session.open()
        told.append("none")

    side.session.limits = MuxLimits(max_streams=0)
    side.session.when_openable(learns)
    side.session.fail("cut")
    assert open_end.said == ["broken, received False"]
    assert ended.said == ["broken, received True"]
    assert told == ["none"]
    assert side.session.finished
    ended.takes = 99
    stream.drain()
    assert ended.data == b"def", "what ended before is still there"
    assert (side.budget.windows, side.budget.buffered) == (0, 0)


def test_those_who_wait_to_open_come_in_their_order() -> None:
    side = Side(ack_backlog=1)
    opened: list[tuple[str, int]] = []
    for name in "abc":
        side.session.when_openable(lambda name=name: opened.append((name, side.session.open().id)))  # type: ignore[misc]
    assert opened == [("a", 1)]
    side.handle(WINDOW_UPDATE, ACK, 1)
    assert opened == [("a", 1), ("b", 3)]
    side.handle(WINDOW_UPDATE, RST, 3)
    assert opened == [("a", 1), ("b", 3), ("c", 5)]


def test_many_wait_when_the_numbers_run_out() -> None:
    side = Side(ack_backlog=1)
    refused: list[int] = []

    def wants(number: int) -> None:
        try:
            side.session.open()
        except NoStreamsError:
            refused.append(number)

    side.session._next_id = 2**32 - 1
    for number in range(3000):
        side.session.when_openable(lambda number=number: wants(number))  # type: ignore[misc]
    side.handle(WINDOW_UPDATE, ACK, 2**32 - 1)
    assert sorted(refused) == list(range(1, 3000))


def test_closed_streams_that_the_peer_never_acknowledges_make_room_in_time() -> None:
    side = Side(ack_backlog=4)
    lingering, unsent, living, slow = (side.session.open() for _ in range(4))
    assert not side.session.may_open
    for stream in (lingering, unsent, living, slow):
        stream.attach(Recorder())
    assert all(side.outbox.take_opening(stream) for stream in (lingering, unsent, living, slow))
    side.session.finish(lingering)
    side.session.close(lingering)
    side.session.close(unsent)
    side.session.give_up_unacknowledged()
    assert not side.session.may_open, "they have had no time"
    # Acknowledged meanwhile, and closed since.
    side.session.handle(Frame(WINDOW_UPDATE, ACK, slow.id, 0))
    side.session.finish(slow)
    side.session.close(slow)
    side.session.give_up_unacknowledged()
    assert side.session.may_open
    assert side.session.unacknowledged == {living.id}
    assert living.id in side.session.streams
    assert unsent.dead
    assert side.session._departed.lingering == 1, "the one that was acknowledged waits for the peer's end"
    assert side.outbox.pending_resets == 2


def test_credit_comes_with_reading_and_none_behind_the_end() -> None:
    side, end = Side(max_window=INITIAL_WINDOW), Recorder()
    side.opened(end)
    side.handle(DATA, 0, 2, payload=bytes(INITIAL_WINDOW // 4 - 1))
    assert side.outbox.take_control(4096) == b""
    side.handle(DATA, 0, 2, payload=b"x")
    assert side.outbox.take_control(4096).hex() == "000100000000000200010000"
    end.takes = 0
    side.handle(DATA, FIN, 2, payload=bytes(INITIAL_WINDOW // 2))
    end.takes = 2**20
    side.session.streams[2].drain()
    assert side.outbox.take_control(4096) == b""


def test_a_blocked_stream_is_asked_again_when_there_is_window() -> None:
    side = Side()
    stream = side.opened(Recorder())
    side.outbox.quick.clear()
    stream.queued = False
    stream.send_window = 0
    stream.ready()
    assert not side.outbox.quick
    side.handle(WINDOW_UPDATE, 0, 2, 5)
    assert list(side.outbox.quick) == [stream]


def test_what_opens_a_stream_goes_with_its_first_data() -> None:
    side, end = Side(), Recorder()
    stream = side.opened(end)
    stream.head, end.gives = b"opening", b"data"
    space = memoryview(bytearray(100))
    assert stream.fill(space) == 11
    assert bytes(space[:11]) == b"openingdata"
    stream.head, end.ended = b"last", True
    assert stream.fill(space) == 4
    assert stream.has_more
    assert stream.fill(space) == EOF


def test_pings() -> None:
    side = Side()
    side.session.ping()
    (value,) = side.outbox._pings
    side.handle(PING, ACK, 0, value + 1)
    assert not side.session.ping_answered
    side.handle(PING, ACK, 0, value)
    assert side.session.ping_answered
    assert side.session.rtt is not None


def test_go_away() -> None:
    side = Side()
    stream = side.opened(Recorder())
    side.handle(GO_AWAY, 0, 0)
    assert side.session.draining
    assert not side.session.finished
    with pytest.raises(NoStreamsError):
        side.session.open()
    stream.reset()
    assert side.session.finished
    with pytest.raises(PeerEndedError, match="code 2"):
        side.handle(GO_AWAY, 0, 0, 2)


def test_a_number_of_our_side_is_the_peers_error() -> None:
    with pytest.raises(ProtocolError):
        Side().handle(WINDOW_UPDATE, SYN, 1)
