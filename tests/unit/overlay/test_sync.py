"""Records between real nodes with real stores: pushed, repaired, forwarded, and nothing forged believed."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from trio.testing import trio_test

from hived.overlay import sync as module
from hived.overlay.connection import STREAM_ERRORS
from hived.overlay.exchange import BATCH, SYNC, Batch, Digest, Open
from hived.overlay.networkkeys import network_id
from hived.overlay.wire import receive, send
from tests.unit.overlay.handclock import HandClock
from tests.unit.overlay.parties import NETWORK, K, Logged, party, synced, until
from tests.unit.overlay.saying import is_known, name_of, publish, push, strangers


@trio_test
async def test_a_change_is_pushed_to_connected_members(tmp_path: Path, logged: Logged) -> None:
    async with synced("a", tmp_path) as alice, synced("b", tmp_path) as bob:
        await alice.joined(bob)
        await publish(alice, "alpha")
        await until(lambda: name_of(bob, alice) == "alpha")
        await publish(alice, "omega")
        await until(lambda: name_of(bob, alice) == "omega")
        assert name_of(alice, bob) is None


@trio_test
async def test_a_join_exchanges_what_both_know(tmp_path: Path, logged: Logged) -> None:
    async with synced("a", tmp_path) as alice, synced("b", tmp_path) as bob:
        await publish(alice, "alpha")
        await publish(bob, "beta")
        await alice.joined(bob)
        await until(lambda: name_of(bob, alice) == "alpha" and name_of(alice, bob) == "beta")
        assert [r.name for r in bob.records.visible(NETWORK)].count("alpha") == 1


@trio_test
async def test_others_carry_a_record_on(tmp_path: Path, logged: Logged) -> None:
    """Carol is not connected to Alice; Bob forwards, and the envelope proves it is Alice's."""
    async with synced("a", tmp_path) as alice, synced("b", tmp_path) as bob, synced("c", tmp_path) as carol:
        await alice.joined(bob)
        await carol.joined(bob)
        await publish(alice, "alpha")
        await until(lambda: name_of(carol, alice) == "alpha")
        assert carol.host.find(alice.peer_id) is None


@trio_test
async def test_more_than_a_batch(tmp_path: Path, logged: Logged) -> None:
    async with synced("a", tmp_path) as alice, synced("b", tmp_path) as bob:
        many = [author.record(1) for author in strangers(BATCH + 5)]
        await alice.records.keep(NETWORK, [(signed, 0.0) for signed in many], None)
        await alice.joined(bob)
        await until(lambda: len(list(bob.records.visible(NETWORK))) == len(many))


@trio_test
async def test_records_are_there_after_a_restart(tmp_path: Path, logged: Logged) -> None:
    async with synced("a", tmp_path) as alice, synced("b", tmp_path) as bob:
        await alice.joined(bob)
        await publish(alice, "alpha")
        await until(lambda: name_of(bob, alice) == "alpha")
    async with synced("b", tmp_path) as bob:
        assert name_of(bob, alice.peer_id) == "alpha"


@trio_test
async def test_an_unchanged_record_is_not_signed_again(tmp_path: Path, logged: Logged) -> None:
    async with synced("a", tmp_path) as alice:
        await publish(alice, "alpha")
        first = alice.records.get(NETWORK, alice.peer_id)
        await publish(alice, "alpha")
        second = alice.records.get(NETWORK, alice.peer_id)
        assert first is not None
        assert second is not None
        assert first.seq == second.seq
        await publish(alice, "omega")
        third = alice.records.get(NETWORK, alice.peer_id)
        assert third is not None
        assert third.seq > first.seq


# What a member may not do


@trio_test
async def test_forged_altered_and_foreign_records_are_refused_and_logged(
    tmp_path: Path, logged: Logged
) -> None:
    async with synced("a", tmp_path) as alice, synced("b", tmp_path) as bob, party("c") as eve:
        await alice.joined(bob)
        await eve.joined(bob)
        await publish(alice, "alpha")
        await until(lambda: name_of(bob, alice) == "alpha")
        good = alice.record(2**50)
        forged = eve.record(2**50, peer_id=alice.peer_id, name="evil")
        altered = good.envelope.replace(
            b"x" + alice.peer_id[-8:].encode(), b"y" + alice.peer_id[-8:].encode()
        )
        foreign = alice.record(2**50, network="other")
        assert altered != good.envelope
        for number, bad in enumerate((forged.envelope, altered, foreign.envelope, b"", b"x" * 9000), 1):
            # Nothing else of such a batch is believed either.
            await push(eve, bob, [eve.record(number).envelope, bad])
            await until(lambda: len(logged.having("a member sent a bad record")) == number)  # noqa: B023
            assert name_of(bob, alice) == "alpha"
            assert name_of(bob, eve) is None
        assert {fields["peer"] for fields in logged.having("a member sent a bad record")} == {eve.peer_id}
        await push(eve, bob, [good.envelope])  # carried by another, but Alice's own word
        await until(lambda: name_of(bob, alice) == "x" + alice.peer_id[-8:])


