"""The file and its owner thread: transactions whole or not at all, and what is refused."""

from __future__ import annotations

import hashlib
import resource
import sqlite3
import stat
import threading
from pathlib import Path

import dataset
import pytest
import trio
from trio.testing import trio_test

from hived.errors import HiveError, Kind
from hived.store.database import FILE_NAME, Database
from tests.unit.store.stores import opened


def refusal(directory: Path) -> str:
    """The one line with which opening is refused."""

    async def main() -> None:
        async with opened(directory):
            pass

    with pytest.raises(HiveError) as caught:
        trio.run(main)
    assert caught.value.kind is Kind.FAILED
    return caught.value.line()


@trio_test
async def test_a_new_file(tmp_path: Path) -> None:
    """0600, also its journal; WAL; FULL; foreign keys enforced; every table STRICT."""
    async with opened(tmp_path) as database:
        await database.execute("INSERT INTO setting VALUES ('a', 'b')")
        for name in (FILE_NAME, FILE_NAME + "-wal", FILE_NAME + "-shm"):
            assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600, name

        def pragmas(db: dataset.Database) -> list[object]:
            names = ("journal_mode", "synchronous", "foreign_keys")
            return [next(iter(row.values())) for name in names for row in db.query(f"PRAGMA {name}")]

        assert await database.run(pragmas) == ["wal", 2, 1]
    tables = sqlite3.connect(tmp_path / FILE_NAME).execute(
        "SELECT name, sql FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
    )
    assert [name for name, sql in tables if "STRICT" not in sql] == []


@trio_test
async def test_types_and_references_are_enforced(tmp_path: Path) -> None:
    async with opened(tmp_path) as database:
        with pytest.raises(sqlite3.IntegrityError):
            await database.execute("INSERT INTO peer (peer_id, blocked) VALUES ('x', 'not a number')")
        with pytest.raises(sqlite3.IntegrityError):
            await database.execute(
                "INSERT INTO registration (peer_id, network) VALUES ('x', 'no such network')"
            )


@trio_test
async def test_a_wide_open_file_is_closed(tmp_path: Path) -> None:
    async with opened(tmp_path):
        pass
    (tmp_path / FILE_NAME).chmod(0o644)
    async with opened(tmp_path):
        assert stat.S_IMODE((tmp_path / FILE_NAME).stat().st_mode) == 0o600


@trio_test
async def test_all_runs_on_one_thread_that_is_not_ours(tmp_path: Path) -> None:
    async with opened(tmp_path) as database:
        threads = {await database.run(lambda db: threading.get_ident()) for _ in range(5)}
    assert len(threads) == 1
    assert threads != {threading.get_ident()}


@trio_test
async def test_a_failed_transaction_leaves_nothing(tmp_path: Path) -> None:
    def half(db: dataset.Database) -> None:
        db.query("INSERT INTO setting VALUES ('half', 'done')")
        raise LookupError("in the middle")

    async with opened(tmp_path) as database:
        with pytest.raises(LookupError, match="in the middle"):
            await database.run(half)
        assert await database.run(lambda db: db["setting"].count()) == 0
        await database.execute("INSERT INTO setting VALUES ('whole', 'done')")  # it goes on
    async with opened(tmp_path) as database:
        assert await database.run(lambda db: [r["key"] for r in db["setting"].find()]) == ["whole"]


@trio_test
async def test_a_cancelled_caller_neither_loses_nor_halves_a_write(tmp_path: Path) -> None:
    """The write is under way when the caller is cancelled: it is done whole, and the caller hears of it."""
    begun, go_on = threading.Event(), threading.Event()
    heard: list[str] = []

    def slow(db: dataset.Database) -> str:
        db.query("INSERT INTO setting VALUES ('one', '1')")
        begun.set()
        assert go_on.wait(20)
        db.query("INSERT INTO setting VALUES ('two', '2')")
        return "committed"

    async with opened(tmp_path) as database:
        async with trio.open_nursery() as nursery:

            async def caller() -> None:
                heard.append(await database.run(slow))

            nursery.start_soon(caller)
            await trio.to_thread.run_sync(begun.wait, 20)
            nursery.cancel_scope.cancel()
            go_on.set()
        assert heard == ["committed"]
        assert await database.run(lambda db: db["setting"].count()) == 2


@trio_test
async def test_writes_are_there_after_a_close_and_none_are_taken_then(tmp_path: Path) -> None:
    database = await Database.open(tmp_path / FILE_NAME)
    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(
                database.run, lambda db, n=number: db.query(f"INSERT INTO setting VALUES ('{n}', '')")
            )
    await database.close()
    await database.close()
    with pytest.raises(HiveError, match="closed"):
        await database.run(lambda db: None)
    async with opened(tmp_path) as again:
        assert await again.run(lambda db: db["setting"].count()) == 20


