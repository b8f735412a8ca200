"""Settings, identity, networks and registrations, proxies, records: what is kept is what was said."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest
from trio.testing import trio_test

from hived.errors import HiveError, Kind
from hived.store.database import Database
from hived.store.networks import Networks, Registration
from hived.store.proxies import Proxies, ProxyRow
from hived.store.records import Records, StoredRecord
from hived.store.settings import IdentityKeys, Settings
from tests.unit.store.stores import KEY, opened

EGRESS = ProxyRow(0, "egress", "tcp", "net", "peer", 8084, 80, "127.0.0.1", None, True)
INGRESS = ProxyRow(0, "ingress", "tcp", "net", "peer", 80, 8084, None, "box", True)


async def in_network(database: Database) -> Networks:
    networks = Networks(database, KEY)
    await networks.add("net", b"K" * 32)
    return networks


@trio_test
async def test_settings(tmp_path: Path) -> None:
    async with opened(tmp_path) as database:
        settings = Settings(database)
        assert await settings.get("name") is None
        await settings.set("name", "a")
        await settings.set("name", "ä b'; --")
        assert await settings.get("name") == "ä b'; --"


@trio_test
async def test_the_identity_is_kept_and_never_replaced(tmp_path: Path) -> None:
    async with opened(tmp_path) as database:
        keys = IdentityKeys(database, KEY)
        assert await keys.load() is None
        await keys.save(b"s" * 32, "peer")
        with pytest.raises(sqlite3.IntegrityError):
            await keys.save(b"t" * 32, "other")
    async with opened(tmp_path) as database:
        assert await IdentityKeys(database, KEY).load() == b"s" * 32


@trio_test
async def test_networks(tmp_path: Path) -> None:
    async with opened(tmp_path) as database:
        networks = await in_network(database)
        with pytest.raises(HiveError) as caught:
            await networks.add("net", b"other" * 6)
        assert caught.value.kind is Kind.CONFLICT
        added = await networks.add("a", b"a" * 32)
        assert [(n.name, n.key) for n in await networks.all()] == [("a", b"a" * 32), ("net", b"K" * 32)]
        assert (await networks.all())[0] == added


@trio_test
async def test_a_network_takes_its_rows_with_it(tmp_path: Path) -> None:
    """Leaving drops records, registrations and proxies of that network, and of no other."""
    async with opened(tmp_path) as database:
        networks = await in_network(database)
        await networks.add("other", b"O" * 32)
        for name in ("net", "other"):
            await networks.register("peer", name)
            await Proxies(database).add(replace(EGRESS, network=name))
            await Records(database).put([StoredRecord(name, "peer", 1, b"e", 0.0, False)])
        assert await networks.remove("net")
        assert not await networks.remove("net")
        assert [r.network for r in await networks.registrations()] == ["other"]
        assert [p.network for p in await Proxies(database).all()] == ["other"]
        assert [r.network for r in await Records(database).all()] == ["other"]


@trio_test
async def test_registrations(tmp_path: Path) -> None:
    async with opened(tmp_path) as database:
        networks = await in_network(database)
        await networks.register("peer", "net")
        await networks.register("peer", "net", 2)
        assert await networks.registrations() == [Registration("peer", "net", 2)]
        await networks.unregister("peer", "net")
        await networks.unregister("peer", "net")
        assert await networks.registrations() == []


@trio_test
async def test_proxies(tmp_path: Path) -> None:
    async with opened(tmp_path) as database:
        await in_network(database)
        proxies = Proxies(database)
        one, two = await proxies.add(EGRESS), await proxies.add(INGRESS)
        assert [one, two] == [replace(EGRESS, id=1), replace(INGRESS, id=2)] == await proxies.all()
        await proxies.enable(1, False)
        assert [row.enabled for row in await proxies.all()] == [False, True]
        await proxies.enable(1, True)
        assert await proxies.remove(2)
        assert not await proxies.remove(2)
        assert await proxies.all() == [one]
        assert (await proxies.add(INGRESS)).id == 3  # an ID is never given twice


@trio_test
async def test_two_targets_for_one_ingress_are_a_conflict(tmp_path: Path) -> None:
    async with opened(tmp_path) as database:
        await in_network(database)
        await Proxies(database).add(INGRESS)
        with pytest.raises(HiveError) as caught:
            await Proxies(database).add(replace(INGRESS, target="another"))
        assert caught.value.kind is Kind.CONFLICT
        assert len(await Proxies(database).all()) == 1


@trio_test
async def test_records_keep_the_highest_sequence(tmp_path: Path) -> None:
    async with opened(tmp_path) as database:
        await in_network(database)
        records = Records(database)

        async def put(seq: int, envelope: bytes) -> None:
            await records.put([StoredRecord("net", "peer", seq, envelope, 0.0, False)])

        await put(5, b"five")
        await put(4, b"four")
        await put(5, b"other five")
        (row,) = await records.all()
        assert (row.seq, row.envelope, row.hidden) == (5, b"five", False)
        await records.hide("peer")
        await put(5, b"again")
        assert [r.hidden for r in await records.all()] == [True]
        await put(6, b"six")
        (row,) = await records.all()
        assert (row.seq, row.envelope, row.hidden) == (6, b"six", False)


@trio_test
async def test_records_are_put_together_or_not_at_all(tmp_path: Path) -> None:
    async with opened(tmp_path) as database:
        await in_network(database)
        records = Records(database)
        rows = [StoredRecord(name, "peer", 1, b"", 0.0, False) for name in ("net", "no such network")]
        with pytest.raises(sqlite3.IntegrityError):
            await records.put(rows)
        assert await records.all() == []
