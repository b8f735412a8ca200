"""Older lives of an identity are outdone at once; copies that run are told, and do so ever slower."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from hived.overlay.lives import CALM_SECONDS, MAX_WAIT, PROOFS, Lives

OURS, PAST, TWIN = b"ours", b"past", b"twin"


def test_an_older_life_is_outdone_at_once_and_is_no_copy() -> None:
    lives = Lives(OURS)
    assert not lives.met("net", PAST, 100, 50, 0.0)
    assert lives.outdo(0.0) == 0.0
    assert lives.twin_seen is None


def test_one_old_record_met_many_times_is_no_copy() -> None:
    """Members bring it before this node has published past it, and after."""
    lives = Lives(OURS)
    for own in (50, 50, 50, 101, 101):
        assert not lives.met("net", PAST, 100, own, 0.0)
    assert lives.twin_seen is None


def test_two_records_of_one_older_life_are_no_copy() -> None:
    """One member was away; this node's clock is behind, so that it published between the two."""
    lives = Lives(OURS)
    assert not lives.met("net", PAST, 100, 50, 0.0)
    assert not lives.met("net", PAST, 200, 101, 5.0)
    assert lives.twin_seen is None


def test_many_records_of_one_older_life_before_this_node_answers_are_no_copy() -> None:
    lives = Lives(OURS)
    for sequence in range(100, 120):
        assert not lives.met("net", PAST, sequence, 50, 0.0)


def test_older_lives_of_several_networks_are_no_copies() -> None:
    lives = Lives(OURS)
    for number in range(10):
        assert not lives.met(f"net{number}", PAST, 100, 50, 0.0)
        assert not lives.met("net", bytes([number]), 100 + number, 99 + number, 0.0)
    assert lives.twin_seen is None


def test_whoever_goes_on_answering_is_alive() -> None:
    lives, own, alive = Lives(OURS), 100, []
    for number in range(PROOFS + 2):
        alive.append(lives.met("net", TWIN, own + 1, own, 30.0 * number))
        own += 2
    assert alive == [False] * PROOFS + [True, True]
    assert lives.twin_seen == 30.0 * (PROOFS + 1)


def test_this_boots_nonce_in_a_newer_record_is_a_copied_memory() -> None:
    lives = Lives(OURS)
    assert lives.met("net", OURS, 100, 50, 5.0)
    assert lives.twin_seen == 5.0


def test_waits_grow_to_ten_minutes_and_are_forgotten_after_a_calm_hour() -> None:
    lives, now, waits = Lives(OURS), 0.0, []
    for _ in range(14):
        waits.append(lives.outdo(now))
        now += waits[-1]
    assert waits[:5] == [0.0, 1.0, 2.0, 4.0, 8.0]
    assert waits[-1] == MAX_WAIT
    assert lives.outdo(now + CALM_SECONDS + 1) == 0.0


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0.0, 120.0), min_size=10, max_size=200))
def test_two_copies_publish_a_bounded_number_of_times(delays: list[float]) -> None:
    """However fast each hears of the other, within six hours: 13 steps to ten minutes, then 6 an hour."""
    copies, nonces, now, published, turn = (Lives(b"one"), Lives(b"two")), (b"one", b"two"), 0.0, 0, 0
    while now < 6 * 3600.0:
        now += delays[published % len(delays)]
        copies[turn].met("net", nonces[1 - turn], published + 100, published + 99, now)
        now += copies[turn].outdo(now)
        published += 1
        turn = 1 - turn
    assert published <= 2 * 13 + 6 * 6
    assert all(copy.twin_seen is not None for copy in copies)


def test_lives_do_not_grow_without_bound() -> None:
    """A copy that restarts for ever, each time with another nonce."""
    lives = Lives(OURS)
    for number in range(5_000):
        lives.met("net", number.to_bytes(8, "big"), number + 1, number, float(number))
    assert len(lives._lives) <= 1000
