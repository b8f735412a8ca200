"""Aliases, blocks, typed addresses, and who had a name first."""

from __future__ import annotations

from pathlib import Path

import pytest
from trio.testing import trio_test

from hived.errors import HiveError, Kind
from hived.store.networks import Networks
from hived.store.peers import Peer, Peers
from tests.unit.store.stores import KEY, opened


@trio_test
async def test_aliases_and_blocks_do_not_touch_each_other(tmp_path: Path) -> None:
    async with opened(tmp_path) as database:
        peers = Peers(database)
        await peers.set_alias("a", "box")
        await peers.set_blocked("a", True)
        await peers.contacted({"a": 100.0, "b": 50.0})
        await peers.contacted({"a": 90.0})  # never back in time
        found = {peer.peer_id: peer for peer in await peers.all()}
        assert found == {"a": Peer("a", "box", True, 100.0), "b": Peer("b", None, False, 50.0)}
        await peers.set_alias("a", None)
        await peers.set_blocked("a", False)
        assert (await peers.all())[0] == Peer("a", None, False, 100.0)


@trio_test
async def test_an_alias_belongs_to_one_peer(tmp_path: Path) -> None:
    async with opened(tmp_path) as database:
        peers = Peers(database)
        await peers.set_alias("a", "box")
        with pytest.raises(HiveError) as caught:
            await peers.set_alias("b", "box")
        assert caught.value.kind is Kind.CONFLICT
        await peers.set_alias("a", "box")
        assert [(p.peer_id, p.alias) for p in await peers.all()] == [("a", "box")]


@trio_test
async def test_addresses_keep_their_order(tmp_path: Path) -> None:
    async with opened(tmp_path) as database:
        peers = Peers(database)
        await peers.set_addresses("a", ["one", "two", "three", "two"])
        await peers.set_addresses("b", ["four"])
        assert await peers.addresses() == {"a": ["one", "two", "three"], "b": ["four"]}
        await peers.set_addresses("a", ["five"])
        await peers.set_addresses("b", [])
        assert await peers.addresses() == {"a": ["five"]}


@trio_test
async def test_a_name_belongs_to_whom_it_was_first_seen_with(tmp_path: Path) -> None:
    async with opened(tmp_path) as database:
        peers = Peers(database)
        await peers.own_names({"a": "box"})
        await peers.own_names({"b": "box"})
        assert await peers.names() == {"box": "a"}
        await peers.own_names({"a": "case"})  # a lets go of box
        assert await peers.names() == {"case": "a"}


@trio_test
async def test_forget_leaves_only_the_block(tmp_path: Path) -> None:
    async with opened(tmp_path) as database:
        peers, networks = Peers(database), Networks(database, KEY)
        await networks.add("net", b"k" * 32)
        await networks.register("a", "net")
        await peers.set_alias("a", "box")
        await peers.set_blocked("a", True)
        await peers.set_addresses("a", ["one"])
        await peers.own_names({"a": "box"})
        await peers.contacted({"a": 1.0})
        await peers.forget("a")
        assert await peers.all() == [Peer("a", None, True, None)]
        assert await peers.addresses() == {}
        assert await peers.names() == {}
        assert await networks.registrations() == []
