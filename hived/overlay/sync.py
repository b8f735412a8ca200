"""Node records, in memory and in the store: which are believed, kept, told on, and dropped again.

What a member may cost is bounded: records that are no news, new authors an hour, and how
often one author may change. Talking with members is gossip.py's.
"""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable, Iterable, Set
from dataclasses import dataclass, field

import trio

from ..errors import HiveError
from ..logs import Log, who
from ..store.records import Records, StoredRecord
from .author import Author
from .clock import Clock
from .connection import Connection
from .exchange import Copy
from .identity import Identity
from .ledger import EXPIRY_SECONDS, MAX_RECORDS, Ledger
from .membership import Membership
from .networkkeys import network_id
from .quota import Budgets
from .ranges import Comparison, key_of
from .records import Claim, NodeRecord, SignedRecord, read, verify
from .wire import ProtocolError

log = Log("hived.overlay.sync")

TICK_SECONDS = 60.0
SAVE_SECONDS = 600.0
_BAD_RECORD = 200.0


@dataclass
class _Sifted:
    """What came from a member: records to be kept, with their ages, and authors it knows the newest of."""

    taken: list[tuple[SignedRecord, float]] = field(default_factory=list)
    told: dict[str, int] = field(default_factory=dict)


class Sync:
    """All known records by network and author.

    ``on_change`` is called for each newer record, ``on_fresh`` for all that came together, with
    the connection they came on; ``was_met`` says whether this node ever was connected to a
    peer. ``clock`` and ``rng`` are handed in so that a simulation can run days in seconds.
    """

    def __init__(
        self,
        identity: Identity,
        membership: Membership,
        store: Records,
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self.ledgers: dict[str, Ledger] = {}
        self.on_change: list[Callable[[str, NodeRecord], None]] = []
        self.was_met: Callable[[str], bool] = lambda peer_id: False
        self.on_fresh: list[Callable[[str, dict[str, Copy], Connection | None], None]] = []
        self.clock = clock or Clock()
        self._identity = identity
        self._membership = membership
        self._store = store
        self._rng = rng or random.Random()
        self.author = Author(identity, self.clock, self._rng)
        self.budgets = Budgets()
        self._nursery: trio.Nursery | None = None
        self._publishing = trio.Lock()
        # Sequences that were believed and are on their way into the store, by network and author.
        self._coming: dict[tuple[str, str], int] = {}
        # Sequences of other lives that are to be outdone, by network.
        self._outdoing: dict[str, int] = {}
        # Networks in which this node's record could not be kept, and so was not told.
        self._unkept: set[str] = set()
        self._ticked = self.clock.monotonic()

    # Life

    async def load(self) -> None:
        """Read the store. Records that no longer verify are left out."""
        for network, touch in (await self._store.touches()).items():
            self.ledgers[network] = Ledger(touch=touch)
        for row in await self._store.all():
            try:
                signed = verify(row.envelope, network_id(row.network))
            except ProtocolError as error:
                log.warning("a stored record was dropped", network=row.network, peer=row.peer_id, why=error)
                continue
            ledger = self.ledger(row.network)
            ledger.put(signed, row.came)
            if row.hidden:
                ledger.hidden.add(row.peer_id)
        for network, peer_id, seq in await self._store.expired():
            self.ledger(network).bury(peer_id, seq)

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Count the time, re-sign and expire until cancelled."""
        async with trio.open_nursery() as self._nursery:
            task_status.started()
            await self._keep_house()

    async def _keep_house(self) -> None:
        saved = self.clock.monotonic()
        while True:
            await trio.sleep(TICK_SECONDS)
            try:
                self.tick()
                await self._resign()
                if self.clock.monotonic() - saved >= SAVE_SECONDS:
                    saved = self.clock.monotonic()
                    await self.expire()
                    await self.save()
            except HiveError as error:
                log.error("keeping the records failed; it is tried again", why=error.line())

    def tick(self) -> None:
        """Count the time in touch, and see who lives."""
        now = self.clock.monotonic()
        # A process that stood still was in touch with nobody.
        passed, self._ticked = min(now - self._ticked, 2 * TICK_SECONDS), now
        for network in list(self._membership.keys):
            members = self._membership.members(network)
            ledger = self.ledger(network)
            if members:
                ledger.touch += passed
            for member in members:
                ledger.seen(member.peer_id)

    async def expire(self) -> None:
        """Drop the records of those who gave no sign of life for 30 days in touch with the network."""
        for network, ledger in list(self.ledgers.items()):
            me = self._identity.peer_id
            gone = {a: ledger.sequence(a) for a in ledger.outdated() if a != me}
            if not gone:
                continue
            await self._store.expire(network, gone)
            for author, sequence in gone.items():
                # Something newer may have come meanwhile.
                if author in ledger.records and ledger.sequence(author) == sequence:
                    ledger.expire(author)
            log.info("nodes unseen for 30 days were dropped", network=network, nodes=len(gone))

    async def save(self) -> None:
        """Keep the time in touch, and since when each author is unseen."""
        members = {n: [c.peer_id for c in self._membership.members(n)] for n in self.ledgers}
        await self._store.save_touches({n: ledger.touch for n, ledger in self.ledgers.items()}, members)

    # Reading

    def compare(self, network: str, peer: str) -> Comparison:
        """A comparison with a member that asks for no more than would be taken from it."""
        ledger = self.ledger(network)
        room = min(
            MAX_RECORDS - len(ledger),
            self.budgets.introductions.left(network, peer, self.clock.monotonic(), ledger.touch),
        )

        def declines(key: str, sequence: int) -> bool:
            nonlocal room
            if ledger.is_buried(key, sequence):
                return True
            if ledger.ranges.author(key) is not None or key == key_of(peer):
                return False
            room -= 1
            return room < 0

        return Comparison(ledger.ranges, declines)

    def ledger(self, network: str) -> Ledger:
        return self.ledgers.setdefault(network, Ledger())

    def visible(self, network: str) -> Iterable[NodeRecord]:
        """The records of a network that the user has not forgotten, this node's included."""
        ledger = self.ledgers.get(network)
        return ledger.visible() if ledger else ()

    def last_name(self, peer_id: str) -> str:
        """What a peer called itself, also where the user has forgotten it; "" when it is not known."""
        held = (ledger.records.get(peer_id) for ledger in self.ledgers.values())
        return next((signed.record.name for signed in held if signed), "")

    def authors(self, network: str) -> set[str]:
        """Who has a visible record in a network."""
        ledger = self.ledgers.get(network)
        return ledger.records.keys() - ledger.hidden if ledger else set()

    def get(self, network: str, peer_id: str) -> NodeRecord | None:
        ledger = self.ledgers.get(network)
        return ledger.get(peer_id) if ledger else None

    # This node's own record

    async def publish(self, name: str, addresses: list[str], networks: Iterable[str]) -> None:
        """Sign this node's record anew in each network where it says something else than before."""
        async with self._publishing:
            self.author.name, self.author.addresses = name, addresses
            for network in networks:
                await self._publish(network)

    async def _publish(self, network: str, *, after: int = 0, anew: bool = False) -> None:
        own = self.ledger(network).records.get(self._identity.peer_id)
        signed = self.author.sign(network, own, after=after, anew=anew)
        if signed is not None:
            self._unkept.add(network)
            await self.keep(network, [(signed, 0.0)], None)
            self._unkept.discard(network)

    async def _resign(self) -> None:
        async with self._publishing:
            for network in list(self._membership.keys):
                own = self.ledger(network).records.get(self._identity.peer_id)
                due = own is not None and self.author.is_due(network, own.record)
                if due or network in self._unkept:
                    await self._publish(network, anew=True)

    def drop_network(self, network: str) -> None:
        self.ledgers.pop(network, None)

    async def hide(self, peer_id: str) -> None:
        """Hide a peer until it publishes something newer."""
        await self._store.hide(peer_id)
        for ledger in self.ledgers.values():
            if peer_id in ledger.records:
                ledger.hidden.add(peer_id)

    def is_hidden(self, network: str, peer_id: str) -> bool:
        """Whether the user forgot a peer that has a record here."""
        return peer_id in self.ledger(network).hidden

    async def reveal(self, network: str, peer_id: str) -> None:
        """There is news of a peer that the user forgot."""
        await self._store.reveal(network, peer_id)
        self.ledger(network).hidden.discard(peer_id)

    # Taking records in

    async def keep(
        self, network: str, taken: list[tuple[SignedRecord, float]], source: Connection | None
    ) -> None:
        """Commit what is newer than what is known, then tell callbacks and members but ``source``."""
        if network not in self._membership.keys:
            return
        ledger = self.ledger(network)
        newest: dict[str, tuple[SignedRecord, float]] = {}
        for signed, age in taken:
            author = signed.record.peer_id
            known = newest[author][0].record.seq if author in newest else ledger.sequence(author)
            if signed.record.seq > known:
                newest[author] = (signed, ledger.touch - age)
        if not newest:
            return
        await self._make_room(network, newest.keys() - ledger.records.keys())
        rows = [
            StoredRecord(network, a, s.record.seq, s.envelope, came, False) for a, (s, came) in newest.items()
        ]
        try:
            await self._store.put(rows)
        except sqlite3.IntegrityError:
            log.debug("records came for a network that is being left", network=network)
            return
        fresh: dict[str, Copy] = {}
        for author, (signed, came) in newest.items():
            if signed.record.seq > ledger.sequence(author):
                ledger.put(signed, came)
                fresh[author] = Copy(signed.envelope, ledger.age(author))
                for callback in self.on_change:
                    callback(network, signed.record)
        if fresh:
            for hook in self.on_fresh:
                hook(network, fresh, source)

    async def _make_room(self, network: str, new: Set[str]) -> None:
        """Drop authors for new ones beyond 10,000: some of those that this node never was connected to."""
        ledger = self.ledger(network)
        over = len(ledger) + len(new) - MAX_RECORDS
        if over <= 0:
            return
        keep = {self._identity.peer_id, *(c.peer_id for c in self._membership.members(network))}
        strangers = [a for a in ledger.records if a not in keep and not self.was_met(a)]
        gone = {a: ledger.sequence(a) for a in self._rng.sample(strangers, min(over, len(strangers)))}
        await self._store.expire(network, gone)
        for author in gone:
            if author in ledger.records:
                ledger.expire(author)

    async def take(self, network: str, copies: list[Copy], source: Connection) -> dict[str, int]:
        """Believe what proves itself and is news; of whom the source knows the newest, with its sequence.

        Raises ProtocolError, and believes nothing, when one record does not verify.
        """
        sifted = _Sifted()
        coming: list[tuple[SignedRecord, float]] = []
        try:
            await self._sift(network, copies, source, sifted)
            # Not before all is proved: a bad batch must not hold honest copies back.
            for signed, age in sifted.taken:
                author, seq = signed.record.peer_id, signed.record.seq
                # Another neighbour may have told it while this batch was proved.
                if seq > self._known(network, author):
                    self._coming[network, author] = seq
                    if author in self.ledger(network).records:
                        self.budgets.updates.charge((network, author), self.clock.monotonic(), 1)
                    coming.append((signed, age))
            await self.keep(network, coming, source)
        except ProtocolError as error:
            self.budgets.useless.charge(source.peer_id, self.clock.monotonic(), _BAD_RECORD)
            if self.budgets.lines.take((source.peer_id, "bad"), self.clock.monotonic()):
                member = who(source.peer_id, self.last_name(source.peer_id))
                log.warning("a member sent a bad record", network=network, **member, why=error)
            raise
        finally:
            for signed, _ in coming:
                self._coming.pop((network, signed.record.peer_id), None)
        return sifted.told

    async def _sift(self, network: str, copies: list[Copy], source: Connection, sifted: _Sifted) -> None:
        """Prove what is news, and charge the source for the rest. Raises ProtocolError."""
        peer, useless, refused = source.peer_id, 0, 0
        try:
            for copy in copies:
                claim = read(copy.envelope, network_id(network))
                author, seq = claim.record.peer_id, claim.record.seq
                if author == self._identity.peer_id:
                    useless += not self._met_own(network, claim)
                    continue
                known, again = self._known(network, author), author in sifted.told
                if seq >= known:
                    sifted.told[author] = seq
                if seq <= known or copy.age > EXPIRY_SECONDS:
                    useless += 1
                elif not self._may_take(network, author, source, len(sifted.taken)):
                    refused += 1
                else:
                    sifted.taken.append((claim.prove(), copy.age))
                    if again:
                        # The last of an author is charged when it is known to be news; one batch has one.
                        self.budgets.updates.charge((network, author), self.clock.monotonic(), 1)
                    # A proof costs about 0.1 ms: a batch of them would hold up everybody's traffic.
                    await trio.lowlevel.checkpoint()
        finally:
            self.budgets.useless.charge(peer, self.clock.monotonic(), useless + refused)
        if refused and self.budgets.lines.take((peer, network, "refused"), self.clock.monotonic(), 10):
            log.warning(
                "a member made too many nodes known, or one changed too often; the rest is left for later",
                network=network,
                **who(peer, self.last_name(peer)),
                left=refused,
            )

    def _known(self, network: str, author: str) -> int:
        """The highest sequence that is known of an author, or is on its way into the store."""
        return max(self.ledger(network).sequence(author), self._coming.get((network, author), 0))

    def _may_take(self, network: str, author: str, source: Connection, more: int) -> bool:
        """Whether an author's newer record fits: 10,000 in a network, new ones and changes not too fast."""
        ledger, now = self.ledger(network), self.clock.monotonic()
        if author in ledger.records:
            return self.budgets.updates.left((network, author), now) >= 1
        if author == source.peer_id:
            return True  # It proved itself here: there is always a place for it.
        if len(ledger) + more >= MAX_RECORDS:
            return False
        return self.budgets.introductions.allow(network, source.peer_id, author, now, ledger.touch)

    def _met_own(self, network: str, claim: Claim) -> bool:
        """A record of this very node: from before a restored backup, or of a copy. Whether it is news."""
        me, record = self._identity.peer_id, claim.record
        own, pending = self.ledger(network).sequence(me), self._outdoing.get(network, 0)
        # Two copies of one state may sign the same sequence.
        is_other = record.nonce != self.author.lives.nonce
        if record.seq < own or record.seq <= pending or (record.seq == own and not is_other):
            return False
        claim.prove()
        # One for each network; meanwhile only the highest sequence counts.
        self._outdoing[network] = record.seq
        wait = self.author.met(network, record, own)
        if not pending and self._nursery is not None:
            # Not in the exchange that brought it: that may be cancelled.
            self._nursery.start_soon(self._outdo, network, wait)
        return True

    async def _outdo(self, network: str, wait: float) -> None:
        await trio.sleep(wait)
        try:
            async with self._publishing:
                if network in self._membership.keys:
                    await self._publish(network, after=self._outdoing[network])
        except HiveError as error:
            log.error("keeping this node's record failed", network=network, why=error.line())
        finally:
            self._outdoing.pop(network, None)
