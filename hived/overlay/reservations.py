"""Reservations that this node keeps on relays while others cannot dial it.

Two or three of them, on members that others can dial; renewed early, and one that is lost is replaced at
once.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import trio

from ..logs import Log
from .circuits import Circuits, Reserved, ReserveError
from .connection import Connection

log = Log("hived.overlay.reservations")

# What a node's record says of one that others may reserve on, and of one that is nearly full.
RELAY = "relay"
RELAY_BUSY = "relay-busy"

TARGET = 3
# Of the time that a reservation lasts, this much is left when it is renewed.
_RENEW_LEFT = 0.5
_MIN_PAUSE = 5.0
_RETRY_SECONDS = 10.0
_MAX_RETRY = 300.0
# Round trips that differ by less are the same.
_RTT_STEP = 0.02


@dataclass(frozen=True)
class Candidate:
    """A relay that is connected. ``busy``: it says so itself."""

    connection: Connection
    busy: bool = False


class Reservations:
    """``needed``: whether this node wants any; ``candidates``: the relays that could serve it now.

    ``on_change`` is called when the set of relays has changed.
    """

    def __init__(
        self,
        circuits: Circuits,
        needed: Callable[[], bool],
        candidates: Callable[[], Iterable[Candidate]],
        rng: random.Random | None = None,
    ) -> None:
        self.held: dict[str, Reserved] = {}
        self.errors: dict[str, str] = {}
        self.on_change: list[Callable[[], None]] = []
        self._circuits = circuits
        self._needed = needed
        self._candidates = candidates
        self._rng = rng or random.Random()
        self._not_before: dict[str, float] = {}
        self._pauses: dict[str, float] = {}
        self._renew_at: dict[str, float] = {}
        self._kick = trio.Event()

    def kick(self) -> None:
        """Something has changed: look now."""
        self._kick.set()

    def is_held(self, relay: str) -> bool:
        """Whether this relay may bring circuits."""
        return relay in self.held

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep them until cancelled."""
        task_status.started()
        while True:
            self._kick = trio.Event()
            before = set(self.held)
            await self.settle()
            if set(self.held) != before:
                log.info("relays", held=len(self.held), peers=" ".join(self.held))
                for callback in self.on_change:
                    callback()
            with trio.move_on_after(self._pause()):
                await self._kick.wait()

    async def settle(self) -> None:
        """Let go of what is lost or not needed, renew what is due, and reserve what is missing."""
        now = time.monotonic()
        offered = {candidate.connection.peer_id for candidate in self._candidates()}
        for relay, reserved in list(self.held.items()):
            lost = not reserved.connection.takes_streams or reserved.until <= now
            if lost or relay not in offered or not self._needed():
                del self.held[relay]
        if not self._needed():
            return
        for relay in [r for r in self.held if self._renew_at.get(r, 0.0) <= now]:
            if not await self._reserve(self.held[relay].connection):
                del self.held[relay]
        for candidate in self._ranked():
            if len(self.held) >= TARGET:
                break
            await self._reserve(candidate.connection)

    def _ranked(self) -> list[Candidate]:
        """Near ones that are not busy first; among equals by chance, so that all carry some."""
        now = time.monotonic()
        usable = [
            c
            for c in self._candidates()
            if c.connection.peer_id not in self.held
            and c.connection.relay is None
            and self._not_before.get(c.connection.peer_id, 0.0) <= now
        ]
        self._rng.shuffle(usable)
        return sorted(usable, key=lambda c: (c.busy, int((c.connection.muxer.rtt or 1.0) / _RTT_STEP)))

    async def _reserve(self, connection: Connection) -> bool:
        relay = connection.peer_id
        try:
            reserved = await self._circuits.reserve(connection)
        except ReserveError as error:
            pause = self._pauses.get(relay, _RETRY_SECONDS)
            self._not_before[relay] = time.monotonic() + pause * self._rng.uniform(0.75, 1.25)
            self._pauses[relay] = min(2 * pause, _MAX_RETRY)
            if self.errors.get(relay) != str(error):
                log.info("a relay takes no reservation", peer=relay, why=error)
            self.errors[relay] = str(error)
            return False
        now = time.monotonic()
        self.held[relay] = reserved
        self._renew_at[relay] = now + (reserved.until - now) * (1 - _RENEW_LEFT)
        self._pauses.pop(relay, None)
        self.errors.pop(relay, None)
        return True

    def _pause(self) -> float:
        """Seconds until something is due."""
        if not self._needed():
            return float("inf")
        now = time.monotonic()
        due = [self._renew_at[relay] for relay in self.held if relay in self._renew_at]
        if len(self.held) < TARGET:
            due += [when for when in self._not_before.values() if when > now]
        return max(_MIN_PAUSE, min(due, default=float("inf")) - now)