@trio_test
async def test_what_came_in_a_bad_batch_is_taken_from_a_good_one(tmp_path: Path, logged: Logged) -> None:
    """Nobody can keep a record from a node by sending it together with a bad one."""
    async with synced("b", tmp_path) as bob, party("a") as alice, party("c") as eve:
        await alice.joined(bob)
        await eve.joined(bob)
        good = alice.record(10).envelope
        await push(eve, bob, [good, b"x"])
        assert name_of(bob, alice) is None
        await push(alice, bob, [good])
        assert name_of(bob, alice) is not None


@trio_test
async def test_the_same_record_from_two_members_at_once(tmp_path: Path, logged: Logged) -> None:
    async with synced("b", tmp_path) as bob, party("a") as alice, party("c") as carol:
        await alice.joined(bob)
        await carol.joined(bob)
        news: list[int] = []
        bob.records.on_change.append(lambda network, record: news.append(record.seq))
        for seq in range(1, 21):
            async with trio.open_nursery() as nursery:
                for one in (alice, carol):
                    nursery.start_soon(push, one, bob, [alice.record(seq).envelope])
            assert bob.records.ledger(NETWORK).sequence(alice.peer_id) == seq
        assert news == list(range(1, 21))


@trio_test
async def test_a_stale_record_changes_nothing(tmp_path: Path, logged: Logged) -> None:
    async with synced("b", tmp_path) as bob, party("a") as alice:
        await alice.joined(bob)
        await push(alice, bob, [alice.record(10, name="new").envelope])
        await push(alice, bob, [alice.record(9, name="old").envelope, alice.record(10, name="twin").envelope])
        assert name_of(bob, alice) == "new"


@trio_test
async def test_a_non_member_gets_nothing(tmp_path: Path, logged: Logged) -> None:
    """Neither before joining nor as a member of another network."""
    async with synced("b", tmp_path) as bob, party("c", network="other") as eve:
        await publish(bob, "beta")
        connection = await eve.dial(bob)
        with pytest.raises(STREAM_ERRORS):
            await connection.open_stream(SYNC)
        bob.membership.set_network("other", K)
        await eve.membership.join(connection, "other")
        stream = await connection.open_stream(SYNC)
        await send(stream, Open(network=network_id(NETWORK), round=True))
        await send(stream, Digest())
        with pytest.raises(STREAM_ERRORS):
            await receive(stream, Batch)
        assert logged.having("no member was refused")


@trio_test
async def test_an_oversized_batch_is_refused(tmp_path: Path, logged: Logged) -> None:
    async with synced("b", tmp_path) as bob, party("a") as alice:
        await alice.joined(bob)
        await push(alice, bob, [alice.record(n).envelope for n in range(1, BATCH + 2)])
        assert name_of(bob, alice) is None


# A node and its own past


@trio_test
async def test_a_node_jumps_past_its_own_older_life(tmp_path: Path, logged: Logged) -> None:
    """After a restored backup the others know a higher sequence: the node publishes above it."""
    async with synced("a", tmp_path) as alice, synced("b", tmp_path) as bob:
        await publish(alice, "alpha")
        await bob.records.keep(NETWORK, [(alice.record(2**51, name="past"), 0.0)], None)
        await alice.joined(bob)
        await until(lambda: name_of(bob, alice) == "alpha")
        now = alice.records.get(NETWORK, alice.peer_id)
        assert now is not None
        assert now.seq > 2**51
    assert logged.having("older life")


@trio_test
async def test_a_forgotten_node_is_hidden_until_it_says_something_newer(
    tmp_path: Path, logged: Logged
) -> None:
    async with synced("b", tmp_path) as bob, party("a") as alice:
        await alice.joined(bob)
        await push(alice, bob, [alice.record(10).envelope])
        await bob.records.hide(alice.peer_id)
        assert name_of(bob, alice) is None
        assert alice.peer_id not in [r.peer_id for r in bob.records.visible(NETWORK)]
        await push(alice, bob, [alice.record(10).envelope])
        assert name_of(bob, alice) is None
    async with synced("b", tmp_path) as bob, party("a") as alice:
        assert name_of(bob, alice) is None
        await alice.joined(bob)
        await push(alice, bob, [alice.record(11).envelope])
        assert name_of(bob, alice) is not None


