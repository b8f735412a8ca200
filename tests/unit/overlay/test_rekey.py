"""A change of keys as one node sees it: what counts, who has moved, when it ends, and what is kept."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing
from trio.testing import trio_test

from hived.overlay.clock import Clock
from hived.overlay.membership import JoinRefusedError
from hived.overlay.networkkeys import network_id
from hived.overlay.records import NodeRecord
from hived.overlay.rekey import Rekeying, Rekeys, announced
from hived.store.networks import Networks
from tests.unit.overlay.parties import NETWORK, K, Logged, Party, party, until
from tests.unit.store.stores import KEY, opened

YEAR = 365 * 86400.0
NEW, OTHER = b"n" * 32, b"o" * 32


class Wall:
    """Epoch seconds as the test says."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def rekeying(directory: Path, one: Party, wall: Wall) -> AsyncIterator[Rekeys]:
    """A party with its networks in a store, as a daemon has them."""
    async with opened(directory) as database, trio.open_nursery() as nursery:
        networks = Networks(database, KEY)
        if not await networks.all():
            await networks.add(NETWORK, K)
        rekeys = Rekeys(networks, one.membership, Clock(wall=wall), trio.Lock())
        rekeys.load(await networks.all(), await networks.moved())
        at_start = one.membership.keys[NETWORK]
        assert len(at_start) == 1 or wall.now < rekeys.running[NETWORK].until
        await nursery.start(rekeys.run)
        yield rekeys
        nursery.cancel_scope.cancel()


@trio_test
async def test_both_keys_count_until_the_end(tmp_path: Path, logged: Logged) -> None:
    wall = Wall()
    async with party("a") as alice, party("b") as bob, rekeying(tmp_path, bob, wall) as rekeys:
        old = await alice.joined(bob)
        assert await rekeys.begin(NETWORK, NEW, 100.0) == wall.now + 100
        assert bob.membership.keys[NETWORK] == (K, NEW)
        assert old.is_open
        assert not rekeys.has_moved(NETWORK, alice.peer_id)
        # Alice moves on the connection that there is.
        alice.membership.set_network(NETWORK, K, NEW)
        await alice.membership.join(old, NETWORK, renew=True)
        await until(lambda: rekeys.has_moved(NETWORK, alice.peer_id))
        await rekeys.end(NETWORK)
        assert bob.membership.keys[NETWORK] == (NEW,)
        assert rekeys.running == {}
        assert alice.host.find(bob.peer_id, NETWORK) is old


@trio_test
async def test_what_was_proved_with_the_former_key_is_cut(tmp_path: Path, logged: Logged) -> None:
    async with party("a") as alice, party("b") as bob, rekeying(tmp_path, bob, Wall()) as rekeys:
        old = await alice.joined(bob)
        await rekeys.begin(NETWORK, NEW, 100.0)
        await rekeys.end(NETWORK)
        await old.muxer.closed.wait()
        with pytest.raises(JoinRefusedError):
            await alice.joined(bob)


@trio_test
async def test_no_grace(tmp_path: Path, logged: Logged) -> None:
    async with party("a") as alice, party("b") as bob, rekeying(tmp_path, bob, Wall()) as rekeys:
        old = await alice.joined(bob)
        assert await rekeys.begin(NETWORK, NEW, 0.0) is None
        await old.muxer.closed.wait()
        assert bob.membership.keys[NETWORK] == (NEW,)


@trio_test
async def test_it_is_kept_and_ends_by_the_wall_clock(tmp_path: Path, logged: Logged) -> None:
    wall = Wall()
    async with party("b") as bob:
        async with rekeying(tmp_path, bob, wall) as rekeys:
            await rekeys.begin(NETWORK, NEW, 100.0)
            rekeys._proved("somebody", NETWORK, True, True)
            await until(lambda: rekeys.running[NETWORK].moved == {"somebody"})
            await rekeys._networks.add_moved(NETWORK, "somebody")
        async with rekeying(tmp_path, bob, wall) as rekeys:
            assert bob.membership.keys[NETWORK] == (K, NEW)
            assert [rekeys.has_moved(NETWORK, who) for who in ("somebody", "nobody")] == [True, False]
        # Off while the time ran out.
        wall.now += 101
        async with rekeying(tmp_path, bob, wall) as rekeys:
            await until(lambda: bob.membership.keys[NETWORK] == (NEW,))
        async with rekeying(tmp_path, bob, wall):
            assert bob.membership.keys[NETWORK] == (NEW,)


