"""The receive window: overruns, credit, and how it grows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hived.transport.frames import INITIAL_WINDOW, ProtocolError
from hived.transport.inbox import Inbox


def yes(size: int) -> bool:
    return True


def no(size: int) -> bool:
    return False


def fill(inbox: Inbox, size: int) -> None:
    inbox.announce(size)
    inbox.put(bytes(size))


def drain(inbox: Inbox) -> int:
    total = 0
    while data := inbox.get(65536):
        total += len(data)
    return total


def test_the_window_is_full_and_not_a_byte_more() -> None:
    inbox = Inbox(0.0)
    fill(inbox, INITIAL_WINDOW)
    inbox.announce(0)
    with pytest.raises(ProtocolError, match="1 bytes sent into a window of 0"):
        inbox.announce(1)


def test_reading_alone_gives_no_window() -> None:
    inbox = Inbox(0.0)
    fill(inbox, INITIAL_WINDOW)
    drain(inbox)
    with pytest.raises(ProtocolError):
        inbox.announce(1)


def test_credit_comes_at_a_quarter() -> None:
    inbox = Inbox(0.0)
    fill(inbox, INITIAL_WINDOW)
    inbox.get(INITIAL_WINDOW // 4 - 1)
    assert inbox.credit(9.0, None, yes) == 0
    inbox.get(1)
    assert inbox.credit(9.0, None, yes) == INITIAL_WINDOW // 4
    assert inbox.credit(9.0, None, yes) == 0
    inbox.announce(INITIAL_WINDOW // 4)


def test_the_window_doubles_for_a_reader_that_keeps_up() -> None:
    inbox = Inbox(0.0)
    fill(inbox, 65536)
    drain(inbox)
    assert inbox.credit(0.09, 0.1, yes) == 65536 + INITIAL_WINDOW
    assert inbox.window == inbox.allowed == 2 * INITIAL_WINDOW


def test_it_does_not_for_a_slow_one_or_against_the_bound() -> None:
    for now, may_grow in ((0.2, yes), (0.05, no)):
        inbox = Inbox(0.0)
        fill(inbox, 65536)
        drain(inbox)
        assert inbox.credit(now, 0.1, may_grow) == 65536
        assert inbox.window == inbox.allowed == INITIAL_WINDOW


def test_top_up_moves_a_stuck_peer_once() -> None:
    inbox = Inbox(0.0)
    assert inbox.top_up() == 0
    fill(inbox, INITIAL_WINDOW)
    assert inbox.top_up() == INITIAL_WINDOW
    assert inbox.top_up() == 0


@given(st.lists(st.tuples(st.integers(0, 300_000), st.integers(1, 300_000), st.booleans()), max_size=60))
def test_what_is_buffered_never_exceeds_the_window(steps: list[tuple[int, int, bool]]) -> None:
    inbox, now = Inbox(0.0), 0.0
    for size, read, quick in steps:
        now += 0.001 if quick else 1.0
        fill(inbox, min(size, inbox.allowed))
        inbox.get(read)
        inbox.credit(now, 0.1, lambda window: window * 2 <= 2**22)
        # What the peer may still send and what waits to be read fit the window together.
        assert inbox.allowed + inbox.buffered <= inbox.window <= 2**22


def test_what_went_to_the_reader_at_once_counts_as_read() -> None:
    inbox = Inbox(0.0)
    inbox.announce(INITIAL_WINDOW // 4)
    inbox.passed(INITIAL_WINDOW // 4)
    assert inbox.buffered == 0
    assert inbox.worth_credit
    assert inbox.credit(9.0, None, yes) == INITIAL_WINDOW // 4


def test_reading_by_view_counts_as_well() -> None:
    inbox = Inbox(0.0)
    fill(inbox, INITIAL_WINDOW // 4)
    with inbox.first() as view:
        assert len(view) == INITIAL_WINDOW // 4
    inbox.drop(INITIAL_WINDOW // 4 - 1)
    assert not inbox.worth_credit
    assert inbox.get_into(memoryview(bytearray(100))) == 1
    assert inbox.worth_credit
    assert inbox.buffered == 0


def test_what_is_put_back_comes_first_and_was_not_read() -> None:
    inbox = Inbox(0.0)
    inbox.announce(INITIAL_WINDOW // 4)
    inbox.put(b"abc" + bytes(INITIAL_WINDOW // 4 - 3))
    early = inbox.get(INITIAL_WINDOW)
    assert inbox.worth_credit
    inbox.put_back(early)
    assert not inbox.worth_credit
    assert inbox.buffered == INITIAL_WINDOW // 4
    assert inbox.get(3) == b"abc"


def test_a_window_that_has_grown_shrinks_by_halves_to_its_first_size() -> None:
    inbox = Inbox(0.0)
    sizes = []
    for now in (0.001, 0.002):
        fill(inbox, inbox.window)
        drain(inbox)
        inbox.credit(now, 0.1, yes)
    assert inbox.window == 4 * INITIAL_WINDOW
    for _ in range(4):
        fill(inbox, inbox.allowed)
        drain(inbox)
        before = inbox.window
        assert before - inbox.shrink() == inbox.window
        inbox.credit(9.0, 0.1, no)
        assert inbox.allowed == inbox.window
        sizes.append(inbox.window)
    assert sizes == [2 * INITIAL_WINDOW, INITIAL_WINDOW, INITIAL_WINDOW, INITIAL_WINDOW]


def test_a_window_shrinks_by_no_more_than_was_read() -> None:
    """Taking back what the peer was promised would be breaking the protocol."""
    inbox = Inbox(0.0)
    fill(inbox, INITIAL_WINDOW)
    drain(inbox)
    inbox.credit(0.001, 0.1, yes)
    fill(inbox, 1000)
    drain(inbox)
    assert inbox.shrink() == 1000
    assert inbox.allowed == inbox.window == 2 * INITIAL_WINDOW - 1000
