"""Node records as received: signed envelopes by network and author. A hot path: raw SQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dataset import Database as Tables

from .database import Database

_PUT = """
    INSERT INTO record (network, peer_id, seq, envelope, came, hidden) VALUES (?, ?, ?, ?, ?, 0)
    ON CONFLICT (network, peer_id) DO UPDATE
    SET seq = excluded.seq, envelope = excluded.envelope, came = excluded.came, hidden = 0
    WHERE excluded.seq > record.seq
"""
# Of those that were dropped 10,000 are remembered: sequences are times, so the latest.
_FORGET = """
    DELETE FROM expired WHERE network = ? AND peer_id IN (
        SELECT peer_id FROM expired WHERE network = ? ORDER BY seq
        LIMIT max(0, (SELECT count(*) FROM expired WHERE network = ?) - 10000)
    )
"""


@dataclass(frozen=True)
class StoredRecord:
    """One envelope. ``came``: when, on the network's touch clock, less its age at the sender (seconds).

    ``hidden``: the user forgot it, until a newer sequence comes.
    """

    network: str
    peer_id: str
    seq: int
    envelope: bytes
    came: float
    hidden: bool


@dataclass(frozen=True)
class Records:
    """Rows of ``record`` and ``expired``, and the touch clocks of the networks."""

    database: Database

    async def all(self) -> list[StoredRecord]:
        def read(db: Tables) -> list[StoredRecord]:
            return [
                StoredRecord(
                    r["network"],
                    r["peer_id"],
                    int(r["seq"]),
                    bytes(r["envelope"]),
                    float(r["came"]),
                    bool(r["hidden"]),
                )
                for r in db.query("SELECT * FROM record")
            ]

        return await self.database.run(read)

    async def put(self, records: list[StoredRecord]) -> None:
        """Keep each record unless one of the same author with a sequence as high is there."""

        def write(db: Tables) -> None:
            _many(db, _PUT, [(r.network, r.peer_id, r.seq, r.envelope, r.came) for r in records])
            gone = [(r.network, r.peer_id) for r in records]
            _many(db, "DELETE FROM expired WHERE network = ? AND peer_id = ?", gone)

        await self.database.run(write)

    async def reveal(self, network: str, peer_id: str) -> None:
        """A forgotten peer is there again."""
        await self.database.execute(
            "UPDATE record SET hidden = 0 WHERE network = :network AND peer_id = :peer",
            network=network,
            peer=peer_id,
        )

    async def hide(self, peer_id: str) -> None:
        """Hide a peer's records until it publishes newer ones."""
        await self.database.execute("UPDATE record SET hidden = 1 WHERE peer_id = :peer", peer=peer_id)

    async def expired(self) -> list[tuple[str, str, int]]:
        """Network, author and last sequence of each record that was dropped."""

        def read(db: Tables) -> list[tuple[str, str, int]]:
            return [(r["network"], r["peer_id"], int(r["seq"])) for r in db.query("SELECT * FROM expired")]

        return await self.database.run(read)

    async def expire(self, network: str, sequences: Mapping[str, int]) -> None:
        """Drop authors' records, and keep their sequences."""

        def write(db: Tables) -> None:
            _many(
                db,
                "INSERT OR REPLACE INTO expired (network, peer_id, seq)"
                " SELECT name, ?, ? FROM network WHERE name = ?",
                [(author, seq, network) for author, seq in sequences.items()],
            )
            gone = [(network, author, seq) for author, seq in sequences.items()]
            _many(db, "DELETE FROM record WHERE network = ? AND peer_id = ? AND seq <= ?", gone)
            _many(db, _FORGET, [(network, network, network)])

        await self.database.run(write)

    async def touches(self) -> dict[str, float]:
        """Seconds in touch with each network."""

        def read(db: Tables) -> dict[str, float]:
            return {r["name"]: float(r["touch"]) for r in db.query("SELECT name, touch FROM network")}

        return await self.database.run(read)

    async def save_touches(self, touches: Mapping[str, float], seen: Mapping[str, list[str]]) -> None:
        """Keep the seconds in touch, by network; the authors ``seen`` now are as good as new."""

        def write(db: Tables) -> None:
            _many(db, "UPDATE network SET touch = ? WHERE name = ?", [(t, n) for n, t in touches.items()])
            rows = [(touches[network], network, a) for network, authors in seen.items() for a in authors]
            _many(db, "UPDATE record SET came = ? WHERE network = ? AND peer_id = ?", rows)

        await self.database.run(write)


def _many(db: Tables, statement: str, rows: Sequence[tuple[object, ...]]) -> None:
    if rows:
        db.executable.exec_driver_sql(statement, list(rows))
