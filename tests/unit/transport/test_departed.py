"""Streams closed here and not there: who is discarded, who is told, and how many are kept."""

from __future__ import annotations

import pytest

from hived.transport.budget import Budget
from hived.transport.departed import RECENT, Departed
from hived.transport.frames import DATA, FIN, INITIAL_WINDOW, RST, WINDOW_UPDATE, Frame, ProtocolError, header
from hived.transport.limits import MuxLimits
from hived.transport.outbox import Outbox
from hived.transport.session import Session
from hived.transport.stream import Stream

HALF = INITIAL_WINDOW // 2


def session(outbox: Outbox) -> Session:
    return Session(
        initiator=True,
        limits=MuxLimits(),
        outbox=outbox,
        budget=Budget(),
        on_incoming=lambda stream: None,
    )


def taken(outbox: Outbox) -> bytes:
    return outbox.take_control(4096)


def lingering(number: int = 1, unread: int = 0) -> tuple[Departed, Outbox]:
    outbox = Outbox()
    stream = Stream(number, session(outbox))
    stream.inbox.announce(unread)
    departed = Departed(outbox, max_lingering=2)
    assert list(departed.linger(stream)) == []
    return departed, outbox


def data(length: int, flags: int = 0) -> Frame:
    return Frame(DATA, flags, 1, length, bytes(length))


def test_up_to_half_a_window_is_discarded_in_silence() -> None:
    departed, outbox = lingering()
    assert departed.on_frame(data(HALF))
    assert departed.lingering == 1
    assert taken(outbox) == b""
    assert departed.on_frame(data(1))
    assert departed.lingering == 0
    assert taken(outbox) == header(WINDOW_UPDATE, RST, 1, 0)
    assert departed.on_frame(data(1)), "late frames are its own"
    assert taken(outbox) == b""


def test_a_peer_without_window_is_given_some() -> None:
    _, outbox = lingering(unread=INITIAL_WINDOW)
    assert taken(outbox) == header(WINDOW_UPDATE, 0, 1, INITIAL_WINDOW)
    _, outbox = lingering(unread=HALF)
    assert taken(outbox) == b""


@pytest.mark.parametrize("end", [data(0, FIN), data(5, FIN), data(0, RST), Frame(WINDOW_UPDATE, FIN, 1, 0)])
def test_the_peers_end_ends_it(end: Frame) -> None:
    departed, outbox = lingering()
    assert departed.on_frame(Frame(WINDOW_UPDATE, 0, 1, 99))
    assert departed.on_frame(end)
    assert departed.lingering == 0
    assert 1 in departed
    assert taken(outbox) == b""


def test_the_window_holds_here_too() -> None:
    departed, _ = lingering()
    with pytest.raises(ProtocolError):
        departed.on_frame(data(INITIAL_WINDOW + 1))


def test_both_memories_are_bounded() -> None:
    departed, outbox = lingering(1)
    of = session(outbox)
    assert list(departed.linger(Stream(3, of))) == []
    assert list(departed.linger(Stream(5, of))) == [1]
    assert taken(outbox) == header(WINDOW_UPDATE, RST, 1, 0)
    for number in range(7, 7 + 2 * RECENT, 2):
        departed.remember(number)
    assert 1 not in departed
    assert 3 in departed
    assert not departed.on_frame(data(1))
