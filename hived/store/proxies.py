"""What proxies should run."""

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
class ProxyRow:
    """One wish. ``port`` is this node's, ``peer_port`` the other's; see schema.AddProxy."""

    id: int
    direction: str
    kind: str
    network: str
    peer_id: str
    port: int
    peer_port: int
    bind: str | None
    target: str | None
    enabled: bool


def _row(row: Mapping[str, Any]) -> ProxyRow:
    return ProxyRow(
        int(row["id"]),
        row["direction"],
        row["kind"],
        row["network"],
        row["peer_id"],
        int(row["port"]),
        int(row["peer_port"]),
        row["bind"],
        row["target"],
        bool(row["enabled"]),
    )


@dataclass(frozen=True)
class Proxies:
    """Rows of ``proxy``."""

    database: Database

    async def all(self) -> list[ProxyRow]:
        return await self.database.run(lambda db: [_row(r) for r in db["proxy"].find(order_by="id")])

    async def add(self, row: ProxyRow) -> ProxyRow:
        """Keep a new proxy and give it its ID (``row.id`` does not count). Raises conflict for a twin."""
        values: dict[str, Any] = {
            "direction": row.direction,
            "kind": row.kind,
            "network": row.network,
            "peer_id": row.peer_id,
            "port": row.port,
            "peer_port": row.peer_port,
            "bind": row.bind,
            "target": row.target,
            "enabled": int(row.enabled),
            "created": time.time(),
        }

        def write(db: Tables) -> ProxyRow:
            key = db["proxy"].insert(values, ensure=False)
            return _row({"id": key, **values})

        try:
            return await self.database.run(write)
        except sqlite3.IntegrityError:
            raise conflict(
                "adding the proxy failed",
                "there is one like it already",
                "See hivectl proxy; remove it first: hivectl proxy rm ID",
            ) from None

    async def remove(self, proxy_id: int) -> bool:
        return await self.database.run(lambda db: bool(db["proxy"].delete(id=proxy_id)))

    async def enable(self, proxy_id: int, enabled: bool) -> None:
        await self.database.execute(
            "UPDATE proxy SET enabled = :on WHERE id = :id", on=int(enabled), id=proxy_id
        )
