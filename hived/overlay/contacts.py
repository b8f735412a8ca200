"""What is kept of contacts: when each node was last heard, whence members come, who had a name first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import trio

from ..errors import HiveError
from ..logs import Log
from ..store.peers import Peers as PeerStore
from ..store.settings import Settings
from .addresses import source_of
from .book import Book
from .connection import Connection
from .host import Host
from .peers import Peers

log = Log("hived.overlay.contacts")

SAVE_SECONDS = 300.0
# New names come in bursts: one transaction for what has come together.
CLAIM_SECONDS = 0.1
MAX_KEPT_SOURCES = 1000
_SOURCES = "member_sources"


class Contacts:
    """``listed``: whether a peer is known besides; ``soon`` runs a write without making the caller wait."""

    def __init__(
        self,
        host: Host,
        peers: Peers,
        book: Book,
        settings: Settings,
        store: PeerStore,
        listed: Callable[[str], bool],
    ) -> None:
        self._host = host
        self._peers = peers
        self._book = book
        self._settings = settings
        self._store = store
        self._listed = listed
        self._claims: dict[str, str] = {}
        self._claimed = trio.Event()
        host.on_disconnected.append(self._disconnected)

    async def load(self) -> None:
        """Members may come back from where they were, in a crowd. Raises HiveError."""
        for source in (await self._settings.get(_SOURCES) or "").split():
            self._host.inbound.admission.vouch(source, trio.current_time())

    async def run(self) -> None:
        """Save now and then, and names soon, until cancelled; ``save`` comes last."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep_claims)
            while True:
                await trio.sleep(SAVE_SECONDS)
                await self._save_contacts()

    async def save(self) -> None:
        """Write what is not kept yet; what fails is said in the log."""
        await self._save_contacts()
        await self._write_claims()

    def claim(self, name: str, peer_id: str) -> None:
        """A peer is seen with a name."""
        if self._book.claim(name, peer_id):
            self._claims[peer_id] = name
            self._claimed.set()

    def was_met(self, peer_id: str) -> bool:
        return peer_id in self._peers.contacts or self._book.peer(peer_id).last_contact is not None

    def _disconnected(self, connection: Connection) -> None:
        if connection.memberships and not connection.initiator and connection.relay is None:
            self._host.inbound.admission.vouch(source_of(connection.address), trio.current_time())

    async def _keep_claims(self) -> None:
        while True:
            await self._claimed.wait()
            await trio.sleep(CLAIM_SECONDS)
            await self._write_claims()

    async def _write_claims(self) -> None:
        self._claimed = trio.Event()
        claims = dict(self._claims)
        self._claims.clear()
        try:
            await self._store.own_names(claims)
        except HiveError as error:
            log.error("the names seen last could not be kept", why=error.line())

    async def _save_contacts(self) -> None:
        contacts = dict(self._peers.contacts)
        for connection in self._host.all_connections():
            if connection.usable:
                before = contacts.get(connection.peer_id, 0.0)
                contacts[connection.peer_id] = max(before, connection.heard)
        # An identity costs a member nothing: only of those who are known besides.
        contacts = {p: when for p, when in contacts.items() if self._listed(p)}
        try:
            sources = self._host.inbound.admission.vouched()[-MAX_KEPT_SOURCES:]
            await self._settings.set(_SOURCES, " ".join(sources))
            await self._store.contacted(contacts)
        except HiveError as error:
            log.error("the last contacts could not be kept", why=error.line())
            return
        for peer_id, when in contacts.items():
            self._book.peers[peer_id] = replace(self._book.peer(peer_id), last_contact=when)
        self._peers.contacts.clear()
