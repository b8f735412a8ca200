"""The database as bytes: taken while hived runs, and made fit for another state key.

In between it is an in-memory database: nothing of it touches the disk.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dataset import Database as Tables

from ..errors import HiveError, usage
from . import migrations, seal
from .backup import damaged
from .database import Database
from .seal import KEY_BYTES, StateKey

# Where the header tells write-ahead logging, which no database in memory can do (SQLite file format, 1.3.3).
_JOURNAL = slice(18, 20)


@dataclass(frozen=True)
class Adopted:
    """A database that this node's state key opens, and whose identity is in it."""

    peer_id: str
    seed: bytes = field(repr=False)
    database: bytes = field(repr=False)


async def take(database: Database) -> bytes:
    """The whole database as of now, in the format of its file."""

    def copy(db: Tables) -> bytes:
        source = db.executable.connection.driver_connection
        assert isinstance(source, sqlite3.Connection)
        with contextlib.closing(sqlite3.connect(":memory:")) as target:
            source.backup(target)
            return target.serialize()

    return await database.run(copy)


def export(image: bytes, state_key: StateKey) -> tuple[bytes, bytes]:
    """The database sealed with a new key, and that: a node's own state key never leaves it (blocking)."""
    key = os.urandom(KEY_BYTES)
    with _opened(image) as connection:
        _hand_over(connection, state_key, StateKey(key, Path("the backup")))
        return connection.serialize(), key


def adopt(image: bytes, key: bytes, state_key: StateKey, settings: Mapping[str, str | None]) -> Adopted:
    """A database out of a backup, checked, migrated and sealed with this node's key (blocking).

    ``settings`` are to hold in it, None for none. Raises HiveError (usage) for one that is not whole,
    or that a newer hived made.
    """
    steps = migrations.scripts()
    if len(key) != KEY_BYTES:
        raise damaged("its key has the wrong length")
    theirs = StateKey(key, Path("the key in the backup"))
    try:
        with _opened(image) as connection:
            _check(connection, len(steps))
            # Before anything is written, which a schema of its own could answer without end.
            if _schema(connection) != _own_schema(steps[: migrations.version(connection)]):
                raise damaged("its tables are not a node's")
            migrations.migrate(connection, steps)
            if _schema(connection) != _own_schema(steps):
                raise damaged("its tables are not a node's")
            row = connection.execute("SELECT peer_id, sealed_key FROM identity").fetchone()
            if row is None:
                raise damaged("it holds no identity")
            seed = theirs.open(bytes(row[1]), "identity/1")
            _hand_over(connection, theirs, state_key)
            for name, value in settings.items():
                connection.execute("DELETE FROM setting WHERE key = ?", (name,))
                if value is not None:
                    connection.execute("INSERT INTO setting (key, value) VALUES (?, ?)", (name, value))
            return Adopted(str(row[0]), seed, connection.serialize())
    except sqlite3.Error as error:
        raise damaged(str(error)) from None
    except HiveError as error:
        if error.what.startswith("decrypting"):
            raise damaged(error.what) from None
        raise


@contextlib.contextmanager
def _opened(image: bytes) -> Iterator[sqlite3.Connection]:
    data = bytearray(image)
    data[_JOURNAL] = b"\x01\x01"
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.deserialize(bytes(data))
        yield connection


def _check(connection: sqlite3.Connection, known: int) -> None:
    verdict = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
    if verdict != "ok":
        raise damaged(verdict)
    found = migrations.version(connection)
    if found > known:
        raise usage(
            "reading the backup failed",
            f"a newer hived made it (database version {found}; this one knows {known})",
            "Install that version here first",
        )


def _schema(connection: sqlite3.Connection) -> set[tuple[object, ...]]:
    """What is in the database but rows: a trigger or view that somebody put in would run in ours."""
    rows = connection.execute("SELECT type, name, tbl_name FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%'")
    found: set[tuple[object, ...]] = set(rows.fetchall())
    return found | {
        (table, *column) for table in _tables(connection) for column in _columns(connection, table)
    }


def _own_schema(steps: list[str]) -> set[tuple[object, ...]]:
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        migrations.migrate(connection, steps)
        return _schema(connection)


def _tables(connection: sqlite3.Connection) -> list[str]:
    rows = connection.execute(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
    )
    return [str(row[0]) for row in rows]


def _columns(connection: sqlite3.Connection, table: str) -> list[tuple[str, str, int, str | None, int]]:
    """Name, type, NOT NULL, default, and the place in the primary key, from 1."""
    rows = connection.execute(
        'SELECT name, type, "notnull", dflt_value, pk FROM pragma_table_info(?)', (table,)
    )
    return [tuple(row) for row in rows]


def _hand_over(connection: sqlite3.Connection, old: StateKey, new: StateKey) -> None:
    """Seal every ``sealed_`` column anew, end the sessions, and leave nothing of either in free pages."""
    for table in _tables(connection):
        columns = _columns(connection, table)
        keys = [name for name, *_, pk in columns if pk]
        for column in (name for name, *_ in columns if name.startswith("sealed_")):
            (key,) = keys
            rows = connection.execute(f"SELECT {key}, {column} FROM {table} WHERE {column} IS NOT NULL")
            for row, sealed in rows.fetchall():
                place = seal.place(table, row, column)
                value = new.seal(old.open(bytes(sealed), place), place)
                connection.execute(f"UPDATE {table} SET {column} = ? WHERE {key} = ?", (value, row))
    connection.execute("DELETE FROM session")
    connection.execute("VACUUM")
