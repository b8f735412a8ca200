"""What is held of a network: by sequence, hidden, and dropped by time in touch alone."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from hived.overlay import ledger as module
from hived.overlay.ledger import EXPIRY_SECONDS, Ledger
from hived.overlay.ranges import Ranges
from hived.overlay.records import NodeRecord, SignedRecord

DAY = 86400.0
AUTHORS = ("alice", "bob", "carol", "dave")


def signed(author: str, seq: int) -> SignedRecord:
    """A record as the ledger sees it; it does not look at envelopes."""
    record = NodeRecord(network=b"n" * 32, peer_id=author, name=author, seq=seq, issued=0.0)
    return SignedRecord(record, b"")


def test_nobody_is_dropped_before_thirty_days_in_touch() -> None:
    ledger = Ledger()
    ledger.put(signed("alice", 1))
    ledger.touch += EXPIRY_SECONDS
    assert list(ledger.outdated()) == []
    ledger.touch += 1
    assert list(ledger.outdated()) == ["alice"]


def test_an_age_travels_with_a_copy() -> None:
    """A newcomer that gets a copy of 29 days drops it a day later, with everybody else."""
    newcomer = Ledger()
    newcomer.put(signed("alice", 1), newcomer.touch - 29 * DAY)
    assert newcomer.age("alice") == 29 * DAY
    newcomer.touch += DAY
    assert list(newcomer.outdated()) == []
    newcomer.touch += 1
    assert list(newcomer.outdated()) == ["alice"]


def test_a_sign_of_life_is_as_good_as_a_new_record() -> None:
    ledger = Ledger()
    ledger.put(signed("alice", 1))
    for _ in range(100):
        ledger.touch += 29 * DAY
        ledger.seen("alice")
        assert list(ledger.outdated()) == []
    ledger.seen("nobody")
    assert list(ledger.came) == ["alice"]


def test_an_age_is_never_below_nothing() -> None:
    """After a power cut the time in touch is that of the last save, before the record came."""
    ledger = Ledger(touch=100.0)
    ledger.put(signed("alice", 1), 500.0)
    assert ledger.age("alice") == 0.0
    assert list(ledger.outdated()) == []


def test_an_expired_record_leaves_its_sequence_behind() -> None:
    ledger = Ledger()
    ledger.put(signed("alice", 7))
    ledger.hidden.add("alice")
    ledger.expire("alice")
    assert (ledger.sequence("alice"), len(ledger), len(ledger.ranges)) == (7, 0, 0)
    assert ledger.get("alice") is None
    ledger.put(signed("alice", 8))
    assert (ledger.sequence("alice"), ledger.expired, ledger.hidden) == (8, {}, set())
    assert ledger.get("alice") is not None


def test_sequences_left_behind_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_RECORDS", 10)
    ledger = Ledger()
    for number in range(25):
        ledger.put(signed(f"n{number}", 1))
        ledger.expire(f"n{number}")
    assert len(ledger.expired) == 10
    assert ledger.sequence("n24") == 1


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(AUTHORS), st.floats(0, 40 * DAY)), max_size=60))
def test_copies_expire_together(steps: list[tuple[str, float]]) -> None:
    """Two nodes in touch for the same time, one with copies from the other: both drop the same."""
    first, second = Ledger(), Ledger(touch=12345.0)
    for seq, (author, passed) in enumerate(steps, 1):
        first.put(signed(author, seq))
        second.put(signed(author, seq), second.touch - first.age(author))
        for ledger in (first, second):
            ledger.touch += passed
        assert set(first.outdated()) == set(second.outdated())
        for ledger in (first, second):
            for gone in list(ledger.outdated()):
                ledger.expire(gone)


class LedgerMachine(RuleBasedStateMachine):
    """Against a plain description of who was heard of, when, and is hidden."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger()
        self.held: dict[str, tuple[int, float]] = {}
        self.gone: dict[str, int] = {}
        self.hidden: set[str] = set()

    @rule(author=st.sampled_from(AUTHORS), seq=st.integers(1, 2**53 - 1), age=st.integers(0, 20))
    def put(self, author: str, seq: int, age: int) -> None:
        self.ledger.put(signed(author, seq), self.ledger.touch - age)
        self.held[author] = (seq, self.ledger.touch - age)
        self.gone.pop(author, None)
        self.hidden.discard(author)

    @rule(author=st.sampled_from(AUTHORS))
    def see(self, author: str) -> None:
        self.ledger.seen(author)
        if author in self.held:
            self.held[author] = (self.held[author][0], self.ledger.touch)

    @rule(author=st.sampled_from(AUTHORS))
    def hide(self, author: str) -> None:
        if author in self.held:
            self.ledger.hidden.add(author)
            self.hidden.add(author)

    @rule(days=st.integers(0, 31))
    def pass_and_expire(self, days: int) -> None:
        self.ledger.touch += days * DAY
        due = {a for a, (_, came) in self.held.items() if self.ledger.touch - came > EXPIRY_SECONDS}
        assert set(self.ledger.outdated()) == due
        for author in due:
            self.ledger.expire(author)
            self.gone[author] = self.held.pop(author)[0]
            self.hidden.discard(author)

    @invariant()
    def agrees(self) -> None:
        for author in AUTHORS:
            seq = self.held[author][0] if author in self.held else self.gone.get(author, 0)
            assert self.ledger.sequence(author) == seq
        assert {r.peer_id for r in self.ledger.visible()} == set(self.held) - self.hidden
        ranges = Ranges()
        for author, (seq, _) in self.held.items():
            ranges.put(author, seq)
        assert self.ledger.ranges.fingerprint() == ranges.fingerprint()


TestLedgerMachine = LedgerMachine.TestCase
TestLedgerMachine.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