@trio_test
async def test_a_left_network_takes_no_more_records(tmp_path: Path, logged: Logged) -> None:
    async with synced("b", tmp_path) as bob, party("a") as alice:
        await publish(bob, "beta")
        bob.membership.drop_network(NETWORK)
        bob.records.drop_network(NETWORK)
        assert list(bob.records.visible(NETWORK)) == []
        await bob.records.keep(NETWORK, [(alice.record(1), 0.0)], None)
        assert list(bob.records.visible(NETWORK)) == []


@trio_test
async def test_a_record_that_comes_while_the_network_is_left(tmp_path: Path, logged: Logged) -> None:
    """The row is gone, the memberships not yet: a round at that moment must not end the node."""
    async with synced("a", tmp_path) as alice, synced("b", tmp_path) as bob:
        await publish(alice, "alpha")
        assert bob.networks is not None
        await bob.networks.remove(NETWORK)
        connection = await bob.joined(alice)
        assert bob.gossip is not None
        await bob.gossip.round(connection, NETWORK)
        assert connection.is_open


@trio_test
async def test_stored_records_that_do_not_verify_are_left_out(tmp_path: Path, logged: Logged) -> None:
    async with synced("a", tmp_path) as alice:
        await publish(alice, "alpha")
        database = alice.records._store.database
        await database.execute("UPDATE record SET envelope = x'00'")
        alice.records.ledgers.clear()
        await alice.records.load()
        assert list(alice.records.visible(NETWORK)) == []
    assert logged.having("a stored record was dropped")


# Forgotten


@trio_test
async def test_forgotten_over_restarts_and_by_old_copies(tmp_path: Path, logged: Logged) -> None:
    """By one's own word or another's, only a newer record shows a node again; and it stays so."""
    async with synced("b", tmp_path) as bob, party("a") as alice:
        await alice.joined(bob)
        await push(alice, bob, [alice.record(10).envelope])
        await bob.records.hide(alice.peer_id)
    for _ in range(2):
        async with synced("b", tmp_path) as bob, party("c") as carol:
            await carol.joined(bob)
            await push(carol, bob, [alice.record(10).envelope])
            assert not is_known(bob, alice.peer_id)
            # Others still hear of it from here: hiding is for the user alone.
            assert bob.records.ledger(NETWORK).sequence(alice.peer_id) == 10
    async with synced("b", tmp_path) as bob, party("c") as carol:
        await carol.joined(bob)
        await push(carol, bob, [alice.record(11).envelope])
        assert is_known(bob, alice.peer_id)
    async with synced("b", tmp_path) as bob:
        assert is_known(bob, alice.peer_id)


# Quotas


@trio_test
async def test_a_full_network_takes_changes_but_nobody_new(
    tmp_path: Path, logged: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_RECORDS", 10)
    async with synced("b", tmp_path) as bob, party("c") as carol:
        known, (other,) = strangers(10), strangers(1, first=500)
        await bob.records.keep(NETWORK, [(a.record(1), 0.0) for a in known], None)
        await carol.joined(bob)
        await push(carol, bob, [other.record(1).envelope, known[0].record(2, name="new").envelope])
        assert not is_known(bob, other.peer_id)
        assert name_of(bob, known[0].peer_id) == "new"
    assert len(logged.having("too many nodes known")) == 1


@trio_test
async def test_one_that_changes_too_often_is_taken_later(tmp_path: Path, logged: Logged) -> None:
    time = HandClock()
    async with synced("b", tmp_path, clock=time.clock) as bob, party("a") as alice:
        await alice.joined(bob)
        for seq in range(1, 101):
            await push(alice, bob, [alice.record(seq, name=f"n{seq}").envelope])
        assert name_of(bob, alice) == "n31"
        time.go(5)
        await push(alice, bob, [alice.record(100, name="n100").envelope])
        assert name_of(bob, alice) == "n100"


@trio_test
async def test_a_full_network_has_room_for_who_is_connected(
    tmp_path: Path, logged: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Authors whom nobody here ever met make room for a member that proves itself; whom we met stays."""
    monkeypatch.setattr(module, "MAX_RECORDS", 6)
    async with synced("b", tmp_path) as bob, party("a") as alice, party("m") as mallory:
        await publish(bob, "beta")
        await mallory.joined(bob)
        invented = strangers(10)
        await push(mallory, bob, [one.record(1).envelope for one in invented])
        known = bob.records.ledger(NETWORK).records
        assert len(known) == 6
        met = invented[0].peer_id
        bob.records.was_met = lambda peer_id: peer_id == met
        await alice.joined(bob)
        await push(alice, bob, [alice.record(1).envelope])
        assert alice.peer_id in known
        assert {met, bob.peer_id} <= known.keys()
        assert len(known) == 6