@trio_test
async def test_dataset_makes_no_tables_or_columns(tmp_path: Path) -> None:
    async with opened(tmp_path) as database:
        with pytest.raises(Exception, match=r"no_such_table"):
            await database.run(lambda db: db["no_such_table"].insert({"a": 1}, ensure=False))
    found = sqlite3.connect(tmp_path / FILE_NAME).execute(
        "SELECT count(*) FROM sqlite_master WHERE name LIKE 'no_%'"
    )
    assert found.fetchone() == (0,)


# What is refused


def test_a_newer_version_is_refused_and_not_touched(tmp_path: Path) -> None:
    path = tmp_path / FILE_NAME
    connection = sqlite3.connect(path)
    connection.executescript("PRAGMA journal_mode=WAL; CREATE TABLE future (x); PRAGMA user_version = 99;")
    connection.close()
    path.chmod(0o640)
    before = hashlib.sha256(path.read_bytes()).digest(), path.stat().st_mtime_ns, path.stat().st_mode
    line = refusal(tmp_path)
    assert str(path) in line
    assert "version 99" in line
    assert (
        hashlib.sha256(path.read_bytes()).digest(),
        path.stat().st_mtime_ns,
        path.stat().st_mode,
    ) == before


@pytest.mark.parametrize("damage", ["text", "truncated", "header", "middle", "short", "empty"])
def test_a_damaged_file_is_named_with_what_to_do(tmp_path: Path, damage: str) -> None:
    async def fill() -> None:
        async with opened(tmp_path) as database:
            for number in range(100):
                await database.execute("INSERT INTO setting VALUES (:k, :v)", k=str(number), v="x" * 500)

    trio.run(fill)
    path = tmp_path / FILE_NAME
    data = bytearray(path.read_bytes())
    if damage == "text":
        data[:] = b"this is no database at all, but a letter to a friend\n" * 10
    elif damage == "truncated":
        del data[len(data) // 2 :]
    elif damage == "header":
        data[:100] = bytes(100)
    elif damage == "middle":
        data[4096 : len(data) - 4096] = b"\xa5" * (len(data) - 8192)
    elif damage == "empty":
        data.clear()
    else:
        del data[10:]
    path.write_bytes(data)
    line = refusal(tmp_path)
    assert str(path) in line
    assert "damaged" in line
    assert f"mv {path} " in line
    assert path.read_bytes() == bytes(data)


def test_a_directory_in_its_place(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).mkdir()
    assert str(tmp_path / FILE_NAME) in refusal(tmp_path)


def test_no_directory_for_it(tmp_path: Path) -> None:
    assert "no such file" in refusal(tmp_path / "none").lower()


@trio_test
async def test_a_full_or_locked_disk_is_one_line(tmp_path: Path) -> None:
    async with opened(tmp_path) as database:
        await database.execute("PRAGMA max_page_count = 1")
        with pytest.raises(HiveError, match="full"):
            await database.execute("INSERT INTO setting VALUES ('a', :v)", v="x" * 1_000_000)


@trio_test
async def test_a_failed_commit_costs_no_later_one(tmp_path: Path) -> None:
    """The disk is full for a moment, here by a limit on file sizes: one clear error, then all goes on."""
    async with opened(tmp_path) as database:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (32 * 1024, hard))
        try:
            with pytest.raises(HiveError, match=r"using .* failed"):
                await database.execute("INSERT INTO setting VALUES ('big', :v)", v="x" * 1_000_000)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        await database.execute("INSERT INTO setting VALUES ('small', 'kept')")
        rows = await database.run(lambda db: [row["key"] for row in db["setting"].find()])
        assert rows == ["small"]


@trio_test
async def test_a_connection_that_only_reads_costs_no_write(tmp_path: Path) -> None:
    """It has been opened while the disk was read-only, as SQLite then does; the disk is not any more."""
    async with opened(tmp_path) as database:
        await database.execute("PRAGMA query_only = ON")
        await database.execute("INSERT INTO setting VALUES ('a', 'b')")
        assert await database.run(lambda db: db["setting"].count()) == 1


@trio_test
async def test_a_disk_that_stays_read_only_is_one_line_each_time(tmp_path: Path) -> None:
    def write(db: dataset.Database) -> None:
        db.query("PRAGMA query_only = ON")
        db.query("INSERT INTO setting VALUES ('a', 'b')")

    async with opened(tmp_path) as database:
        for _ in range(2):
            with pytest.raises(HiveError, match=r"using .* failed: attempt to write a readonly database\."):
                await database.run(write)
        assert await database.run(lambda db: db["setting"].count()) == 0
        await database.execute("INSERT INTO setting VALUES ('a', 'b')")
