"""Simulated nodes: real Sync and Gossip of hived over overlaynet, with virtual time and seeded chance."""

from __future__ import annotations

import copy
import functools
import gc
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVar, cast
from unittest import mock

import trio
import trio.testing

from bench.overlaynet import CONNECT_TRIPS, NETWORK, SPAKE_SECONDS, MemoryStore, SimHost, SimLink, connect
from hived.overlay import records
from hived.overlay.clock import Clock
from hived.overlay.exchange import SYNC, Copy
from hived.overlay.gossip import Gossip
from hived.overlay.identity import Identity
from hived.overlay.ledger import Ledger
from hived.overlay.lives import Lives
from hived.overlay.membership import Membership
from hived.overlay.records import NodeRecord
from hived.overlay.sync import Sync
from hived.overlay.topology import neighbours
from hived.store.records import Records

LATENCY = 0.04
COMMIT_SECONDS = 0.005
EPOCH = 1_800_000_000.0
# As the daemon waits, before it chooses neighbours among new members.
MEET_SECONDS = 0.1
# peers.MAX_RETRY_DISTANT: how long the dialer waits between two tries, half of it jitter.
RETRY_SECONDS = 60.0

T = TypeVar("T")


@functools.cache
def identity(number: int) -> Identity:
    return Identity.from_seed(number.to_bytes(32, "big"))


def addresses(number: int) -> list[str]:
    """As a machine at home announces: two local ones and a public one."""
    low, high = number % 250 + 1, number // 250
    return [
        f"/ip4/192.168.{high}.{low}/tcp/4001",
        f"/ip6/2001:db8::{number:x}/tcp/4001",
        f"/ip4/198.51.{high}.{low}/tcp/4001",
    ]


class SimNode:
    """One node. ``rng`` decides all its chances."""

    def __init__(
        self,
        number: int,
        rng: random.Random,
        nursery: trio.Nursery,
        latency: float,
        store: MemoryStore | None = None,
    ) -> None:
        self.number = number
        self.identity = identity(number)
        self.peer_id = self.identity.peer_id
        self.host = SimHost(self.peer_id, nursery, latency)
        self.store = store or MemoryStore(COMMIT_SECONDS)
        self.rng = rng
        self._nursery = nursery
        membership = cast(Membership, self.host)
        clock = Clock(trio.current_time, lambda: EPOCH + trio.current_time())
        self.sync = Sync(self.identity, membership, cast(Records, self.store), clock, rng)
        self.sync.author.lives = Lives(rng.randbytes(8))
        self.sync.author.name, self.sync.author.addresses = f"node{number}", addresses(number)
        self.gossip = Gossip(self.sync, membership, rng)
        self.host.handlers[SYNC] = cast(Any, self.gossip.serve)

    @property
    def ledger(self) -> Ledger:
        return self.sync.ledger(NETWORK)

    async def start(self) -> None:
        await self._nursery.start(self.sync.run)
        await self._nursery.start(self.gossip.run)

    async def rename(self, name: str) -> int:
        """Publish a change; its sequence."""
        await self.sync.publish(name, addresses(self.number), [NETWORK])
        return self.ledger.sequence(self.peer_id)

    def mute(self) -> None:
        """Lose every push of this node: rounds alone must do."""
        self.sync.on_fresh.remove(self.gossip._tell)


class Watch:
    """When each node came to know the newest of some authors, and over how many others it went."""

    def __init__(self, nodes: list[SimNode], targets: dict[str, int]) -> None:
        self.targets = targets
        self.began = trio.current_time()
        self.seconds: dict[str, float] = {}
        self.hops: dict[str, int] = {}
        self.all = trio.Event()
        self._missing: dict[str, set[str]] = {}
        for node in nodes:
            missing = {a for a, seq in targets.items() if node.ledger.sequence(a) < seq}
            if missing:
                self._missing[node.peer_id] = missing
        if not self._missing:
            self.all.set()

    @property
    def left(self) -> int:
        """Nodes that do not know all of it yet."""
        return len(self._missing)

    def changed(self, node: SimNode, record: NodeRecord) -> None:
        missing = self._missing.get(node.peer_id)
        if missing is None or record.seq < self.targets.get(record.peer_id, 2**60):
            return
        missing.discard(record.peer_id)
        if not missing:
            del self._missing[node.peer_id]
            self.seconds[node.peer_id] = trio.current_time() - self.began
            if not self._missing:
                self.all.set()

    def came(self, node: SimNode, fresh: dict[str, Copy], source: SimLink | None) -> None:
        if source is not None and self.targets.keys() & fresh.keys():
            self.hops.setdefault(node.peer_id, self.hops.get(source.peer_id, 0) + 1)


