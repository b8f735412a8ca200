"""A restored database on its way into force: staged while hived runs, taken up when it starts anew.

Every step may be the last before a power cut: the next start goes on from there.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from itertools import count, takewhile
from pathlib import Path

from ..errors import failed
from .database import FILE_NAME

STAGED = f"{FILE_NAME}.restored"
BEFORE = f"{FILE_NAME}.before-restore"
_DRAFT = f"{STAGED}.new"
_LOG = "-wal"
_INDEX = "-shm"


def stage(data_dir: Path, image: bytes) -> None:
    """Put a whole database where the next start finds it (blocking). Raises HiveError."""
    draft = data_dir / _DRAFT
    try:
        draft.unlink(missing_ok=True)
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(image)
            file.flush()
            os.fsync(file.fileno())
        os.rename(draft, data_dir / STAGED)
        _sync(data_dir)
    except OSError as error:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise failed(
            f"writing {data_dir / STAGED} failed", error.strerror or str(error), "Check the disk"
        ) from None


def take_up(data_dir: Path) -> bool:
    """Before the database is opened: put a staged one in its place; whether there was one.

    The one that was in force is kept as ``hive.db.before-restore``, or ``.before-restore.2`` and so on where
    there is one already, with its log. Raises HiveError.
    """
    try:
        (data_dir / _DRAFT).unlink(missing_ok=True)
        if not (data_dir / STAGED).exists():
            return False
        _set_aside(data_dir / FILE_NAME)
        _sync(data_dir)
        os.rename(data_dir / STAGED, data_dir / FILE_NAME)
        _sync(data_dir)
    except OSError as error:
        raise failed(
            f"taking up {data_dir / STAGED} failed",
            error.strerror or str(error),
            "Check the disk, and the owner of the files there",
        ) from None
    return True


def _set_aside(current: Path) -> None:
    """Move a database away with its log, of which it may need the changes. The log must go before another
    database comes to its name: SQLite would play it into that one."""
    kept = _kept(current.parent)
    if current.exists():
        before = next(path for path in _names(current.parent) if path not in kept)
        for suffix in (_LOG, _INDEX):
            _beside(before, suffix).unlink(missing_ok=True)
        os.rename(current, before)
        kept.append(before)
    if _beside(current, _LOG).exists():
        # Perhaps of a move begun before: then the database went first.
        os.rename(_beside(current, _LOG), _beside(kept[-1] if kept else current.parent / BEFORE, _LOG))
    _beside(current, _INDEX).unlink(missing_ok=True)


def _names(directory: Path) -> Iterator[Path]:
    yield directory / BEFORE
    yield from (directory / f"{BEFORE}.{number}" for number in count(2))


def _kept(directory: Path) -> list[Path]:
    """What restores have set aside, the latest last."""
    return list(takewhile(Path.exists, _names(directory)))


def _beside(path: Path, suffix: str) -> Path:
    return Path(f"{path}{suffix}")


def _sync(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
