"""What this node knows of its peers, in one place: the store's small tables in memory, beside the records.

From it follow the dialer's wishes: whom to keep a connection to, where to dial it, what to join there.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass, field, replace

from ..store.networks import Registration
from ..store.peers import Peer
from .discovery import Found
from .peers import MAX_REFUSED
from .sync import Sync
from .topology import neighbours

# Of the nodes that show themselves on the LAN, so many are kept connected.
MAX_ON_LAN = 64


@dataclass
class Book:
    """Whoever writes the store's tables writes here too. ``created``: network to epoch seconds.

    ``addresses`` are those that the user gave, by peer; ``owners`` says who was first seen with a name.
    """

    created: dict[str, float] = field(default_factory=dict)
    peers: dict[str, Peer] = field(default_factory=dict)
    addresses: dict[str, list[str]] = field(default_factory=dict)
    registrations: dict[tuple[str, str], Registration] = field(default_factory=dict)
    owners: dict[str, str] = field(default_factory=dict)
    _names: dict[str, str] = field(default_factory=dict)

    def claim(self, name: str, peer_id: str) -> bool:
        """A peer is seen with a name: it is its own when nobody had it before. Whether that is news."""
        if not self._names and self.owners:
            self._names = {owner: owned for owned, owner in self.owners.items()}
        if name in self.owners:
            return False
        held = self._names.get(peer_id)
        if held is not None:
            self.owners.pop(held, None)
        self.owners[name] = peer_id
        self._names[peer_id] = name
        return True

    def peer(self, peer_id: str) -> Peer:
        """The stored row of a peer, or an empty one."""
        return self.peers.get(peer_id) or Peer(peer_id, None, False, None)

    def is_blocked(self, peer_id: str) -> bool:
        return self.peer(peer_id).blocked

    def blocked(self) -> list[str]:
        """Who is turned away."""
        return [peer.peer_id for peer in self.peers.values() if peer.blocked]

    def register(self, peer_id: str, network: str, refused: int = 0) -> None:
        self.registrations[peer_id, network] = Registration(peer_id, network, refused)

    def forget(self, peer_id: str) -> None:
        """Drop all but a block."""
        self.registrations = {key: r for key, r in self.registrations.items() if r.peer_id != peer_id}
        self.addresses.pop(peer_id, None)
        self.owners = {name: owner for name, owner in self.owners.items() if owner != peer_id}
        self._names.pop(peer_id, None)
        if peer_id in self.peers:
            self.peers[peer_id] = replace(self.peers[peer_id], alias=None, last_contact=None)

    def leave(self, network: str) -> None:
        """Drop what is of one network."""
        self.created.pop(network, None)
        self.registrations = {key: r for key, r in self.registrations.items() if r.network != network}


@dataclass(frozen=True)
class DialPolicy:
    """The answers to what the dialer asks (peers.Wishes), each time anew.

    ``proxied`` are the peers behind proxies, ``on_lan`` those found on this node's LANs.
    """

    book: Book
    sync: Sync
    networks: Callable[[], Iterable[str]]
    proxied: Callable[[], Iterable[str]]
    own_peer_id: str
    on_lan: Mapping[str, Found] = field(default_factory=dict)
    rng: random.Random = field(default_factory=random.Random)

    def addresses(self, peer_id: str) -> list[str]:
        """Where to dial a peer: on this LAN, then what its records say, then what the user said."""
        records = (self.sync.get(network, peer_id) for network in self.networks())
        told = [address for record in records if record for address in record.addresses]
        near = self.on_lan[peer_id].addresses if peer_id in self.on_lan else []
        return [*near, *told, *self.book.addresses.get(peer_id, [])]

    def joins(self, peer_id: str) -> list[str]:
        """The networks to try on a peer: those that records, the LAN or the user name."""
        return [network for network in self.networks() if self._may_join(peer_id, network)]

    def _may_join(self, peer_id: str, network: str) -> bool:
        if self.sync.get(network, peer_id) is not None:
            return True
        if peer_id in self.on_lan and network in self.on_lan[peer_id].networks:
            return True
        registration = self.book.registrations.get((peer_id, network))
        return registration is not None and registration.refused < MAX_REFUSED

    def wanted(self, linked: Set[str]) -> dict[str, bool]:
        """Whom to keep a connection to; True where it is important: registered, or behind a proxy."""
        members: set[str] = set().union(*(self.sync.authors(network) for network in self.networks()))
        wanted = dict.fromkeys(neighbours(members, linked, self.rng), False)
        wanted |= {peer_id: True for peer_id, _ in self.book.registrations}
        wanted |= dict.fromkeys(self.proxied(), True)
        # A stranger may invent as many as it likes: those that are members are wanted anyway.
        wanted |= {peer_id: False for peer_id in list(self.on_lan)[:MAX_ON_LAN] if peer_id not in wanted}
        return {
            peer_id: important
            for peer_id, important in wanted.items()
            if peer_id != self.own_peer_id and not self.book.is_blocked(peer_id)
        }
