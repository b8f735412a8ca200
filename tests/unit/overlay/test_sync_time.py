"""Records and time: only what passed in touch counts, and a wall clock may say what it likes."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from trio.testing import trio_test

from hived.errors import HiveError
from tests.unit.overlay.handclock import DAY, NOW, YEAR, HandClock
from tests.unit.overlay.parties import NETWORK, Logged, party, synced, until
from tests.unit.overlay.saying import is_known, name_of, pass_days, publish, push, strangers, touch


@trio_test
async def test_the_unseen_are_dropped_after_thirty_days_in_touch(tmp_path: Path, logged: Logged) -> None:
    """Alice is gone, Carol is connected all the time, and Bob's own record stays in any case."""
    time = HandClock()
    async with (
        synced("b", tmp_path, clock=time.clock) as bob,
        party("a") as alice,
        party("c") as carol,
    ):
        connection = await alice.joined(bob)
        await carol.joined(bob)
        await push(alice, bob, [alice.record(10).envelope])
        await push(carol, bob, [carol.record(10).envelope])
        await publish(bob, "beta")
        alice.host.close_soon(connection)
        await until(lambda: bob.host.find(alice.peer_id) is None)
        await pass_days(bob, time, 29.9)
        assert is_known(bob, alice)
        await pass_days(bob, time, 0.2)
        assert not is_known(bob, alice)
        assert is_known(bob, carol)
        assert is_known(bob, bob)
        assert logged.having("nodes unseen for 30 days were dropped") == [{"network": NETWORK, "nodes": 1}]
        # An old copy does not bring it back, a newer record does.
        await push(carol, bob, [alice.record(10).envelope, alice.record(9).envelope])
        assert not is_known(bob, alice)
    async with synced("b", tmp_path, clock=time.clock) as bob, party("c") as carol:
        await carol.joined(bob)
        assert not is_known(bob, alice.peer_id)
        await push(carol, bob, [alice.record(10).envelope])
        assert not is_known(bob, alice.peer_id)
        await push(carol, bob, [alice.record(11).envelope])
        assert is_known(bob, alice.peer_id)
    async with synced("b", tmp_path, clock=time.clock) as bob:
        assert is_known(bob, alice.peer_id)


@pytest.mark.parametrize("wall", [10 * YEAR, -10 * YEAR, -NOW - YEAR])
@trio_test
async def test_neither_solitude_nor_a_wall_clock_drops_anybody(
    tmp_path: Path, logged: Logged, wall: float
) -> None:
    time = HandClock()
    async with synced("b", tmp_path, clock=time.clock) as bob:
        await bob.records.keep(NETWORK, [(a.record(1), 0.0) for a in strangers(20)], None)
        await pass_days(bob, time, 100)
        time.wall += wall
        await pass_days(bob, time, 1)
        assert len(list(bob.records.visible(NETWORK))) == 20
        assert touch(bob) == 0.0
    async with synced("b", tmp_path, clock=time.clock) as bob, party("c") as carol:
        await carol.joined(bob)
        await pass_days(bob, time, 1)
        assert len(list(bob.records.visible(NETWORK))) == 20
        assert touch(bob) == pytest.approx(DAY)


@trio_test
async def test_a_process_that_stood_still_was_in_touch_with_nobody(tmp_path: Path, logged: Logged) -> None:
    time = HandClock()
    async with synced("b", tmp_path, clock=time.clock) as bob, party("c") as carol:
        await carol.joined(bob)
        await bob.records.keep(NETWORK, [(a.record(1), 0.0) for a in strangers(3)], None)
        time.go(40 * DAY)
        bob.records.tick()
        await bob.records.expire()
        assert len(list(bob.records.visible(NETWORK))) == 3


@trio_test
async def test_time_in_touch_goes_on_over_restarts(tmp_path: Path, logged: Logged) -> None:
    time = HandClock()
    for life in range(3):
        async with synced("b", tmp_path, clock=time.clock) as bob, party("c") as carol:
            if not life:
                await bob.records.keep(NETWORK, [(a.record(1), 0.0) for a in strangers(3)], None)
            await carol.joined(bob)
            await pass_days(bob, time, 9.9)
            assert len(list(bob.records.visible(NETWORK))) == 3
        # Switched off: nothing counts.
        time.go(50 * DAY)
    async with synced("b", tmp_path, clock=time.clock) as bob, party("c") as carol:
        await carol.joined(bob)
        assert touch(bob) == pytest.approx(3 * 9.9 * DAY)
        await pass_days(bob, time, 0.5)
        assert list(bob.records.visible(NETWORK)) == []


