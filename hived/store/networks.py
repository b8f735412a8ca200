"""The networks this node is in, with their keys K (sealed), and the user's registrations."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dataset import Database as Tables

from ..errors import conflict
from .database import Database
from .seal import StateKey


@dataclass(frozen=True)
class NetworkKey:
    """A network's name, its key K (32 bytes) and when this node learned it (epoch seconds).

    While it is rekeyed ``old_key`` counts too, until ``old_until`` (epoch seconds).
    """

    name: str
    key: bytes = field(repr=False)
    created: float
    old_key: bytes | None = field(default=None, repr=False)
    old_until: float | None = None

    @property
    def keys(self) -> tuple[bytes, ...]:
        """The keys that count, the newest last."""
        return (self.key,) if self.old_key is None else (self.old_key, self.key)


@dataclass(frozen=True)
class Registration:
    """The user's word that ``peer_id`` is in ``network``; ``refused`` failed joins since."""

    peer_id: str
    network: str
    refused: int


@dataclass(frozen=True)
class Networks:
    """Rows of ``network`` and ``registration``."""

    database: Database
    state_key: StateKey

    async def all(self) -> list[NetworkKey]:
        rows = await self.database.run(lambda db: list(db["network"].find(order_by="name")))
        return [self._opened(row) for row in rows]

    def _opened(self, row: Mapping[str, Any]) -> NetworkKey:
        name, sealed_old = row["name"], row["sealed_old_key"]
        return NetworkKey(
            name,
            self.state_key.open(bytes(row["sealed_key"]), f"network/{name}"),
            float(row["created"]),
            self.state_key.open(bytes(sealed_old), f"network-old/{name}") if sealed_old else None,
            row["old_until"],
        )

    async def add(self, name: str, key: bytes) -> NetworkKey:
        """Keep a new network. Raises conflict when one of that name is there."""
        sealed, now = self.state_key.seal(key, f"network/{name}"), time.time()

        def write(db: Tables) -> None:
            db["network"].insert({"name": name, "sealed_key": sealed, "created": now}, ensure=False)

        try:
            await self.database.run(write)
        except sqlite3.IntegrityError:
            raise conflict(
                f"adding network {name} failed",
                "this node is in a network of that name already",
                f"Leave it first: hivectl networks leave {name}",
            ) from None
        return NetworkKey(name, key, now)

    async def remove(self, name: str) -> bool:
        """Forget a network with its records, registrations and proxies; whether it was there."""
        return await self.database.run(lambda db: bool(db["network"].delete(name=name)))

    async def rekey(self, name: str, key: bytes, old_key: bytes | None, until: float | None) -> None:
        """Keep a network's new key, and the former one where it counts until ``until`` (epoch seconds)."""
        values = {
            "name": name,
            "sealed_key": self.state_key.seal(key, f"network/{name}"),
            "sealed_old_key": self.state_key.seal(old_key, f"network-old/{name}") if old_key else None,
            "old_until": until,
        }

        def write(db: Tables) -> None:
            db["moved"].delete(network=name)
            db["network"].update(values, ["name"], ensure=False)

        await self.database.run(write)

    async def prolong(self, name: str, until: float) -> None:
        """Keep another end of a grace time (epoch seconds)."""
        await self.database.execute(
            "UPDATE network SET old_until = :until WHERE name = :name AND old_until IS NOT NULL",
            name=name,
            until=until,
        )

    async def end_rekey(self, name: str) -> None:
        """Forget the former key."""

        def write(db: Tables) -> None:
            db["moved"].delete(network=name)
            db["network"].update(
                {"name": name, "sealed_old_key": None, "old_until": None}, ["name"], ensure=False
            )

        await self.database.run(write)

    async def moved(self) -> list[tuple[str, str]]:
        """Network and peer ID of each member that has shown the new key."""
        return await self.database.run(lambda db: [(r["network"], r["peer_id"]) for r in db["moved"].find()])

    async def add_moved(self, name: str, peer_id: str) -> None:
        """A member has shown the new key."""
        await self.database.execute(
            "INSERT OR IGNORE INTO moved (network, peer_id)"
            " SELECT name, :peer FROM network WHERE name = :name AND old_until IS NOT NULL",
            name=name,
            peer=peer_id,
        )

    async def remove_moved(self, name: str, peer_id: str) -> None:
        """A member has gone back to the former key, or over to another."""
        await self.database.execute(
            "DELETE FROM moved WHERE network = :name AND peer_id = :peer", name=name, peer=peer_id
        )

    async def registrations(self) -> list[Registration]:
        def read(db: Tables) -> list[Registration]:
            return [
                Registration(r["peer_id"], r["network"], int(r["refused"])) for r in db["registration"].find()
            ]

        return await self.database.run(read)

    async def register(self, peer_id: str, network: str, refused: int = 0) -> None:
        """Keep the user's word, with the count of failed joins since he gave it."""
        await self.database.execute(
            "INSERT INTO registration (peer_id, network, refused) VALUES (:peer, :network, :refused)"
            " ON CONFLICT (peer_id, network) DO UPDATE SET refused = :refused",
            peer=peer_id,
            network=network,
            refused=refused,
        )

    async def unregister(self, peer_id: str, network: str) -> None:
        await self.database.run(lambda db: db["registration"].delete(peer_id=peer_id, network=network))