class World:
    """All nodes of a simulation, who know each other from the start and are linked as the dialer would."""

    def __init__(self, rng: random.Random, nursery: trio.Nursery, latency: float) -> None:
        self.nodes: list[SimNode] = []
        self.by_id: dict[str, SimNode] = {}
        self.nursery = nursery
        self.watches: list[Watch] = []
        self.rng = rng
        self._apart: set[str] = set()
        self._latency = latency

    def add(self) -> SimNode:
        """A node that knows nobody and is linked to nobody; not started."""
        rng = random.Random(self.rng.getrandbits(64))
        node = SimNode(len(self.nodes), rng, self.nursery, self._latency)

        def changed(network: str, record: NodeRecord) -> None:
            for watch in self.watches:
                watch.changed(node, record)

        def came(network: str, fresh: dict[str, Copy], source: object) -> None:
            for watch in self.watches:
                watch.came(node, fresh, cast(SimLink | None, source))

        node.sync.on_change.append(changed)
        node.sync.on_fresh.append(came)
        self.nodes.append(node)
        self.by_id[node.peer_id] = node
        return node

    def populate(self, count: int) -> None:
        """Add nodes that all know each other since two hours."""
        known = Ledger(touch=7200.0)
        for _ in range(count):
            node = self.add()
            signed = node.sync.author.sign(NETWORK, None)
            assert signed is not None
            known.put(signed, 0.0)
        known.ranges.fingerprint()
        for node in self.nodes:
            node.sync.ledgers[NETWORK] = copied(known)

    def link(self) -> None:
        """Connect each to the neighbours that it wants; both ends wanting it make one link."""
        everyone = list(self.by_id)
        for node in self.nodes:
            for peer_id in sorted(neighbours(everyone, set(), node.rng) - {node.peer_id}):
                connect(node.host, self.by_id[peer_id].host, quietly=True)

    async def newcomer(self, introducer: SimNode) -> SimNode:
        """A node that knows only ``introducer``; it dials others as it hears of them."""
        node = self.add()
        met = trio.Event()

        def fresh(network: str, copies: dict[str, Copy], source: object) -> None:
            met.set()

        async def dialer() -> None:
            nonlocal met
            while True:
                await met.wait()
                await trio.sleep(MEET_SECONDS)
                met = trio.Event()
                wanted = neighbours(list(node.ledger.records), node.host.links.keys(), node.rng)
                for peer_id in sorted(wanted - node.host.links.keys() - {node.peer_id}):
                    self.nursery.start_soon(self.dial, node, self.by_id[peer_id])

        node.sync.on_fresh.append(fresh)
        await node.rename(f"node{node.number}")
        await node.start()
        self.nursery.start_soon(dialer)
        self.nursery.start_soon(self.dial, node, introducer)
        return node

    async def dial(self, node: SimNode, other: SimNode) -> None:
        """Connect and join, unless the network is split between the two."""
        await trio.sleep(CONNECT_TRIPS * 2 * node.host.latency + 2 * SPAKE_SECONDS)
        if not self._parted(node.peer_id, other.peer_id):
            connect(node.host, other.host)

    def _parted(self, one: str, other: str) -> bool:
        return (one in self._apart) != (other in self._apart)

    def split(self, apart: set[str]) -> list[SimLink]:
        """Cut every link between some nodes and the rest, until they are mended; the dialers' ends."""
        self._apart = apart
        lost = [
            end
            for node in self.nodes
            for end in node.host.links.values()
            if end.initiator and self._parted(node.peer_id, end.peer_id)
        ]
        for end in lost:
            end.cut()
        return lost

    def mend(self, lost: list[SimLink], *, at_once: bool = False) -> None:
        """Let the dialers find each other again: each is somewhere in its wait between two tries."""
        self._apart = set()

        async def retry(end: SimLink) -> None:
            node = self.by_id[end.node.peer_id]
            if not at_once:
                await trio.sleep(RETRY_SECONDS * node.rng.uniform(0.5, 1.0) * node.rng.random())
            await self.dial(node, self.by_id[end.peer_id])

        for end in lost:
            self.nursery.start_soon(retry, end)

    @contextmanager
    def watching(self, nodes: list[SimNode], targets: dict[str, int]) -> Iterator[Watch]:
        watch = Watch(nodes, targets)
        self.watches.append(watch)
        try:
            yield watch
        finally:
            self.watches.remove(watch)

    def reset_traffic(self) -> None:
        for node in self.nodes:
            node.host.traffic.reset()


def copied(ledger: Ledger) -> Ledger:
    """A ledger of its own with the same content; the records themselves are shared."""
    ranges = copy.copy(ledger.ranges)
    for name, value in vars(ranges).items():
        setattr(ranges, name, copy.copy(value))
    return Ledger(ledger.touch, dict(ledger.records), dict(ledger.came), ranges=ranges)


@asynccontextmanager
async def world(count: int, seed: int, latency: float = LATENCY) -> AsyncIterator[World]:
    """``count`` nodes that know each other, linked and running."""
    async with trio.open_nursery() as nursery:
        made = World(random.Random(seed), nursery, latency)
        made.populate(count)
        made.link()
        # Millions of entries that stay: no garbage collection needs to walk over them again and again.
        gc.collect()
        gc.freeze()
        for node in made.nodes:
            await node.start()
        yield made
        defects = [error for node in made.nodes for error in node.host.defects]
        if defects:
            raise ExceptionGroup("serving streams failed", defects)
        nursery.cancel_scope.cancel()
    gc.unfreeze()


class CachedClaim(records.Claim):
    """A claim that was read before; it is proved once in the whole simulation."""

    @functools.cached_property
    def _proved(self) -> records.SignedRecord:
        return super().prove()

    def prove(self) -> records.SignedRecord:
        return self._proved


@contextmanager
def shared_proofs() -> Iterator[None]:
    """Parse and prove each record once for all nodes: thousands of them run on one CPU here."""

    @functools.lru_cache(maxsize=50_000)
    def read(envelope: bytes, network_id: bytes) -> CachedClaim:
        return CachedClaim(**vars(records.read(envelope, network_id)))

    with mock.patch("hived.overlay.sync.read", read):
        yield


def run(function: Callable[..., Awaitable[T]], *arguments: object) -> T:
    """Run in virtual time that jumps to the next event; tasks in an order that is always the same."""
    core = cast(Any, trio)._core._run
    with (
        mock.patch.object(core, "_ALLOW_DETERMINISTIC_SCHEDULING", True),
        mock.patch.object(core, "_r", random.Random(0)),
    ):
        before = gc.get_threshold()
        gc.set_threshold(50_000, 20, 100)
        clock = trio.testing.MockClock(autojump_threshold=0)
        try:
            return trio.run(function, *arguments, clock=clock)
        finally:
            gc.set_threshold(*before)
