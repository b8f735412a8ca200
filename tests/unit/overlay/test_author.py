"""When this node's record is signed anew, and with which sequence, whatever the wall clock says."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hived.overlay.author import LEAP, RESIGN_SECONDS, Author
from hived.overlay.identity import Identity
from hived.overlay.networkkeys import network_id
from hived.overlay.records import SignedRecord, verify
from tests.unit.overlay.handclock import DAY, NOW, YEAR, HandClock
from tests.unit.overlay.parties import Logged

NETWORK = "net"
IDENTITY = Identity.from_seed(b"a" * 32)


def author(time: HandClock, name: str = "alpha", seed: int = 1) -> Author:
    made = Author(IDENTITY, time.clock, random.Random(seed))
    made.name, made.addresses = name, ["/ip4/192.0.2.1/tcp/4001"]
    return made


def signed(
    one: Author, own: SignedRecord | None = None, *, after: int = 0, anew: bool = False
) -> SignedRecord:
    made = one.sign(NETWORK, own, after=after, anew=anew)
    assert made is not None
    # What others take: the signature, the sequence and the time are within bounds.
    assert verify(made.envelope, network_id(NETWORK)).record == made.record
    return made


def test_the_sequence_is_the_time_in_milliseconds() -> None:
    time = HandClock()
    record = signed(author(time)).record
    assert (record.seq, record.issued) == (int(NOW * 1000), NOW)


def test_what_says_the_same_is_not_signed_again() -> None:
    time = HandClock()
    one = author(time)
    first = signed(one)
    time.go(3600)
    assert one.sign(NETWORK, first) is None
    one.name = "omega"
    assert signed(one, first).record.seq > first.record.seq


def test_another_boot_signs_again() -> None:
    """The nonce tells the boots apart, so that a copy of the identity can be told."""
    time = HandClock()
    first = signed(author(time))
    assert signed(author(time), first).record.nonce != first.record.nonce


@pytest.mark.parametrize("wall", [NOW, NOW + 10 * YEAR, NOW - 10 * YEAR, 0.0, -5 * YEAR])
def test_signed_anew_each_day_by_the_time_that_passes(wall: float) -> None:
    """The wall clock stands still at any time: only the other tells that a day has passed."""
    time = HandClock(wall=wall)
    one = author(time)
    own = signed(one)
    time.passed += 0.89 * RESIGN_SECONDS
    assert not one.is_due(NETWORK, own.record)
    time.passed += 0.12 * RESIGN_SECONDS
    assert one.is_due(NETWORK, own.record)
    own = signed(one, own, anew=True)
    assert not one.is_due(NETWORK, own.record)


def test_nodes_sign_at_different_times() -> None:
    """The day is drawn between 0.9 and 1.0, so that a network that started at once does not sign at once."""

    def due(seed: int) -> float:
        time = HandClock()
        one = author(time, seed=seed)
        own = signed(one)
        start = time.passed
        while not one.is_due(NETWORK, own.record):
            time.passed += 60
        return time.passed - start

    found = {due(seed) for seed in range(20)}
    assert len(found) > 10
    assert 0.9 * RESIGN_SECONDS <= min(found) <= max(found) <= RESIGN_SECONDS + 60


def test_a_day_by_the_wall_clock_is_enough() -> None:
    """A machine that slept: the time that passed did not count, the wall clock did."""
    time = HandClock()
    one = author(time)
    own = signed(one)
    time.wall += DAY + 1
    assert one.is_due(NETWORK, own.record)


def test_a_record_of_a_former_boot_is_due_where_its_time_lies_ahead() -> None:
    """The clock was ahead when it was signed, and has been set right since."""
    time = HandClock(wall=NOW + 10 * YEAR)
    own = signed(author(time))
    time.wall = NOW
    one = author(time)
    assert one.is_due(NETWORK, own.record)
    newer = signed(one, own, anew=True)
    assert newer.record.seq > own.record.seq
    assert newer.record.issued == NOW


def test_a_clock_before_1970_is_signed_anew_once_a_day() -> None:
    """Not at each look, though its time can be written as 0 only."""
    time = HandClock(wall=-5 * YEAR)
    one = author(time)
    own = signed(one)
    assert own.record.issued == 0.0
    signings = 0
    for _ in range(2 * 24 * 60):
        time.go(60)
        if one.is_due(NETWORK, own.record):
            own = signed(one, own, anew=True)
            signings += 1
    assert 2 <= signings <= 3


def test_past_a_higher_sequence() -> None:
    time = HandClock()
    one = author(time)
    own = signed(one)
    assert signed(one, own, after=2**51).record.seq == 2**51 + 1 + LEAP
    # Where the clock leads, its time is enough.
    assert signed(one, own, after=5).record.seq < 2**51 + LEAP + 3


jumps = st.lists(st.tuples(st.floats(-30 * YEAR, 30 * YEAR), st.booleans()), min_size=1, max_size=30)


@settings(max_examples=40, deadline=None)
@given(jumps)
def test_sequences_grow_however_the_wall_clock_jumps(steps: list[tuple[float, bool]]) -> None:
    """Over restarts too; every record is one that others take."""
    time = HandClock()
    one = author(time)
    own = signed(one)
    for jump, restart in steps:
        time.wall = NOW + jump
        time.passed += 60
        if restart:
            one = author(time)
        newer = signed(one, own, anew=True)
        assert newer.record.seq > own.record.seq
        own = newer


# Lives


def test_a_copy_that_runs_is_an_error_once_in_ten_minutes(logged: Logged) -> None:
    time = HandClock()
    one, twin = author(time), author(time, "twin")
    own, theirs = signed(one), signed(twin)
    for _ in range(50):
        time.go(10)
        theirs = signed(twin, theirs, after=own.record.seq)
        one.met(NETWORK, theirs.record, own.record.seq)
        own = signed(one, own, after=theirs.record.seq)
    lines = logged.having("another hived runs with this node's identity")
    assert 1 <= len(lines) <= 2
    assert lines[0]["name"] == "twin"
    assert "192.0.2.1" in lines[0]["addresses"]


def test_an_older_life_is_one_line_and_no_error(logged: Logged) -> None:
    time = HandClock()
    past = signed(author(time, "past"))
    one = author(replace(time, wall=NOW - YEAR))
    assert one.met(NETWORK, past.record, 1) == 0.0
    assert len(logged.having("older life")) == 1
    assert logged.having("another hived runs") == []


def test_two_records_of_one_older_life_are_no_copy(logged: Logged) -> None:
    """One member was away and has an earlier record of the same life; this node's clock is behind both.

    Past the first it leaps so far that no record of the months around is above it.
    """
    time = HandClock()
    before = author(time, "past")
    earlier = signed(before)
    time.go(DAY)
    later = signed(before, earlier, anew=True)
    time.wall = NOW - YEAR
    one = author(time)
    one.met(NETWORK, earlier.record, 1)
    own = signed(one, after=earlier.record.seq)
    assert own.record.seq > later.record.seq
    assert logged.having("another hived runs") == []


def test_a_war_of_two_copies_is_bounded(logged: Logged) -> None:
    """Two nodes that hear of each other every half minute publish at most 250 times in a day together."""
    time = HandClock()
    pair = (author(time, "one"), author(time, "two"))
    own = [signed(pair[0]), signed(pair[1], after=int(NOW * 1000) + 5)]
    due: list[float | None] = [None, None]
    published = 0
    for _ in range(24 * 120):
        time.go(30)
        for here in (0, 1):
            known, theirs, when = own[here].record, own[1 - here].record, due[here]
            if theirs.seq > known.seq and when is None:
                due[here] = time.passed + pair[here].met(NETWORK, theirs, known.seq)
            elif when is not None and time.passed >= when:
                own[here] = signed(pair[here], own[here], after=theirs.seq)
                due[here] = None
                published += 1
    assert 10 < published <= 250
    assert all(one.lives.twin_seen is not None for one in pair)
    assert len(logged.having("another hived runs")) <= 2 * 145


def test_two_copies_of_one_state_do_not_sign_the_same_sequence() -> None:
    """Their clock is behind their last sequence, so both count on from it; they must be told apart."""
    time = HandClock()
    last = signed(author(time), after=2**52)
    found = {signed(author(time, seed=seed), last).record.seq for seed in range(8)}
    assert len(found) > 1
    assert min(found) > last.record.seq
