"""Numbered steps: applied once, in order, and a failed one leaves nothing."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from hived.store import migrations


def names(connection: sqlite3.Connection) -> set[str]:
    return {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def test_all_scripts_from_nothing(tmp_path: Path) -> None:
    """Version 0 becomes the newest, and a second time changes nothing."""
    connection = sqlite3.connect(tmp_path / "x", isolation_level=None)
    steps = migrations.scripts()
    assert migrations.version(connection) == 0
    migrations.migrate(connection, steps)
    assert migrations.version(connection) == len(steps) >= 1
    tables = names(connection)
    migrations.migrate(connection, steps)
    assert names(connection) == tables
    assert {"setting", "identity", "network", "admin", "session", "peer", "record", "proxy"} <= tables


def test_only_missing_steps_run() -> None:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    migrations.migrate(connection, ["CREATE TABLE one (x);"])
    migrations.migrate(connection, ["CREATE TABLE one (x);", "CREATE TABLE two (x);"])
    assert (names(connection), migrations.version(connection)) == ({"one", "two"}, 2)


def test_a_failed_step_leaves_nothing() -> None:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    steps = ["CREATE TABLE one (x);", "CREATE TABLE two (x); INSERT INTO nowhere VALUES (1);"]
    with pytest.raises(sqlite3.Error):
        migrations.migrate(connection, steps)
    assert (names(connection), migrations.version(connection)) == ({"one"}, 1)
    assert not connection.in_transaction
