"""The database as bytes: taken, sealed anew, checked and adopted."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path

import pytest
import trio
from trio.testing import trio_test

from hived.errors import HiveError, Kind
from hived.store import migrations, seal, snapshot
from hived.store.admins import Admins
from hived.store.database import FILE_NAME
from hived.store.networks import Networks
from hived.store.seal import KEY_BYTES, StateKey
from hived.store.settings import IdentityKeys, Settings
from tests.unit.store.stores import KEY, opened

OTHER = StateKey(os.urandom(KEY_BYTES), Path("other.key"))
SEED, K = b"S" * 32, b"A" * 32
TOKEN = b"a token's hash"


async def image(directory: Path) -> bytes:
    """The bytes of a node's database: an identity, a network, an admin with a session."""
    async with opened(directory) as database:
        await IdentityKeys(database, KEY).save(SEED, "12D3KooWx")
        await Networks(database, KEY).add("net", K)
        await Networks(database, KEY).add("net-2", K)
        await Admins(database).create("admin", "hash")
        await Admins(database).open_session(TOKEN, "admin", "uid:0", 1000.0)
        await Settings(database).set("name", "alpha")
        return await snapshot.take(database)


def altered(data: bytes, *statements: str) -> bytes:
    """The database after some SQL."""
    with snapshot._opened(data) as connection:
        for statement in statements:
            connection.execute(statement)
        return connection.serialize()


def adopt(data: bytes, key: bytes = bytes(range(KEY_BYTES))) -> snapshot.Adopted:
    return snapshot.adopt(data, key, OTHER, {})


def refusal(data: bytes) -> HiveError:
    with pytest.raises(HiveError) as caught:
        adopt(data)
    assert caught.value.kind is Kind.USAGE
    return caught.value


@trio_test
async def test_from_one_node_to_another(tmp_path: Path) -> None:
    """The whole way: the secrets open with the other node's state key, and with no key in between."""
    database, key = snapshot.export(await image(tmp_path), KEY)
    assert key != bytes(range(KEY_BYTES))
    adopted = snapshot.adopt(database, key, OTHER, {"restored": "7", "name": None})
    assert (adopted.peer_id, adopted.seed) == ("12D3KooWx", SEED)
    target = tmp_path / "other"
    target.mkdir()
    (target / FILE_NAME).write_bytes(adopted.database)
    async with opened(target) as there:
        assert await IdentityKeys(there, OTHER).load() == SEED
        assert [(n.name, n.key) for n in await Networks(there, OTHER).all()] == [("net", K), ("net-2", K)]
        assert [a.user for a in await Admins(there).all()] == ["admin"]
        assert await Admins(there).sessions() == []
        settings = Settings(there)
        assert await settings.get("name") is None
        assert await settings.restored() == 7
        await settings.clear_restored()
        assert await settings.restored() is None
        with pytest.raises(HiveError):
            await IdentityKeys(there, KEY).load()
    for secret in (SEED, K, TOKEN, key):
        assert secret not in adopted.database
        if secret is not key:
            assert secret not in database


@trio_test
async def test_the_state_key_is_not_in_a_backup(tmp_path: Path) -> None:
    """Nor is anything that it opens: it may protect more than this database."""
    data = await image(tmp_path)
    with snapshot._opened(data) as connection:
        (sealed,) = connection.execute("SELECT sealed_key FROM identity").fetchone()
    assert sealed in data
    database, _ = snapshot.export(data, KEY)
    assert sealed not in database


@trio_test
async def test_what_was_deleted_is_not_in_a_backup(tmp_path: Path) -> None:
    """SQLite leaves it in free pages."""
    data = altered(
        await image(tmp_path),
        "PRAGMA secure_delete = OFF",
        "INSERT INTO setting VALUES ('gone', hex(zeroblob(10000)) || 'a former secret')",
        "DELETE FROM setting WHERE key = 'gone'",
    )
    assert b"a former secret" in data
    assert b"a former secret" not in snapshot.export(data, KEY)[0]


@trio_test
async def test_a_snapshot_is_one_moment_while_others_write(tmp_path: Path) -> None:
    """Each transaction is in it whole or not at all, with all that was committed before."""
    async with opened(tmp_path) as database:
        settings = Settings(database)
        images: list[tuple[str | None, bytes]] = []

        async def write() -> None:
            for number in range(200):
                await database.run(
                    lambda db, n=number: [
                        db["setting"].upsert({"key": k, "value": str(n)}, ["key"], ensure=False) for k in "ab"
                    ]  # type: ignore[misc]  # columns of unlike types
                )

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            while not images or await settings.get("a") != "199":
                before = await settings.get("a")
                images.append((before, await snapshot.take(database)))
    assert len(images) > 3
    for before, data in images:
        with snapshot._opened(data) as connection:
            rows = dict(connection.execute("SELECT key, value FROM setting").fetchall())
        assert rows.get("a") == rows.get("b")
        assert int(rows.get("a", -1)) >= int(before or -1)


