"""The networks this node is in, with their keys K (sealed), and the user's registrations."""

from __future__ import annotations

import sqlite3
import time
from dataclasses import dataclass

from dataset import Database as Tables

from ..errors import conflict
from .database import Database
from .seal import StateKey


@dataclass(frozen=True)
class NetworkKey:
    """A network's name, its key K (32 bytes) and when this node learned it (epoch seconds)."""

    name: str
    key: bytes
    created: float


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
        def read(db: Tables) -> list[tuple[str, bytes, float]]:
            rows = db["network"].find(order_by="name")
            return [(row["name"], bytes(row["sealed_key"]), float(row["created"])) for row in rows]

        rows = await self.database.run(read)
        return [NetworkKey(name, self.state_key.open(key, f"network/{name}"), at) for name, key, at in rows]

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
