"""A real database file for the tests of the store, and a state key."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from hived.store.database import FILE_NAME, Database
from hived.store.seal import KEY_BYTES, StateKey

KEY = StateKey(bytes(range(KEY_BYTES)), Path("state.key"))


@asynccontextmanager
async def opened(directory: Path) -> AsyncIterator[Database]:
    """The database in ``directory``, made when it is not there; closed in the end."""
    database = await Database.open(directory / FILE_NAME)
    try:
        yield database
    finally:
        await database.close()