@trio_test
async def test_begun_again(tmp_path: Path, logged: Logged) -> None:
    """A mistyped password is replaced; the former key stays, and who moved has to move again."""
    async with party("b") as bob, rekeying(tmp_path, bob, Wall()) as rekeys:
        await rekeys.begin(NETWORK, OTHER, 100.0)
        rekeys._proved("somebody", NETWORK, True, True)
        await rekeys.begin(NETWORK, NEW, 100.0)
        assert bob.membership.keys[NETWORK] == (K, NEW)
        assert not rekeys.has_moved(NETWORK, "somebody")


@pytest.mark.parametrize(
    ("capabilities", "until_when"),
    [
        ([], None),
        (["rekey/1800000000"], 1800000000.0),
        (["future", "rekey/5"], 5.0),
        (["rekey/"], None),
        (["rekey/-5"], None),
        (["rekey/1e9"], None),
        (["rekey/" + "9" * 400], None),
        (["rekey/٣"], None),
    ],
)
def test_what_a_record_announces(capabilities: list[str], until_when: float | None) -> None:
    record = NodeRecord(
        network=network_id(NETWORK), peer_id="p", name="n", seq=1, issued=0.0, capabilities=capabilities
    )
    assert announced(record) == until_when


@pytest.mark.parametrize("years", [-10, -1, 10])
@trio_test
async def test_a_wall_clock_that_was_wrong_is_set(tmp_path: Path, logged: Logged, years: int) -> None:
    """What is left of a grace time stays; after a new start the end is what the store says."""
    wall = Wall()
    async with party("b") as bob:
        async with rekeying(tmp_path, bob, wall) as rekeys:
            await rekeys.begin(NETWORK, NEW, 100.0)
            wall.now += years * YEAR
            rekeys._begun.set()
            await until(lambda: abs(rekeys.running[NETWORK].until - wall.now - 100) < 1)
            assert bob.membership.keys[NETWORK] == (K, NEW)
            # One that begins right after the clock was set ends when it should.
            wall.now += years * YEAR
            end = await rekeys.begin(NETWORK, OTHER, 100.0)
            rekeys._begun.set()
            await trio.testing.wait_all_tasks_blocked()
            assert rekeys.running[NETWORK].until == end == wall.now + 100
        # The clock of a machine without a battery at boot: until it is set, nothing is over or moved.
        right, wall.now = wall.now, 0.0
        async with rekeying(tmp_path, bob, wall) as rekeys:
            wall.now = right + 50
            rekeys._begun.set()
            await trio.testing.wait_all_tasks_blocked()
            assert rekeys.running[NETWORK].until == right + 100
            wall.now = right + 101
            rekeys._begun.set()
            await until(lambda: bob.membership.keys[NETWORK] == (OTHER,))


@trio_test
async def test_an_end_that_waited_spares_what_was_begun_meanwhile(tmp_path: Path, logged: Logged) -> None:
    """The former grace time is over, and a change of the password is just being kept."""
    wall = Wall()
    async with party("b") as bob, rekeying(tmp_path, bob, wall) as rekeys:
        await rekeys.begin(NETWORK, NEW, 100.0)
        over = rekeys.running[NETWORK]
        wall.now += 101
        await rekeys._changes.acquire()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(rekeys.end, NETWORK, only=over))
            await trio.testing.wait_all_tasks_blocked()
            # As ``begin`` leaves it.
            begun = rekeys.running[NETWORK] = Rekeying(wall.now + 100)
            rekeys._changes.release()
        assert rekeys.running[NETWORK] is begun
        assert bob.membership.keys[NETWORK] == (K, NEW)


@trio_test
async def test_the_machine_stood_still(tmp_path: Path, logged: Logged) -> None:
    """A grace time is not given back to a machine that was paused."""
    wall = Wall()
    async with party("b") as bob, rekeying(tmp_path, bob, wall) as rekeys:
        await rekeys.begin(NETWORK, NEW, 86400.0)
        wall.now += 10 * 86400
        rekeys._begun.set()
        await until(lambda: bob.membership.keys[NETWORK] == (NEW,))
