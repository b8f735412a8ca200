"""One identity, several lives: a restored state, a network joined again, and copies that run."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from trio.testing import trio_test

from hived.overlay import lives
from hived.overlay.exchange import BATCH
from tests.unit.overlay.handclock import NOW, YEAR, HandClock
from tests.unit.overlay.parties import NETWORK, SECONDS, K, Logged, party, synced, until
from tests.unit.overlay.saying import is_known, name_of, publish, push


@trio_test
async def test_a_restored_state_among_several_is_one_line(tmp_path: Path, logged: Logged) -> None:
    """Two members tell of the older life at once: the node jumps past it, and nobody cries clone."""
    async with (
        synced("a", tmp_path) as alice,
        synced("b", tmp_path) as bob,
        synced("c", tmp_path) as carol,
    ):
        await publish(alice, "alpha")
        past = alice.record(2**51, name="past", nonce=b"pastpast")
        for other in (bob, carol):
            await other.records.keep(NETWORK, [(past, 0.0)], None)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(alice.joined, bob)
            nursery.start_soon(alice.joined, carol)
        for other in (bob, carol):
            await until(lambda: name_of(other, alice) == "alpha")  # noqa: B023
    assert len(logged.having("older life")) == 1
    assert logged.having("another hived runs") == []


@trio_test
async def test_a_network_left_and_joined_again_with_the_clock_set_back_is_no_copy(
    tmp_path: Path, logged: Logged
) -> None:
    time = HandClock(wall=NOW + 10 * YEAR)
    async with synced("a", tmp_path, clock=time.clock) as alice, synced("b", tmp_path) as bob:
        await publish(alice, "alpha")
        await alice.joined(bob)
        await until(lambda: is_known(bob, alice))
        alice.membership.drop_network(NETWORK)
        alice.records.drop_network(NETWORK)
        assert alice.networks is not None
        await alice.networks.remove(NETWORK)
        time.wall = NOW
        await alice.networks.add(NETWORK, K)
        alice.membership.set_network(NETWORK, K)
        await publish(alice, "omega")
        await until(lambda: bob.host.find(alice.peer_id) is None)
        await alice.joined(bob)
        await until(lambda: name_of(bob, alice) == "omega")
    assert logged.having("another hived runs") == []


@trio_test
async def test_two_copies_of_one_identity_are_both_told(
    tmp_path: Path, logged: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both warn, and others see a bounded number of records meanwhile."""
    monkeypatch.setattr(lives, "FIRST_WAIT", 0.05)
    async with (
        synced("b", tmp_path) as bob,
        synced("a", tmp_path, place="one") as one,
        synced("a", tmp_path, place="two") as two,
    ):
        seen: list[int] = []
        bob.records.on_change.append(lambda network, record: seen.append(record.seq))
        await publish(one, "one")
        await publish(two, "two")
        connections = [await copy.dial(bob) for copy in (one, two)]
        for copy, connection in zip((one, two), connections, strict=True):
            await copy.membership.join(connection, NETWORK)
        with trio.fail_after(SECONDS):
            while not all(copy.records.author.lives.twin_seen for copy in (one, two)):
                for copy, connection in zip((one, two), connections, strict=True):
                    assert copy.gossip is not None
                    await copy.gossip.round(connection, NETWORK)
                # Both are one member to bob, whose rounds it counts: in haste they would use up their share.
                await trio.sleep(0.5)
        assert 2 <= len(seen) <= 20
    warned = logged.having("another hived runs with this node's identity")
    assert {fields["name"] for fields in warned} == {"one", "two"}


@trio_test
async def test_a_copys_record_told_many_times_counts_once(tmp_path: Path, logged: Logged) -> None:
    """By whomever: it is outdone once, and no wait grows by that."""
    async with synced("a", tmp_path) as alice, party("m") as mallory:
        await publish(alice, "alpha")
        await mallory.joined(alice)
        own = alice.records.ledger(NETWORK)
        for number in range(1, 4):
            twin = alice.record(own.sequence(alice.peer_id) + 10, name="twin", nonce=b"twintwin")
            for _ in range(5):
                await push(mallory, alice, [twin.envelope] * BATCH)
            if number < 3:
                await until(lambda: own.sequence(alice.peer_id) > twin.record.seq)  # noqa: B023
            else:
                break
        # 0, 1, 2 seconds: never more than one step for a record.
        assert alice.records.author.lives._wait <= 4.0
    assert len(logged.having("another hived runs")) <= 1
