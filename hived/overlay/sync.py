"""Node records in memory and on the wire: ``/hive/sync/1.0.0``.

A change is pushed at once to every connected member; a round with one member repairs
what was missed: after each join, and every 30 s with a random one. A round tells each
other's sequence numbers and sends what is newer.
"""

from __future__ import annotations

import os
import random
import sqlite3
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable

import msgspec
import trio

from .. import __version__
from ..errors import HiveError
from ..logs import Log
from ..store.records import Records, StoredRecord
from ..transport.muxstream import MuxedStream
from .host import STREAM_ERRORS, Connection
from .identity import Identity
from .membership import Membership
from .networkkeys import network_id
from .quota import Introductions
from .records import NodeRecord, SignedRecord, sign, verify
from .wire import Message, ProtocolError, receive, send

log = Log("hived.overlay.sync")

SYNC = "/hive/sync/1.0.0"
ROUND_SECONDS = 30.0
EXCHANGE_SECONDS = 20.0
BATCH = 64
# Of one peer; a push is short, and what is refused the next round repairs.
MAX_EXCHANGES = 16
MAX_RECORDS = 10_000
_MAX_DIGEST = 1024 * 1024
_MAX_RECORDS_BYTES = 2 * 1024 * 1024


class Open(Message):
    """The opener's first message: which network, and whether it wants a round or just pushes."""

    network: bytes
    round: bool = False


class Digest(Message):
    """The highest sequence known of each author."""

    have: dict[str, int] = msgspec.field(default_factory=dict)


class Batch(Message):
    """Envelopes, and of whom the sender would like to have newer ones; ``more`` follow."""

    records: list[bytes] = msgspec.field(default_factory=list)
    want: list[str] = msgspec.field(default_factory=list)
    more: bool = False