@pytest.mark.parametrize("pushed", [True, False])
@trio_test
async def test_a_newcomer_learns_the_age_with_the_copy(tmp_path: Path, logged: Logged, pushed: bool) -> None:
    """By a push or a round: a copy of 29 days is dropped a day later."""
    time = HandClock()
    (gone,) = strangers(1)
    async with (
        synced("b", tmp_path, clock=time.clock) as bob,
        synced("c", tmp_path, clock=time.clock) as carol,
    ):
        old = [(gone.record(1), 29 * DAY)]
        if not pushed:
            await bob.records.keep(NETWORK, old, None)
        await bob.joined(carol)
        if pushed:
            await bob.records.keep(NETWORK, old, None)
        await until(lambda: is_known(carol, gone.peer_id))
        assert carol.records.ledger(NETWORK).age(gone.peer_id) == pytest.approx(29 * DAY, abs=1)
        await pass_days(carol, time, 0.9)
        assert is_known(carol, gone.peer_id)
        await pass_days(carol, time, 0.2)
        assert not is_known(carol, gone.peer_id)
        # Bob, who did not look yet, offers it again: in vain.
        assert is_known(bob, gone.peer_id)
        connection = bob.host.find(carol.peer_id, NETWORK)
        assert connection is not None
        assert bob.gossip is not None
        await bob.gossip.round(connection, NETWORK)
        assert not is_known(carol, gone.peer_id)
        assert logged.having("a member's digest is wrong") == []


@pytest.mark.parametrize("start", [NOW, NOW + 10 * YEAR, NOW - 10 * YEAR, -5 * YEAR])
@trio_test
async def test_a_clock_that_is_wrong_and_jumps(tmp_path: Path, logged: Logged, start: float) -> None:
    """Bob takes each of Alice's changes, whatever her clock or his says; nobody is dropped."""
    hers, his = HandClock(wall=start), HandClock()
    async with (
        synced("a", tmp_path, clock=hers.clock) as alice,
        synced("b", tmp_path, clock=his.clock) as bob,
    ):
        await publish(bob, "beta")
        await alice.joined(bob)
        await until(lambda: name_of(alice, bob) == "beta")
        last = 0
        for number, jump in enumerate([0, -3 * YEAR, 20 * YEAR, -40 * YEAR, 1, 5 * YEAR]):
            hers.wall = start + jump
            hers.passed += 60
            alice.records.tick()
            await publish(alice, f"n{number}")
            await until(lambda: name_of(bob, alice) == f"n{number}")  # noqa: B023
            record = bob.records.get(NETWORK, alice.peer_id)
            assert record is not None
            assert record.seq > last
            last = record.seq
            await alice.records.expire()
            await bob.records.expire()
            assert name_of(alice, bob) == "beta"
    assert [r for r in logged.records if r.levelname in {"WARNING", "ERROR"}] == []


@trio_test
async def test_signed_anew_once_a_day(tmp_path: Path, logged: Logged) -> None:
    """And the others take it: so a node that says nothing new is not dropped by others."""
    time = HandClock()
    async with synced("a", tmp_path, clock=time.clock) as alice, synced("b", tmp_path) as bob:
        await publish(alice, "alpha")
        await alice.joined(bob)
        await until(lambda: is_known(bob, alice))
        signed = set[int]()
        alice.records.on_change.append(lambda network, record: signed.add(record.seq))
        for _ in range(3 * 24):
            time.go(3600)
            await alice.records._resign()
        assert len(signed) == 3
        await until(lambda: bob.records.ledger(NETWORK).sequence(alice.peer_id) == max(signed))


@trio_test
async def test_what_could_not_be_kept_is_signed_again_soon(tmp_path: Path) -> None:
    """Others hear of a change when the disk is well again, not at the next change or the next day."""
    async with synced("a", tmp_path) as alice, synced("b", tmp_path) as bob:
        await publish(alice, "alpha")
        await alice.joined(bob)
        await until(lambda: is_known(bob, alice))
        assert alice.networks is not None
        database = alice.networks.database
        await database.execute("ALTER TABLE record RENAME TO away")
        with pytest.raises(HiveError, match="no such table"):
            await publish(alice, "beta")
        with pytest.raises(HiveError, match="no such table"):
            await alice.records._resign()
        await database.execute("ALTER TABLE away RENAME TO record")
        await alice.records._resign()
        await until(lambda: name_of(bob, alice) == "beta")
        told = bob.records.ledger(NETWORK).sequence(alice.peer_id)
        await alice.records._resign()
        assert alice.records.ledger(NETWORK).sequence(alice.peer_id) == told


async def begun() -> None:
    """Until a task that was just started waits for the store: the scheduler's order is random."""
    for _ in range(3):
        await trio.lowlevel.checkpoint()


@trio_test
async def test_a_network_that_appears_while_others_expire(tmp_path: Path, logged: Logged) -> None:
    time = HandClock()
    async with synced("b", tmp_path, clock=time.clock) as bob, trio.open_nursery() as nursery:
        await bob.records.keep(NETWORK, [(a.record(1), 31 * DAY) for a in strangers(3)], None)
        nursery.start_soon(bob.records.expire)
        await begun()
        bob.records.ledger("another")
    assert len(logged.having("nodes unseen for 30 days were dropped")) == 1


@trio_test
async def test_what_comes_while_its_author_expires_stays(tmp_path: Path, logged: Logged) -> None:
    time = HandClock()
    (author,) = strangers(1)
    async with synced("b", tmp_path, clock=time.clock) as bob:
        await bob.records.keep(NETWORK, [(author.record(1), 31 * DAY)], None)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bob.records.keep, NETWORK, [(author.record(2), 0.0)], None)
            await begun()
            nursery.start_soon(bob.records.expire)
        assert is_known(bob, author.peer_id)
    async with synced("b", tmp_path, clock=time.clock) as bob:
        assert is_known(bob, author.peer_id)
