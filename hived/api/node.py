"""What the API's calls work on: the node's parts, put together by the daemon."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

import trio

from ..config import Config
from ..errors import HiveError, not_found, usage
from ..overlay.book import Book
from ..overlay.host import Host
from ..overlay.identity import Identity
from ..overlay.membership import Membership
from ..overlay.names import Names
from ..overlay.paths import Paths
from ..overlay.peers import Peers
from ..overlay.probation import Probation
from ..overlay.records import MAX_TIME
from ..overlay.rekey import Rekeys
from ..overlay.sync import Sync
from ..proxy.reconciler import Reconciler
from ..schema import UnitState
from ..store.admins import Admins
from ..store.database import Database
from ..store.networks import Networks
from ..store.peers import Peers as PeerStore
from ..store.seal import StateKey
from .auth import Auth


def rfc3339(when: float | None) -> str | None:
    """Epoch seconds as RFC 3339 in UTC; beyond what that can write, its first or last moment."""
    if when is None:
        return None
    when = min(max(when, 0.0), MAX_TIME - 1)
    return datetime.fromtimestamp(when, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass
class Node:
    """The running node. ``changed`` is set, and replaced, whenever something that people watch changes."""

    config: Config
    identity: Identity
    book: Book
    host: Host
    membership: Membership
    sync: Sync
    peers: Peers
    proxies: Reconciler
    auth: Auth
    admins: Admins
    networks: Networks
    peer_store: PeerStore
    database: Database
    state_key: StateKey
    rename: Callable[[str], Awaitable[None]]
    # Names the settings that need a restart. Raises HiveError where nothing of it was taken over.
    reload: Callable[[], Awaitable[list[str]]]
    addresses: Callable[[], list[str]]
    paths: Paths
    name: Callable[[], str]
    publish: Callable[[], Awaitable[None]]
    # What is wrong with the configuration.
    misconfigured: Callable[[], list[str]]
    rekeys: Rekeys
    # Held while networks, or what belongs to one, change in the store and in memory.
    changes: trio.Lock
    probation: Probation
    # What systemd says of the unit that this is; None where it is none.
    unit: Callable[[], Awaitable[UnitState | None]]
    is_service: Callable[[], bool]
    started: float = field(default_factory=time.monotonic)
    changed: trio.Event = field(default_factory=trio.Event)
    # Held while a backup is made or restored: each takes memory many times a database's size.
    archive: trio.Lock = field(default_factory=trio.Lock)
    # Set when hived is to stop and start anew, with a restored state.
    restart: trio.Event = field(default_factory=trio.Event)
    # From when that state is written: what changes now would be lost.
    is_restored: bool = False

    @property
    def uptime(self) -> float:
        """Seconds."""
        return time.monotonic() - self.started

    def notify(self) -> None:
        self.changed.set()
        self.changed = trio.Event()

    def names(self) -> Names:
        """Who is called what, from records, aliases and the order of claims."""
        claimed = {self.identity.peer_id: self.name()}
        for network in self.sync.ledgers:
            for record in self.sync.visible(network):
                claimed.setdefault(record.peer_id, record.name)
        for peer_id, _ in self.book.registrations:
            claimed.setdefault(peer_id, "")
        for peer_id in self.book.blocked():
            # Forgotten perhaps, but to be found, or nobody could unblock it.
            claimed.setdefault(peer_id, self.sync.last_name(peer_id))
        aliases = {peer.peer_id: peer.alias for peer in self.book.peers.values() if peer.alias}
        return Names(claimed, aliases, self.book.owners)

    def resolve(self, text: str) -> str:
        """NODE to a peer ID. Raises HiveError."""
        return self.names().resolve(text)

    def require_network(self, name: str) -> str:
        """``name`` when this node is in it. Raises HiveError (not_found)."""
        if name not in self.membership.keys:
            mine = ", ".join(sorted(self.membership.keys)) or "none yet"
            raise not_found(
                f"finding network {name} failed",
                f"this node is not in it (it is in: {mine})",
                "See hivectl networks",
            )
        return name

    def pick_network(self, name: str | None, peer_id: str | None = None) -> str:
        """The named network; else the only one shared with the peer; else the node's only one."""
        if name is not None:
            return self.require_network(name)
        mine = sorted(self.membership.keys)
        shared = [n for n in mine if peer_id and self.knows(peer_id, n)]
        candidates = shared or mine
        if len(candidates) == 1:
            return candidates[0]
        what = "choosing the network failed"
        if not mine:
            raise HiveError(
                usage("").kind, what, "this node is in none", "Make one: hivectl networks create NAME"
            )
        raise usage(what, f"it may be any of: {', '.join(candidates)}", "Add --network NAME")

    def knows(self, peer_id: str, network: str) -> bool:
        """Whether the user or a record says that the peer is in the network."""
        return (peer_id, network) in self.book.registrations or self.sync.get(network, peer_id) is not None