class Sync:
    """All known records by network and author, kept in the store and in step with the members."""

    def __init__(self, identity: Identity, membership: Membership, store: Records) -> None:
        self.records: dict[str, dict[str, SignedRecord]] = {}
        self.hidden: set[tuple[str, str]] = set()
        self.on_change: list[Callable[[str, NodeRecord], None]] = []
        self._identity = identity
        self._membership = membership
        self._store = store
        self._introductions = Introductions()
        self._serving: Counter[str] = Counter()
        self._nonce = os.urandom(8)
        self._name = ""
        self._addresses: list[str] = []
        self._nursery: trio.Nursery | None = None
        self._publishing = trio.Lock()
        membership.on_joined.append(self._joined)

    async def load(self) -> None:
        """Read the store. Records that no longer verify are left out."""
        for row in await self._store.all():
            try:
                signed = verify(row.envelope, network_id(row.network))
            except ProtocolError as error:
                log.warning("a stored record was dropped", network=row.network, peer=row.peer_id, why=error)
                continue
            self.records.setdefault(row.network, {})[row.peer_id] = signed
            if row.hidden:
                self.hidden.add((row.network, row.peer_id))

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Push and repair until cancelled."""
        async with trio.open_nursery() as self._nursery:
            task_status.started()
            while True:
                await trio.sleep(ROUND_SECONDS * random.uniform(0.75, 1.25))
                for network in list(self._membership.keys):
                    members = self._membership.members(network)
                    if members:
                        self._nursery.start_soon(self._round, random.choice(members), network)

    def visible(self, network: str) -> Iterable[NodeRecord]:
        """The records of a network that the user has not forgotten, this node's included."""
        for peer_id, signed in list(self.records.get(network, {}).items()):
            if (network, peer_id) not in self.hidden:
                yield signed.record

    def get(self, network: str, peer_id: str) -> NodeRecord | None:
        signed = self.records.get(network, {}).get(peer_id)
        return signed.record if signed and (network, peer_id) not in self.hidden else None

    # This node's own record

    async def publish(self, name: str, addresses: list[str], networks: Iterable[str]) -> None:
        """Sign this node's record anew in each network where it says something else than before."""
        async with self._publishing:
            self._name, self._addresses = name, addresses
            for network in networks:
                await self._publish(network)

    async def _publish(self, network: str, after: int = 0) -> None:
        own = self.records.get(network, {}).get(self._identity.peer_id)
        draft = NodeRecord(
            network=network_id(network),
            peer_id=self._identity.peer_id,
            name=self._name,
            addresses=self._addresses,
            version=__version__,
            seq=0,
            nonce=self._nonce,
            issued=0.0,
        )
        if own and not after and draft == msgspec.structs.replace(own.record, seq=0, issued=0.0):
            return
        now = time.time()
        seq = max(own.record.seq + 1 if own else 1, after + 1, int(now * 1000))
        signed = sign(msgspec.structs.replace(draft, seq=seq, issued=now), self._identity.key_pair)
        await self._keep(network, [signed], None)

    def drop_network(self, network: str) -> None:
        self.records.pop(network, None)
        self.hidden = {item for item in self.hidden if item[0] != network}

    async def hide(self, peer_id: str) -> None:
        """Hide a peer until it publishes something newer."""
        await self._store.hide(peer_id)
        self.hidden |= {(network, peer_id) for network, known in self.records.items() if peer_id in known}

    # Taking records in

    async def _keep(self, network: str, signed: list[SignedRecord], source: Connection | None) -> None:
        """Commit what is newer than what is known, then tell callbacks and members but ``source``."""
        if network not in self._membership.keys:
            return
        known = self.records.setdefault(network, {})
        newer: dict[str, SignedRecord] = {}
        dropped = 0
        for item in signed:
            author = item.record.peer_id
            best = newer.get(author) or known.get(author)
            if best is not None and item.record.seq <= best.record.seq:
                continue
            if best is None and not self._has_room(network, author, len(known) + len(newer), source):
                dropped += 1
                continue
            newer[author] = item
        if dropped and source is not None and self._introductions.worth_a_line(network, source.peer_id):
            log.warning(
                "a member made too many nodes known at once",
                network=network,
                peer=source.peer_id,
                dropped=dropped,
            )
        if not newer:
            return
        rows = [StoredRecord(network, a, s.record.seq, s.envelope, 0.0, False) for a, s in newer.items()]
        try:
            await self._store.put(rows)
        except sqlite3.IntegrityError:
            log.debug("records came for a network that is being left", network=network)
            return
        fresh: list[bytes] = []
        for author, item in newer.items():
            best = known.get(author)
            if best is None or item.record.seq > best.record.seq:
                known[author] = item
                self.hidden.discard((network, author))
                fresh.append(item.envelope)
                for callback in self.on_change:
                    callback(network, item.record)
        if fresh and self._nursery is not None:
            for connection in self._membership.members(network):
                if connection is not source:
                    self._nursery.start_soon(self._push, connection, network, fresh)

    def _has_room(self, network: str, author: str, known: int, source: Connection | None) -> bool:
        """Whether a new author may be added: 10,000 in a network, and not too many from one member."""
        if known >= MAX_RECORDS:
            return False
        if source is None:
            return True
        return self._introductions.allow(network, source.peer_id, author, time.monotonic())

    async def _take(self, network: str, envelopes: list[bytes], source: Connection) -> None:
        signed: list[SignedRecord] = []
        for envelope in envelopes:
            try:
                item = verify(envelope, network_id(network))
            except ProtocolError as error:
                # Nothing of that member's batch is believed.
                log.warning("a member sent a bad record", network=network, peer=source.peer_id, why=error)
                raise
            if item.record.peer_id == self._identity.peer_id:
                await self._met_own(network, item, source)
            else:
                signed.append(item)
        await self._keep(network, signed, source)

    async def _met_own(self, network: str, item: SignedRecord, source: Connection) -> None:
        """Somebody has a newer record of this very node: from before a restored backup, or of a clone."""
        own = self.records.get(network, {}).get(self._identity.peer_id)
        if own is not None and item.record.seq > own.record.seq:
            log.info("publishing above an older life's record", network=network, seq=item.record.seq)
            async with self._publishing:
                await self._publish(network, after=item.record.seq)

    # The protocol

    def _joined(self, connection: Connection, network: str) -> None:
        if self._nursery is not None and connection.initiator:
            self._nursery.start_soon(self._round, connection, network)

    async def _push(self, connection: Connection, network: str, envelopes: list[bytes]) -> None:
        async def talk(stream: MuxedStream) -> None:
            await self._send_batches(stream, envelopes)

        await self._exchange(connection, Open(network=network_id(network)), talk)

    async def _round(self, connection: Connection, network: str) -> None:
        async def talk(stream: MuxedStream) -> None:
            await send(stream, self._digest(network))
            wanted = await self._receive_batches(stream, network, connection)
            await self._send_batches(stream, self._envelopes(network, wanted))

        await self._exchange(connection, Open(network=network_id(network), round=True), talk)

    async def _exchange(
        self, connection: Connection, opening: Open, talk: Callable[[MuxedStream], Awaitable[None]]
    ) -> None:
        """Say something on a stream of its own, until the other side has dealt with it; never raises."""
        try:
            with trio.fail_after(EXCHANGE_SECONDS):
                stream = await connection.open_stream(SYNC)
                try:
                    await send(stream, opening)
                    await talk(stream)
                    await stream.send_eof()
                    await stream.receive_some(1)
                finally:
                    stream.reset()
        except (*STREAM_ERRORS, HiveError) as error:
            log.debug(
                "an exchange of records failed", peer=connection.peer_id, round=opening.round, why=error
            )

    async def serve(self, stream: MuxedStream, connection: Connection) -> None:
        """The answering side of a push or a round."""
        if self._serving[connection.peer_id] >= MAX_EXCHANGES:
            raise ProtocolError("too many exchanges at once")
        self._serving[connection.peer_id] += 1
        try:
            await self._serve(stream, connection)
        finally:
            self._serving[connection.peer_id] -= 1
            if not self._serving[connection.peer_id]:
                del self._serving[connection.peer_id]

    async def _serve(self, stream: MuxedStream, connection: Connection) -> None:
        with trio.fail_after(EXCHANGE_SECONDS):
            opening = await receive(stream, Open, 1024)
            network = self._membership.require(connection, opening.network, SYNC)
            if opening.round:
                theirs = (await receive(stream, Digest, _MAX_DIGEST)).have
                ours = self._digest(network).have
                newer = [author for author, seq in ours.items() if seq > theirs.get(author, 0)]
                want = [author for author, seq in theirs.items() if seq > ours.get(author, 0)]
                await self._send_batches(stream, self._envelopes(network, newer), want)
            await self._receive_batches(stream, network, connection)

    def _digest(self, network: str) -> Digest:
        return Digest(have={author: s.record.seq for author, s in self.records.get(network, {}).items()})

    def _envelopes(self, network: str, authors: Iterable[str]) -> list[bytes]:
        known = self.records.get(network, {})
        return [known[author].envelope for author in authors if author in known]

    @staticmethod
    async def _send_batches(stream: MuxedStream, envelopes: list[bytes], want: Iterable[str] = ()) -> None:
        parts = [envelopes[i : i + BATCH] for i in range(0, len(envelopes), BATCH)] or [[]]
        for index, part in enumerate(parts):
            last = index == len(parts) - 1
            await send(stream, Batch(records=part, want=list(want) if last else [], more=not last))

    async def _receive_batches(self, stream: MuxedStream, network: str, source: Connection) -> list[str]:
        for _ in range(MAX_RECORDS // BATCH + 1):
            batch = await receive(stream, Batch, _MAX_RECORDS_BYTES)
            if len(batch.records) > BATCH:
                raise ProtocolError(f"a batch of {len(batch.records)} records")
            await self._take(network, batch.records, source)
            if not batch.more:
                return batch.want
        raise ProtocolError("too many batches")
