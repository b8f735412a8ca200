"""Numbered SQL migrations: ``sql/NNNN.sql`` brings the database to version NNNN.

``PRAGMA user_version`` holds the version. Each file runs in one transaction together
with the change of the version, so that a power cut leaves one or the other.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from importlib.resources import files


def scripts() -> list[str]:
    """The SQL of every migration, in order; the first brings version 0 to 1."""
    found = sorted(
        (item for item in (files(__package__) / "sql").iterdir() if item.name.endswith(".sql")),
        key=lambda item: item.name,
    )
    return [item.read_text() for item in found]


def version(connection: sqlite3.Connection) -> int:
    """The version of the database behind ``connection``; 0 for an empty one."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def migrate(connection: sqlite3.Connection, steps: Sequence[str]) -> None:
    """Apply the steps that are missing. Raises sqlite3.Error; nothing of a failed step stays."""
    for number in range(version(connection), len(steps)):
        script = f"BEGIN IMMEDIATE;\n{steps[number]}\nPRAGMA user_version = {number + 1};\nCOMMIT;"
        try:
            connection.executescript(script)
        except sqlite3.Error:
            if connection.in_transaction:
                connection.rollback()
            raise
