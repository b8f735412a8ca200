"""Talking about records with members, ``/hive/sync``: pushes and rounds, opened and answered.

A change is pushed at once to every connected member; a round with one member repairs
what was missed: after each join, and every 30 s with a random one. What a member may cost
is bounded: exchanges at once and a second, and the time that each may take.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from typing import NoReturn

import trio

from ..errors import HiveError
from ..logs import Log, who
from ..transport.multistream import NotSpokenError
from ..transport.muxstream import MuxedStream
from . import exchange
from .connection import STREAM_ERRORS, Connection
from .exchange import EXCHANGE_SECONDS, MESSAGE_SECONDS, SYNC, SYNC_FIRST, Copy, Open
from .membership import Membership
from .networkkeys import network_id
from .pushes import Pushes
from .ranges import Comparison, key_of
from .sync import Sync
from .wire import ProtocolError

log = Log("hived.overlay.gossip")

ROUND_SECONDS = 30.0
# Of one peer; a push is short, and what is refused the next round repairs.
MAX_EXCHANGES = 16
TURN_SECONDS = 5.0
IDLE_ROUNDS = 3
# Before others' changes are pushed on: who hears of one from two sides need not tell both back.
SPREAD_SECONDS = 0.5


class Gossip:
    """Keeps ``sync`` in step with the members that are connected."""

    def __init__(self, sync: Sync, membership: Membership, rng: random.Random | None = None) -> None:
        self._sync = sync
        self._membership = membership
        self._rng = rng or random.Random()
        self._clock = sync.clock
        self._own_key = key_of(sync.author.peer_id)
        self._budgets = sync.budgets
        self._serving: Counter[str] = Counter()
        self._idle: Counter[str] = Counter()
        self._pushes: dict[Connection, Pushes] = {}
        self._turns: dict[str, trio.CapacityLimiter] = {}
        self._nursery: trio.Nursery | None = None
        membership.on_joined.append(self._joined)
        sync.on_fresh.append(self._tell)

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Push and repair until cancelled."""
        async with trio.open_nursery() as self._nursery:
            task_status.started()
            while True:
                await trio.sleep(ROUND_SECONDS * self._rng.uniform(0.75, 1.25))
                self._pushes = {c: pushes for c, pushes in self._pushes.items() if c.is_open}
                for network in list(self._membership.keys):
                    now, useless = self._clock.monotonic(), self._budgets.useless
                    members = [
                        c for c in self._membership.members(network) if useless.left(c.peer_id, now) > 0
                    ]
                    if members:
                        self._nursery.start_soon(self.round, self._rng.choice(members), network)

    def _tell(self, network: str, fresh: dict[str, Copy], source: Connection | None) -> None:
        """Push what is new to every member but ``source``, who told us."""
        if self._nursery is None:
            return
        if source is not None:
            fresh = self._worth_telling(source.peer_id, fresh)
        told = self._membership.members(network)
        if source is not None and source.peer_id in fresh:
            # Where two nodes run with one identity, each must learn of the other.
            told = [*told, *self._membership.doubles(source, network)]
        for connection in dict.fromkeys(told):
            if connection is source:
                continue
            pushes = self._pushes.get(connection)
            if pushes is None:
                pushes = self._pushes[connection] = self._pushes_to(connection, self._nursery)
            pushes.offer(network, fresh, 0.0 if source is None else self._rng.uniform(0, SPREAD_SECONDS))

    def _worth_telling(self, peer: str, fresh: dict[str, Copy]) -> dict[str, Copy]:
        """Of what a member told the youngest, within its budget; of a bulk the rest goes by rounds."""
        now, bucket = self._clock.monotonic(), self._budgets.forwards
        count = min(len(fresh), int(bucket.left(peer, now)))
        bucket.charge(peer, now, count)
        return dict(sorted(fresh.items(), key=lambda item: item[1].age)[:count])

    def _joined(self, connection: Connection, network: str) -> None:
        self._sync.ledger(network).seen(connection.peer_id)
        if self._nursery is not None and connection.initiator:
            self._nursery.start_soon(self.round, connection, network)

    def _pushes_to(self, connection: Connection, nursery: trio.Nursery) -> Pushes:
        async def send(network: str, copies: list[Copy]) -> bool:
            async def talk(stream: MuxedStream, protocol: str) -> None:
                await exchange.push(stream, copies)

            with trio.CancelScope(deadline=trio.current_time() + MESSAGE_SECONDS):
                return await self._exchange(connection, Open(network=network_id(network)), talk)
            return False

        def on_pause() -> None:
            if self._budgets.lines.take((connection.peer_id, "pause"), self._clock.monotonic(), 20):
                log.warning(
                    "a member does not take records; it is left alone for a minute",
                    **self._who(connection.peer_id),
                )

        return Pushes(send, nursery, on_pause)

    async def round(self, connection: Connection, network: str) -> None:
        """One round; where several would run at once, the later finds less to do, so it waits a little."""
        turn, token = self._turns.setdefault(network, trio.CapacityLimiter(1)), object()
        mine = False
        with trio.move_on_after(TURN_SECONDS):
            await turn.acquire_on_behalf_of(token)
            mine = True
        try:
            await self._talk_round(connection, network)
        finally:
            if mine:
                turn.release_on_behalf_of(token)

    async def _talk_round(self, connection: Connection, network: str) -> None:
        comparison = self._sync.compare(network, connection.peer_id)
        before = comparison.ranges.fingerprint()
        told: dict[str, int] = {}

        async def take(copies: list[Copy]) -> None:
            told.update(await self._take(network, copies, connection))

        async def talk(stream: MuxedStream, protocol: str) -> None:
            if protocol == SYNC:
                await exchange.open_round(stream, comparison, self._finder(network), take)
            else:
                await exchange.open_first(stream, self._have(network), self._finder(network), take)

        if await self._exchange(connection, Open(network=network_id(network), round=True), talk):
            self._judge(connection.peer_id, network, comparison, told, before)

    def _judge(
        self, peer: str, network: str, comparison: Comparison, told: dict[str, int], before: bytes
    ) -> None:
        """Whether a member's digest was honest, as far as a round shows; a line when it was not."""
        sent = {key_of(author): sequence for author, sequence in told.items()}
        # Of this node itself others may know more than it takes from them.
        promised = {k: s for k, s in comparison.promised.items() if k != self._own_key}
        missing = sum(
            max(sent.get(key, 0), comparison.ranges.sequence(key)) < sequence
            for key, sequence in promised.items()
        )
        if comparison.settled_all and before == comparison.ranges.fingerprint() and not missing:
            # It may have learned meanwhile what it lacked; hardly time after time.
            self._idle[peer] += 1
        else:
            del self._idle[peer]
        if missing > 0:
            self._budgets.useless.charge(peer, self._clock.monotonic(), missing)
            why = f"it promised {missing} records that it did not send"
        elif comparison.lied or self._idle[peer] >= IDLE_ROUNDS:
            why = "its digest differs where its list does not"
        else:
            return
        if self._budgets.lines.take((peer, "digest"), self._clock.monotonic(), 20):
            log.warning("a member's digest is wrong", network=network, **self._who(peer), why=why)

    async def _exchange(
        self, connection: Connection, opening: Open, talk: Callable[[MuxedStream, str], Awaitable[None]]
    ) -> bool:
        """Say something on a stream of its own, until the other side has dealt with it; whether it has."""
        try:
            with trio.fail_after(EXCHANGE_SECONDS):
                stream, protocol = await connection.open_any(SYNC, SYNC_FIRST)
                try:
                    await exchange.say(stream, opening)
                    await talk(stream, protocol)
                finally:
                    stream.reset()
        except NotSpokenError:
            if self._budgets.lines.take((connection.peer_id, "version"), self._clock.monotonic(), 20):
                log.warning(
                    "a member speaks no version of /hive/sync that is known here: one of the two is too old",
                    **self._who(connection.peer_id),
                )
        except trio.TooSlowError:
            if self._budgets.lines.take((connection.peer_id, "slow"), self._clock.monotonic(), 5):
                log.warning(
                    "a member does not answer in time", **self._who(connection.peer_id), round=opening.round
                )
        except (*STREAM_ERRORS, HiveError) as error:
            log.debug(
                "an exchange of records failed", peer=connection.peer_id, round=opening.round, why=error
            )
        else:
            return True
        return False

    # Exchanges that members open

    async def serve(self, stream: MuxedStream, connection: Connection) -> None:
        """The answering side of a push or a round."""
        await self._admit(stream, connection, SYNC)

    async def serve_first(self, stream: MuxedStream, connection: Connection) -> None:
        """The same in version 1.0.0."""
        await self._admit(stream, connection, SYNC_FIRST)

    async def _admit(self, stream: MuxedStream, connection: Connection, protocol: str) -> None:
        if self._serving[connection.peer_id] >= MAX_EXCHANGES:
            self._turn_away(connection.peer_id, "too many exchanges at once")
        self._serving[connection.peer_id] += 1
        try:
            with trio.fail_after(EXCHANGE_SECONDS):
                await self._serve(stream, connection, protocol)
        except trio.TooSlowError:
            if self._budgets.lines.take((connection.peer_id, "slow"), self._clock.monotonic(), 5):
                log.warning("a member is too slow in an exchange of records", **self._who(connection.peer_id))
            raise
        finally:
            self._serving[connection.peer_id] -= 1
            if not self._serving[connection.peer_id]:
                del self._serving[connection.peer_id]

    async def _serve(self, stream: MuxedStream, connection: Connection, protocol: str) -> None:
        opening = await exchange.receive_open(stream)
        network = self._membership.require(connection, opening.network, protocol)
        self._afford(connection.peer_id, opening)

        told: dict[str, int] = {}

        async def take(copies: list[Copy]) -> None:
            told.update(await self._take(network, copies, connection))

        if not opening.round:
            await exchange.receive_batches(stream, take)
        elif protocol == SYNC:
            comparison = self._sync.compare(network, connection.peer_id)
            before = comparison.ranges.fingerprint()
            await exchange.answer_round(stream, comparison, self._finder(network), take)
            self._judge(connection.peer_id, network, comparison, told, before)
        else:
            await exchange.answer_first(stream, self._have(network), self._finder(network), take)

    async def _take(self, network: str, copies: list[Copy], source: Connection) -> dict[str, int]:
        told = await self._sync.take(network, copies, source)
        if source in self._pushes:
            # What a member tells it need not be told back.
            self._pushes[source].known(network, told)
        return told

    def _afford(self, peer: str, opening: Open) -> None:
        """Raises ProtocolError when a member has had its share of exchanges, or of useless records."""
        now = self._clock.monotonic()
        bucket = self._budgets.rounds if opening.round else self._budgets.pushes
        why = ""
        if not bucket.take(peer, now):
            why = "too many exchanges"
        elif self._budgets.useless.left(peer, now) <= 0:
            why = "too many records that are no news"
        if why:
            self._turn_away(peer, why)

    def _turn_away(self, peer: str, why: str) -> NoReturn:
        if self._budgets.lines.take((peer, why), self._clock.monotonic(), 20):
            log.warning("a member is turned away for a while", **self._who(peer), why=why)
        raise ProtocolError(why)

    def _who(self, peer_id: str) -> dict[str, str]:
        return who(peer_id, self._sync.last_name(peer_id))

    def _have(self, network: str) -> dict[str, int]:
        return {author: s.record.seq for author, s in self._sync.ledger(network).records.items()}

    def _finder(self, network: str) -> exchange.Find:
        ledger = self._sync.ledger(network)

        def find(authors: Iterable[str]) -> list[Copy]:
            known = ((a, ledger.records[a]) for a in authors if a in ledger.records)
            return [Copy(signed.envelope, round(ledger.age(a), 1)) for a, signed in known]

        return find