@trio_test
async def test_every_sealed_column_is_sealed_anew(tmp_path: Path) -> None:
    """All that migrations ever add, by name; a value that moved is not carried over."""
    data = await image(tmp_path)
    place = seal.place("network", "net", "sealed_more")
    with snapshot._opened(data) as connection:
        connection.execute("ALTER TABLE network ADD COLUMN sealed_more BLOB")
        connection.execute("UPDATE network SET sealed_more = ? WHERE name = 'net'", (KEY.seal(b"x", place),))
        snapshot._hand_over(connection, KEY, OTHER)
        rows = connection.execute("SELECT name, sealed_more FROM network ORDER BY name").fetchall()
        assert OTHER.open(rows[0][1], place) == b"x"
        assert rows[1] == ("net-2", None)
        swapped = "UPDATE network SET sealed_key = (SELECT sealed_key FROM network WHERE name = 'net')"
        connection.execute(swapped)
        with pytest.raises(HiveError, match="decrypting"):
            snapshot._hand_over(connection, OTHER, KEY)


@trio_test
async def test_a_network_that_is_being_rekeyed(tmp_path: Path) -> None:
    """Its former key comes along as long as it counts."""
    old, until = b"O" * 32, 2e9
    async with opened(tmp_path) as database:
        await Networks(database, KEY).add("net", old)
        await IdentityKeys(database, KEY).save(SEED, "12D3KooWx")
        await Networks(database, KEY).rekey("net", K, old, until)
        data, key = snapshot.export(await snapshot.take(database), KEY)
    target = tmp_path / "other"
    target.mkdir()
    (target / FILE_NAME).write_bytes(adopt(data, key).database)
    async with opened(target) as there:
        (found,) = await Networks(there, OTHER).all()
        assert (found.key, found.old_key, found.old_until) == (K, old, until)


def test_every_sealed_column_has_a_place() -> None:
    """One primary key column, of which the place is made."""
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        migrations.migrate(connection, migrations.scripts())
        found = set()
        for table in snapshot._tables(connection):
            columns = snapshot._columns(connection, table)
            if any(name.startswith("sealed_") for name, *_ in columns):
                found.add(table)
                assert len([name for name, *_, key in columns if key]) == 1
    assert found >= {"identity", "network"}


# What is no database of a node


@trio_test
async def test_what_is_refused(tmp_path: Path) -> None:
    data = await image(tmp_path)
    assert adopt(data).seed == SEED
    known = len(migrations.scripts())
    assert (
        f"newer hived made it (database version {known + 1}"
        in refusal(altered(data, f"PRAGMA user_version = {known + 1}")).why
    )
    for statement, why in {
        "DELETE FROM identity": "no identity",
        "DROP TABLE proxy": "tables are not a node's",
        "CREATE TABLE more (x)": "tables are not a node's",
        "CREATE VIEW more AS SELECT 1": "tables are not a node's",
        "CREATE TRIGGER t AFTER INSERT ON peer BEGIN DELETE FROM admin; END": "tables are not a node's",
        "DROP INDEX proxy_ingress": "tables are not a node's",
        "ALTER TABLE peer ADD COLUMN more TEXT": "tables are not a node's",
        "UPDATE identity SET sealed_key = x'00'": "decrypting identity",
        "UPDATE network SET sealed_key = zeroblob(60)": "decrypting network",
    }.items():
        error = refusal(altered(data, statement))
        assert "damaged" in error.why
        assert why in error.why, statement


@trio_test
async def test_another_key(tmp_path: Path) -> None:
    data = await image(tmp_path)
    for key in (os.urandom(KEY_BYTES), b"", b"short"):
        with pytest.raises(HiveError, match="damaged"):
            adopt(data, key)


@trio_test
async def test_pages_that_are_not_what_they_were(tmp_path: Path) -> None:
    """A damaged database is told, whatever is damaged: it is never put in force."""
    data = await image(tmp_path)
    for at in range(0, len(data), 4096):
        page = bytearray(data)
        page[at : at + 4096] = os.urandom(4096)
        refusal(bytes(page))
    for size in (0, 1, 99, 100, 4096, len(data) - 4096):
        refusal(data[:size])


def test_an_older_one_is_migrated() -> None:
    steps = migrations.scripts()
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        migrations.migrate(connection, steps[:1])
        connection.execute("INSERT INTO identity VALUES (1, 'p', ?)", (KEY.seal(SEED, "identity/1"),))
        connection.execute(
            "INSERT INTO network (name, sealed_key, created) VALUES ('n', ?, 1)", (KEY.seal(K, "network/n"),)
        )
        data = connection.serialize()
    adopted = adopt(data)
    with snapshot._opened(adopted.database) as connection:
        assert migrations.version(connection) == len(steps)
        (sealed,) = connection.execute("SELECT sealed_key FROM network").fetchone()
    assert OTHER.open(sealed, "network/n") == K
