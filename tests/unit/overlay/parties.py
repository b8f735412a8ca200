"""Several nodes' overlays in one trio.run, over real sockets on loopback."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from hived.overlay.clock import Clock
from hived.overlay.connection import Connection
from hived.overlay.exchange import SYNC, SYNC_FIRST
from hived.overlay.gossip import Gossip
from hived.overlay.host import Host
from hived.overlay.identity import Identity
from hived.overlay.membership import Membership
from hived.overlay.networkkeys import network_id
from hived.overlay.records import NodeRecord, SignedRecord, sign
from hived.overlay.sync import Sync
from hived.store.networks import Networks
from hived.store.records import Records
from tests.planes import plane
from tests.unit.store.stores import KEY, opened

SECONDS = 20.0
"""No test's wait is longer; what it bounds is far below."""
LOOPBACK = "/ip4/127.0.0.1/tcp/0"
NETWORK = "net"
K = b"k" * 32


@dataclass(eq=False)
class Party:
    """One node: a host that listens, its memberships, and its records when it has a store."""

    identity: Identity
    host: Host
    membership: Membership
    blocked: set[str] = field(default_factory=set)
    known: set[tuple[str, str]] = field(default_factory=set)
    sync: Sync | None = None
    gossip: Gossip | None = None
    networks: Networks | None = None

    @property
    def peer_id(self) -> str:
        return self.identity.peer_id

    @property
    def address(self) -> str:
        return self.host.listening[0]

    async def dial(self, other: Party) -> Connection:
        return await self.host.dial(other.address, other.peer_id)

    async def joined(self, other: Party, network: str = NETWORK) -> Connection:
        """A new connection to ``other`` on which both are members, and both know."""
        connection = await self.dial(other)
        await self.membership.join(connection, network)
        await until(lambda: other.host.find(self.peer_id, network) is not None)
        return connection

    def record(self, seq: int, network: str = NETWORK, **changes: Any) -> SignedRecord:
        """A record of this party's own."""
        values: dict[str, Any] = {"name": "x" + self.peer_id[-8:], "issued": time.time(), **changes}
        record = NodeRecord(network=network_id(network), seq=seq, **{"peer_id": self.peer_id, **values})
        return sign(record, self.identity.key_pair)

    @property
    def records(self) -> Sync:
        assert self.sync is not None
        return self.sync


@asynccontextmanager
async def party(
    letter: str, *, clock: Callable[[], float] = time.monotonic, network: str | None = NETWORK
) -> AsyncIterator[Party]:
    """A node without a store, in ``network`` with the key K."""
    identity = Identity.from_seed(letter.encode() * 32)
    blocked: set[str] = set()
    known: set[tuple[str, str]] = set()
    with trio.fail_after(SECONDS):
        async with plane() as running, trio.open_nursery() as nursery:
            host = Host(identity, blocked.__contains__, running)
            membership = Membership(host, lambda peer, name: (peer, name) in known, clock)
            if network is not None:
                membership.set_network(network, K)
            await nursery.start(host.run)
            host.listen([LOOPBACK])
            yield Party(identity, host, membership, blocked, known)
            host.stop_listening()
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def synced(
    letter: str, directory: Path, *, network: str = NETWORK, clock: Clock | None = None, place: str = ""
) -> AsyncIterator[Party]:
    """A node with a store and its records; the store in ``place``, where a copied identity has its own."""
    directory = directory / (place or letter)
    directory.mkdir(exist_ok=True)
    async with (
        opened(directory) as database,
        party(letter, network=network) as one,
        trio.open_nursery() as nursery,
    ):
        one.networks = Networks(database, KEY)
        if network not in [kept.name for kept in await one.networks.all()]:
            await one.networks.add(network, K)
        one.sync = Sync(one.identity, one.membership, Records(database), clock)
        one.gossip = Gossip(one.sync, one.membership)
        one.host.member_handlers |= {SYNC: one.gossip.serve, SYNC_FIRST: one.gossip.serve_first}
        await one.sync.load()
        await nursery.start(one.sync.run)
        await nursery.start(one.gossip.run)
        yield one
        nursery.cancel_scope.cancel()


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something inside this process is so: a turn of the event loop after the other."""
    with trio.fail_after(SECONDS):
        while not condition():  # noqa: ASYNC110 - no event tells
            await trio.sleep(0.005)


class Logged(logging.Handler):
    """What hived logged meanwhile."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def having(self, text: str) -> list[dict[str, Any]]:
        """The fields of the events whose text holds ``text``."""
        return [getattr(r, "fields", {}) for r in self.records if text in r.getMessage()]

    @property
    def defects(self) -> list[logging.LogRecord]:
        return [record for record in self.records if record.exc_info]
