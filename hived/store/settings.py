"""Settings that hived keeps by itself, and the node's identity key."""

from __future__ import annotations

from dataclasses import dataclass

from dataset import Database as Tables

from .database import Database
from .seal import StateKey

_IDENTITY = "identity/1"
RESTORED = "restored"


@dataclass(frozen=True)
class Settings:
    """Key and value pairs (both text): the node's name, chosen ports and the like."""

    database: Database

    async def get(self, key: str) -> str | None:
        def read(db: Tables) -> str | None:
            row = db["setting"].find_one(key=key)
            return str(row["value"]) if row else None

        return await self.database.run(read)

    async def set(self, key: str, value: str) -> None:
        await self.database.execute(
            "INSERT INTO setting (key, value) VALUES (:key, :value)"
            " ON CONFLICT (key) DO UPDATE SET value = :value",
            key=key,
            value=value,
        )

    async def restored(self) -> float | None:
        """When this state came out of a backup, epoch seconds; None once that is of no more interest."""
        value = await self.get(RESTORED)
        return float(value) if value is not None else None

    async def clear_restored(self) -> None:
        await self.database.execute("DELETE FROM setting WHERE key = :key", key=RESTORED)


@dataclass(frozen=True)
class IdentityKeys:
    """The node's Ed25519 seed (32 bytes), sealed."""

    database: Database
    state_key: StateKey

    async def load(self) -> bytes | None:
        """The seed, or None when this node has none yet."""

        def read(db: Tables) -> bytes | None:
            row = db["identity"].find_one(id=1)
            return bytes(row["sealed_key"]) if row else None

        sealed = await self.database.run(read)
        return self.state_key.open(sealed, _IDENTITY) if sealed is not None else None

    async def save(self, seed: bytes, peer_id: str) -> None:
        """Keep the seed of a new identity. Fails when there is one already."""
        sealed = self.state_key.seal(seed, _IDENTITY)

        def write(db: Tables) -> None:
            db["identity"].insert({"id": 1, "peer_id": peer_id, "sealed_key": sealed}, ensure=False)

        await self.database.run(write)
