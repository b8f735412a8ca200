"""A network's password is changed in two phases: for a grace time the former key counts beside the new one.

During the grace time every member changes over by itself, whenever its admin types the new
password; who has shown the new key is kept. At its end the former key is forgotten,
and what was proved with it is cut.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import trio

from ..errors import HiveError, conflict
from ..logs import Log, who
from ..store.networks import NetworkKey, Networks
from .clock import Clock
from .connection import STREAM_ERRORS, Connection
from .ledger import MAX_RECORDS
from .membership import JoinDelayedError, JoinRefusedError, Membership
from .records import NodeRecord

log = Log("hived.overlay.rekey")

GRACE_SECONDS = 7 * 86400.0
CHECK_SECONDS = 60.0
# A wall clock that was set back by so much, or ahead by so much, was wrong when a grace time began.
# Ahead by less it may be that the machine stood still: then the time has passed.
SET_BACK, SET_AHEAD = 3600.0, 365 * 86400.0
RENEW_SECONDS = 2.0
_CAPABILITY = "rekey/"


@dataclass
class Rekeying:
    """One network's change of keys: ``until`` in epoch seconds, and who has shown the new key.

    ``clock``: what the wall clock was ahead of the time since boot when it began; None: in an earlier run.
    """

    until: float
    clock: float | None = None
    moved: set[str] = field(default_factory=set)


class Rekeys:
    """The changes under way, in the store and in the memberships.

    ``changes`` is held while networks change; ``on_change`` is called when one has.
    """

    def __init__(self, networks: Networks, membership: Membership, clock: Clock, changes: trio.Lock) -> None:
        self.running: dict[str, Rekeying] = {}
        # Whose newest key is this node's newest, as far as they proved it since this node runs.
        self._agreed: dict[str, set[str]] = {}
        self._networks = networks
        self._membership = membership
        self._clock = clock
        self._changes = changes
        self.on_change: Callable[[], None] = lambda: None
        self._begun = trio.Event()
        self._nursery: trio.Nursery | None = None
        membership.on_proved.append(self._proved)

    def load(self, networks: Iterable[NetworkKey], moved: Iterable[tuple[str, str]]) -> None:
        """Take over what the store says at start, and take part in the networks.

        A grace time that is over ends in :meth:`run`; its former key does not count until then.
        """
        now = self._clock.wall()
        for network in networks:
            over = network.old_until is not None and network.old_until <= now
            self._membership.set_network(network.name, *(network.keys[-1:] if over else network.keys))
            if network.old_until is not None:
                self.running[network.name] = Rekeying(network.old_until)
        for name, peer_id in moved:
            if name in self.running:
                self.running[name].moved.add(peer_id)

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """End grace times when they are over, until cancelled."""
        async with trio.open_nursery() as self._nursery:
            task_status.started()
            while True:
                await self._follow_clock()
                for name, rekeying in list(self.running.items()):
                    if self._clock.wall() >= rekeying.until:
                        try:
                            await self.end(name, only=rekeying)
                        except HiveError as error:
                            log.error("ending a rekey failed; it is tried again", why=error.line())
                self._begun = trio.Event()
                with trio.move_on_after(self._pause()):
                    await self._begun.wait()

    def _pause(self) -> float:
        """Seconds until a grace time may be over; not long, since the clock may be set meanwhile."""
        # Where the former key is dropped already only the store is to be told, which failed before.
        two = [r for name, r in self.running.items() if len(self._membership.keys.get(name, ())) == 2]
        first = min((r.until for r in two), default=math.inf)
        return min(CHECK_SECONDS, max(1.0, first - self._clock.wall()))

    async def begin(
        self, name: str, key: bytes, grace: float, before: tuple[bytes, ...] | None = None
    ) -> float | None:
        """Change a network's key; ``grace``: seconds for which the former one counts too.

        Answers until when that is, epoch seconds; None where it counts no more. Begun again
        within the grace time, the new key is replaced and the former one stays. Raises HiveError
        (conflict) where the network's keys are no longer those of ``before``.
        """
        async with self._changes:
            keys = self._membership.keys.get(name)
            if keys is None or (before is not None and keys != before):
                raise conflict(
                    f"rekeying {name} failed",
                    "somebody else changed or left the network at the same moment",
                    "See hivectl networks, and try again",
                )
            former = keys[0]
            self._agreed.pop(name, None)
            self._membership.forgive(name)
            until = self._clock.wall() + grace if grace > 0 and former != key else None
            await self._networks.rekey(name, key, former if until is not None else None, until)
            if until is None:
                self.running.pop(name, None)
                self._membership.set_network(name, key)
            else:
                self.running[name] = Rekeying(until, self._clock_ahead())
                self._membership.set_network(name, former, key)
        self._begun.set()
        log.info("network rekeyed", network=name, grace=f"{grace:g}s")
        if until is not None:
            await self._renew_all(name)
        return until

    async def set_end(self, name: str, grace: float) -> float:
        """Let a grace time that runs end in ``grace`` seconds; epoch seconds. Raises HiveError (conflict)."""
        async with self._changes:
            rekeying = self.running.get(name)
            if rekeying is None:
                raise _no_grace_time(f"changing the grace time of {name} failed")
            until = self._clock.wall() + grace
            await self._networks.prolong(name, until)
            rekeying.until, rekeying.clock = until, self._clock_ahead()
        self._begun.set()
        return until

    async def cancel(self, name: str) -> list[str]:
        """Go back to the former key; the peers that have shown the new one. Raises HiveError (conflict)."""
        async with self._changes:
            keys = self._membership.keys.get(name, ())
            if name not in self.running or len(keys) != 2:
                raise _no_grace_time(f"going back to the former password of {name} failed")
            await self._networks.rekey(name, keys[0], None, None)
            rekeying = self.running.pop(name)
            self._agreed.pop(name, None)
            self._membership.forgive(name)
            self._membership.set_network(name, keys[0])
        self.on_change()
        log.info("rekeying a network was cancelled", network=name)
        return sorted(rekeying.moved)

    async def end(self, name: str, *, only: Rekeying | None = None) -> None:
        """Forget the former key; memberships that were proved with it end at once.

        ``only``: not where another grace time, or a later end of it, was begun while this waited.
        """
        async with self._changes:
            keys = self._membership.keys.get(name)
            if only is not None and (self.running.get(name) is not only or self._clock.wall() < only.until):
                return
            if keys is None or name not in self.running:
                self.running.pop(name, None)
                return
            # Here memory goes first: a full disk must not let the former key count on.
            self._membership.set_network(name, keys[-1])
            await self._networks.end_rekey(name)
            del self.running[name]
        self.on_change()
        log.info("the former key of a network counts no more", network=name)

    def _clock_ahead(self) -> float:
        return self._clock.wall() - self._clock.boottime()

    async def _follow_clock(self) -> None:
        """Where the wall clock was wrong when a grace time began here, what is left of it stays what it was.

        Never for one of an earlier run: the clock that it began with is not known.
        """
        for name, rekeying in list(self.running.items()):
            if rekeying.clock is None:
                continue
            jump = self._clock_ahead() - rekeying.clock
            if -SET_BACK < jump < SET_AHEAD:
                continue
            rekeying.clock += jump
            rekeying.until += jump
            try:
                await self._networks.prolong(name, rekeying.until)
            except HiveError as error:
                log.warning("keeping the end of a rekey failed", network=name, why=error.line())

    def forget(self, name: str) -> None:
        """The network was left."""
        self.running.pop(name, None)
        self._agreed.pop(name, None)

    def has_moved(self, name: str, peer_id: str) -> bool:
        """Whether a peer has shown a network's newest key here, and no newer one."""
        rekeying = self.running.get(name)
        return peer_id in self._agreed.get(name, ()) or (rekeying is not None and peer_id in rekeying.moved)

    def capabilities(self, name: str) -> list[str]:
        """What this node's record tells members of a change under way here."""
        rekeying = self.running.get(name)
        return [f"{_CAPABILITY}{int(rekeying.until)}"] if rekeying else []

    async def _renew_all(self, name: str) -> None:
        """A peer that changed over before us learns that we have now: at once, or in the background."""
        if self._nursery is None:
            return
        waiting = {connection.peer_id for connection in self._membership.members(name)}
        done = trio.Event()

        async def renew(connection: Connection) -> None:
            await self._renew(connection, name)
            waiting.discard(connection.peer_id)
            if not waiting:
                done.set()

        for connection in self._membership.members(name):
            self._nursery.start_soon(renew, connection)
        with trio.move_on_after(RENEW_SECONDS if waiting else 0):
            await done.wait()

    async def _renew(self, connection: Connection, name: str) -> None:
        try:
            await self._membership.join(connection, name, renew=True)
        except (*STREAM_ERRORS, JoinRefusedError, JoinDelayedError, KeyError) as error:
            log.debug("proving the new key failed", network=name, peer=connection.peer_id, why=error)

    def _proved(self, peer_id: str, name: str, newest: bool, agreed: bool) -> None:
        known = self._agreed.setdefault(name, set())
        if agreed != (peer_id in known) and len(known) <= MAX_RECORDS:
            known.symmetric_difference_update({peer_id})
            self.on_change()
        rekeying = self.running.get(name)
        if rekeying is None or newest == (peer_id in rekeying.moved):
            return
        if newest and len(rekeying.moved) >= MAX_RECORDS:
            return
        rekeying.moved.symmetric_difference_update({peer_id})
        self.on_change()
        said = "a member has the new key" if newest else "a member has the new key no more"
        log.info(said, network=name, **who(peer_id, self._membership.name(peer_id)))
        if self._nursery is not None:
            self._nursery.start_soon(self._keep_moved, name, peer_id, newest)

    async def _keep_moved(self, name: str, peer_id: str, moved: bool) -> None:
        try:
            await (self._networks.add_moved if moved else self._networks.remove_moved)(name, peer_id)
        except HiveError as error:
            log.warning("keeping who has the new key failed", why=error.line())


def _no_grace_time(what: str) -> HiveError:
    return conflict(what, "no grace time runs on this node: it has one password only", "See hivectl networks")


def announced(record: NodeRecord) -> float | None:
    """Until when a member's record says that it takes the former key too, epoch seconds; None: no rekey."""
    for capability in record.capabilities:
        text = capability.removeprefix(_CAPABILITY)
        if text != capability and text.isascii() and text.isdigit() and len(text) <= 12:
            return float(text)
    return None
