"""Node records as received: signed envelopes by network and author. A hot path: raw SQL."""

from __future__ import annotations

import time
from dataclasses import dataclass

from dataset import Database as Tables

from .database import Database


@dataclass(frozen=True)
class StoredRecord:
    """One envelope. ``hidden``: the user forgot it, until a newer sequence comes."""

    network: str
    peer_id: str
    seq: int
    envelope: bytes
    received: float
    hidden: bool


@dataclass(frozen=True)
class Records:
    """Rows of ``record``."""

    database: Database

    async def all(self) -> list[StoredRecord]:
        def read(db: Tables) -> list[StoredRecord]:
            return [
                StoredRecord(
                    r["network"],
                    r["peer_id"],
                    int(r["seq"]),
                    bytes(r["envelope"]),
                    float(r["received"]),
                    bool(r["hidden"]),
                )
                for r in db.query("SELECT * FROM record")
            ]

        return await self.database.run(read)

    async def put(self, records: list[StoredRecord]) -> None:
        """Keep each record unless one of the same author with a sequence as high is there."""

        def write(db: Tables) -> None:
            for record in records:
                db.query(
                    "INSERT INTO record (network, peer_id, seq, envelope, received, hidden)"
                    " VALUES (:network, :peer, :seq, :envelope, :now, 0)"
                    " ON CONFLICT (network, peer_id) DO UPDATE"
                    " SET seq = excluded.seq, envelope = excluded.envelope,"
                    " received = excluded.received, hidden = 0"
                    " WHERE excluded.seq > record.seq",
                    network=record.network,
                    peer=record.peer_id,
                    seq=record.seq,
                    envelope=record.envelope,
                    now=time.time(),
                )

        await self.database.run(write)

    async def hide(self, peer_id: str) -> None:
        """Hide a peer's records until it publishes newer ones."""
        await self.database.execute("UPDATE record SET hidden = 1 WHERE peer_id = :peer", peer=peer_id)
