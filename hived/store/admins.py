"""Admin users (Argon2 hashes) and their sessions (hashed tokens)."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dataset import Database as Tables

from .database import Database


@dataclass(frozen=True)
class Admin:
    """A user of this node; ``hash`` is an Argon2 PHC string."""

    user: str
    hash: str
    created: float


@dataclass(frozen=True)
class Session:
    """A log-in; ``bound_to`` is ``uid:N`` or ``peer:PEERID``, times are epoch seconds."""

    id: int
    user: str
    bound_to: str
    created: float
    expires: float


def _session(row: Mapping[str, Any]) -> Session:
    return Session(int(row["id"]), row["user"], row["bound_to"], float(row["created"]), float(row["expires"]))


@dataclass(frozen=True)
class Admins:
    """Rows of ``admin`` and ``session``."""

    database: Database

    async def get(self, user: str) -> Admin | None:
        def read(db: Tables) -> Admin | None:
            row = db["admin"].find_one(user=user)
            return Admin(row["user"], row["hash"], float(row["created"])) if row else None

        return await self.database.run(read)

    async def all(self) -> list[Admin]:
        def read(db: Tables) -> list[Admin]:
            return [
                Admin(r["user"], r["hash"], float(r["created"])) for r in db["admin"].find(order_by="user")
            ]

        return await self.database.run(read)

    async def create(self, user: str, password_hash: str) -> bool:
        """Add a user; False (and no change) when there is one of that name."""

        def write(db: Tables) -> None:
            db["admin"].insert({"user": user, "hash": password_hash, "created": time.time()}, ensure=False)

        try:
            await self.database.run(write)
        except sqlite3.IntegrityError:
            return False
        return True

    async def set(self, user: str, password_hash: str) -> None:
        """Give a user a password, making the user when needed; a new password ends the old sessions."""

        def write(db: Tables) -> None:
            db["session"].delete(user=user)
            db.query(
                "INSERT INTO admin (user, hash, created) VALUES (:user, :hash, :now)"
                " ON CONFLICT (user) DO UPDATE SET hash = :hash",
                user=user,
                hash=password_hash,
                now=time.time(),
            )

        await self.database.run(write)

    async def remove(self, user: str) -> bool:
        """Remove a user with its sessions; whether there was one."""
        return await self.database.run(lambda db: bool(db["admin"].delete(user=user)))

    async def open_session(self, token_hash: bytes, user: str, bound_to: str, lifetime: float) -> Session:
        """Keep a log-in for ``lifetime`` seconds; expired ones go."""
        now = time.time()

        def write(db: Tables) -> Session:
            db.query("DELETE FROM session WHERE expires < :now", now=now)
            row: dict[str, Any] = {
                "user": user,
                "bound_to": bound_to,
                "created": now,
                "expires": now + lifetime,
            }
            key = db["session"].insert({**row, "token_hash": token_hash}, ensure=False)
            return _session({"id": key, **row})

        return await self.database.run(write)

    async def find_session(self, token_hash: bytes) -> Session | None:
        """The live session of a token."""

        def read(db: Tables) -> Session | None:
            row = db["session"].find_one(token_hash=token_hash)
            return _session(row) if row and row["expires"] > time.time() else None

        return await self.database.run(read)

    async def sessions(self) -> list[Session]:
        def read(db: Tables) -> list[Session]:
            return [
                _session(row) for row in db["session"].find(order_by="id") if row["expires"] > time.time()
            ]

        return await self.database.run(read)

    async def close_session(self, session_id: int) -> bool:
        return await self.database.run(lambda db: bool(db["session"].delete(id=session_id)))
