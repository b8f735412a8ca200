"""What this node keeps about peers: aliases, blocks, addresses that were typed, who had which name first."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dataset import Database as Tables

from ..errors import conflict
from .database import Database


@dataclass(frozen=True)
class Peer:
    """``last_contact`` is this node's own last authenticated contact, epoch seconds."""

    peer_id: str
    alias: str | None
    blocked: bool
    last_contact: float | None


@dataclass(frozen=True)
class Peers:
    """Rows of ``peer``, ``peer_address`` and ``peer_name``."""

    database: Database

    async def all(self) -> list[Peer]:
        def read(db: Tables) -> list[Peer]:
            return [
                Peer(r["peer_id"], r["alias"], bool(r["blocked"]), r["last_contact"])
                for r in db["peer"].find()
            ]

        return await self.database.run(read)

    async def _set(self, peer_id: str, column: str, value: object) -> None:
        statement = (
            f"INSERT INTO peer (peer_id, {column}) VALUES (:peer, :value)"
            f" ON CONFLICT (peer_id) DO UPDATE SET {column} = :value"
        )
        await self.database.execute(statement, peer=peer_id, value=value)

    async def set_alias(self, peer_id: str, alias: str | None) -> None:
        """Raises conflict when another peer has the alias."""
        try:
            await self._set(peer_id, "alias", alias)
        except sqlite3.IntegrityError:
            raise conflict(f"setting alias {alias} failed", "another node has it", "Choose another") from None

    async def set_blocked(self, peer_id: str, blocked: bool) -> None:
        await self._set(peer_id, "blocked", int(blocked))

    async def contacted(self, contacts: dict[str, float]) -> None:
        """Keep last contacts, peer ID to epoch seconds."""

        def write(db: Tables) -> None:
            for peer_id, when in contacts.items():
                db.query(
                    "INSERT INTO peer (peer_id, last_contact) VALUES (:peer, :at)"
                    " ON CONFLICT (peer_id) DO UPDATE SET last_contact = max(coalesce(last_contact, 0), :at)",
                    peer=peer_id,
                    at=when,
                )

        await self.database.run(write)

    async def addresses(self) -> dict[str, list[str]]:
        """The addresses that the user gave, by peer ID, newest first."""

        def read(db: Tables) -> dict[str, list[str]]:
            found: dict[str, list[str]] = {}
            for row in db["peer_address"].find(order_by="-added"):
                found.setdefault(row["peer_id"], []).append(row["address"])
            return found

        return await self.database.run(read)

    async def set_addresses(self, peer_id: str, addresses: list[str]) -> None:
        """Replace the addresses that the user gave for a peer."""

        def write(db: Tables) -> None:
            db["peer_address"].delete(peer_id=peer_id)
            now = time.time()
            for position, address in enumerate(addresses):
                row: dict[str, Any] = {
                    "peer_id": peer_id,
                    "address": address,
                    "added": now - position / 1000,
                }
                db["peer_address"].insert_ignore(row, ["peer_id", "address"], ensure=False)

        await self.database.run(write)

    async def names(self) -> dict[str, str]:
        """Who owns which name: name to peer ID."""
        return await self.database.run(lambda db: {r["name"]: r["peer_id"] for r in db["peer_name"].find()})

    async def own_names(self, claims: Mapping[str, str]) -> None:
        """Peers (by peer ID) were first seen with names; each gives up a name it had before."""

        def write(db: Tables) -> None:
            for peer_id, name in claims.items():
                db.query("DELETE FROM peer_name WHERE peer_id = :peer", peer=peer_id)
                db.query(
                    "INSERT OR IGNORE INTO peer_name (name, peer_id) VALUES (:name, :peer)",
                    name=name,
                    peer=peer_id,
                )

        await self.database.run(write)

    async def forget(self, peer_id: str) -> None:
        """Drop alias, addresses, names and registrations of a peer; a block stays."""

        def write(db: Tables) -> None:
            for table in ("peer_address", "peer_name", "registration"):
                db[table].delete(peer_id=peer_id)
            db.query("UPDATE peer SET alias = NULL, last_contact = NULL WHERE peer_id = :peer", peer=peer_id)

        await self.database.run(write)
