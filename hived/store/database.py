"""The database and the one thread that owns it.

trio's worker threads have no affinity, and a transaction begun on one of them and ended
on another is a silent no-op; so one thread of our own holds the only connection, and a
transaction is one function that runs there, start to end.
"""

from __future__ import annotations

import contextlib
import os
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import dataset
import outcome
import trio
from sqlalchemy.exc import SQLAlchemyError

from ..errors import HiveError, failed
from . import migrations

T = TypeVar("T")
FILE_NAME = "hive.db"


@dataclass
class _Job:
    function: Callable[[dataset.Database], Any]
    token: trio.lowlevel.TrioToken
    done: trio.Event = field(default_factory=trio.Event)
    result: outcome.Outcome[Any] | None = None


class Database:
    """SQLite (WAL, synchronous=FULL) behind its owner thread. Use :meth:`open`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._own, name="hive-store", daemon=True)
        self._closed = False
        self._moved = trio.Event()

    @classmethod
    async def open(cls, path: Path) -> Database:
        """Check, migrate and open the file (made 0600 when it is new).

        Raises :class:`HiveError` for a database that is damaged, that a newer hived
        wrote (it is not touched), or that cannot be written.
        """
        await trio.to_thread.run_sync(_prepare, path)
        database = cls(path)
        database._thread.start()
        return database

    async def run(self, function: Callable[[dataset.Database], T]) -> T:
        """Run ``function(db)`` as one transaction on the owner thread and return its result.

        An exception rolls it back and is raised here. Once handed over it cannot be
        cancelled: the caller learns whether it was committed. It is called a second time
        where the first could not write.
        """
        if self._closed:
            raise failed("writing to the database failed", "it is closed")
        job = _Job(function, trio.lowlevel.current_trio_token())
        self._jobs.put(job)
        with trio.CancelScope(shield=True):
            await job.done.wait()
        assert job.result is not None
        try:
            return job.result.unwrap()  # type: ignore[no-any-return]  # of the job's own type
        except Exception as error:
            raise _readable(error, self.path) from error

    async def execute(self, statement: str, **values: object) -> None:
        """Run one SQL statement, with its named parameters, as a transaction."""

        def write(db: dataset.Database) -> None:
            db.query(statement, **values)

        await self.run(write)

    async def answer(self) -> None:
        """Returns when the thread has done something, be it but the first of many things that wait."""
        self._moved = trio.Event()
        self._jobs.put(_Job(lambda db: None, trio.lowlevel.current_trio_token()))
        await self._moved.wait()

    async def close(self) -> None:
        """Finish what is queued and close the file."""
        if not self._closed:
            self._closed = True
            self._jobs.put(None)
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(self._thread.join)

    def _own(self) -> None:
        # As top -H and ps show it.
        with contextlib.suppress(OSError):
            Path("/proc/thread-self/comm").write_text(self._thread.name)
        self._db = self._connect()
        try:
            while (job := self._jobs.get()) is not None:
                job.result = self._attempt(job.function)
                if _is_read_only(job.result):
                    # Opened while the disk could not be written to, it stays so; the disk may be well again.
                    job.result = self._attempt(job.function)
                try:
                    job.token.run_sync_soon(self._done, job)
                except trio.RunFinishedError:
                    return
        finally:
            self._db.close()

    def _attempt(self, function: Callable[[dataset.Database], T]) -> outcome.Outcome[T]:
        result = outcome.capture(self._transact, self._db, function)
        if isinstance(result, outcome.Error) and isinstance(result.error, SQLAlchemyError):
            # Where the rollback failed too (a full disk), the connection is of no more use.
            with contextlib.suppress(SQLAlchemyError, sqlite3.Error):
                self._db.close()
            self._db = self._connect()
        return result

    def _done(self, job: _Job) -> None:
        """On trio's thread."""
        job.done.set()
        self._moved.set()

    def _connect(self) -> dataset.Database:
        return dataset.connect(
            f"sqlite:///{self.path}",
            ensure_schema=False,
            row_type=dict,
            on_connect_statements=[
                "PRAGMA foreign_keys=ON",
                "PRAGMA synchronous=FULL",
                "PRAGMA busy_timeout=5000",
            ],
        )

    @staticmethod
    def _transact(db: dataset.Database, function: Callable[[dataset.Database], T]) -> T:
        with db as transaction:
            return function(transaction)


def _prepare(path: Path) -> None:
    steps = migrations.scripts()
    try:
        if path.exists():
            _refuse_newer(path, len(steps))
            os.chmod(path, 0o600)
            _migrate(path, steps)
        else:
            _create(path, steps)
    except (sqlite3.Error, OSError) as error:
        raise _readable(error, path) from error


def _refuse_newer(path: Path, known: int) -> None:
    """Look at the version, read-only: a file from a newer hived must stay as it is."""
    if not path.stat().st_size:
        # SQLite would take it for a new one, and the node would become another without a word.
        raise sqlite3.DatabaseError("it is empty")
    with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        found = migrations.version(connection)
    if found > known:
        raise failed(
            f"opening {path} failed",
            f"a newer hived wrote it (version {found}; this one knows {known})",
            "Install that version again, or set the file aside and start anew",
        )


def _migrate(path: Path, steps: Sequence[str]) -> None:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if verdict != "ok":
            raise sqlite3.DatabaseError(verdict)
        migrations.migrate(connection, steps)


def _create(path: Path, steps: Sequence[str]) -> None:
    """Make a new file whole beside its place, then put it there: no power cut leaves half of one."""
    draft = path.with_suffix(".new")
    for leftover in (draft, Path(f"{draft}-wal"), Path(f"{draft}-shm")):
        leftover.unlink(missing_ok=True)
    os.close(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    _migrate(draft, steps)
    os.rename(draft, path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _is_read_only(result: outcome.Outcome[object]) -> bool:
    """Whether it failed since SQLite could only open the file for reading."""
    reason = getattr(result.error, "orig", None) if isinstance(result, outcome.Error) else None
    return getattr(reason, "sqlite_errorcode", None) == sqlite3.SQLITE_READONLY


def _is_full(reason: sqlite3.OperationalError, path: Path) -> bool:
    """Whether there is no room; of the files beside the database SQLite says so as of a broken disk."""
    if getattr(reason, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
        return True
    try:
        return "I/O" in str(reason) and os.statvfs(path.parent).f_bavail == 0
    except OSError:
        return False


def _readable(error: Exception, path: Path) -> Exception:
    """A database failure as a line for people; any other error as it is."""
    cause = error.__cause__ if error.__cause__ is not None else error
    reason = getattr(error, "orig", None) or cause
    if isinstance(error, HiveError):
        return error
    if isinstance(reason, OSError):
        return failed(f"opening {path} failed", reason.strerror or str(reason), "Check its owner and mode")
    if isinstance(reason, sqlite3.IntegrityError):
        return reason
    if isinstance(reason, sqlite3.OperationalError):
        if _is_full(reason, path):
            return failed(
                f"using {path} failed", "the disk is full", "Make room: hived then goes on by itself"
            )
        return failed(f"using {path} failed", str(reason), "Check the disk, and the file's owner and mode")
    if isinstance(reason, sqlite3.DatabaseError):
        return failed(
            f"opening {path} failed",
            f"the file is damaged ({reason})",
            f"Restore a copy, or set it aside and start anew:"
            f" mv {path} {path}.damaged; rm -f {path}-wal {path}-shm",
        )
    if isinstance(error, SQLAlchemyError):
        return failed(f"using {path} failed", str(error).split("\n")[0], "Check the disk")
    return error
