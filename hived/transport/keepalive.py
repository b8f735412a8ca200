"""Whether the far side still lives: pings in silence, and the end of a connection that says nothing."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from .limits import MuxLimits
from .plane import Plane, Timer

if TYPE_CHECKING:
    from .tunnel import Tunnel

# A timer that fires so late was held up together with this whole process.
_STOPPED_SECONDS: Final = 1.0


class KeepAlive:
    """Of one tunnel, from ``start`` to ``stop``. All methods: the data plane's thread.

    Pings also measure the round-trip time, and streams that the peer does not acknowledge are given up
    here, for want of another clock.
    """

    def __init__(self, plane: Plane, tunnel: Tunnel, limits: MuxLimits) -> None:
        self._plane = plane
        self._tunnel = tunnel
        self._limits = limits
        self._timer: Timer | None = None
        self._due = self._pinged_at = self._patient_until = 0.0
        self._heard = 0
        self._answer_by = 0.0
        self._extended = False
        self._swept_at = time.monotonic()

    def start(self) -> None:
        """Ping at once, for the round-trip time."""
        self._ping()

    def stop(self) -> None:
        """No more pings."""
        if self._timer is not None:
            self._timer.cancel()

    def probe(self, seconds: float) -> None:
        """Ping now, and give the peer only so long to be heard: the network below may be another one.

        Where only our way to it is gone, it is heard still: then the answer itself must come in three times
        as long.
        """
        if not self._tunnel.alive:
            return
        self.stop()
        now = time.monotonic()
        patient, answer_by = now + seconds, now + 3 * seconds
        if self._tunnel.session.ping_answered:
            self._ping()
            self.stop()
        else:
            # One is under way, of which an earlier probe may expect more.
            patient = min(patient, self._patient_until)
            answer_by = min(answer_by, self._answer_by or answer_by)
        self._patient_until, self._answer_by = patient, answer_by
        self._check_at(patient)

    def _ping(self) -> None:
        self._tunnel.session.ping()
        self._heard = self._tunnel.bytes_in
        self._pinged_at = time.monotonic()
        self._answer_by = 0.0
        self._extended = False
        self._patient_until = self._pinged_at + self._limits.keep_alive_timeout
        self._check_at(self._patient_until)

    def _check_at(self, due: float) -> None:
        if not self._tunnel.session.ping_answered:
            # The answer makes it a matter of silence again.
            due = min(due, time.monotonic() + self._limits.keep_alive)
        self._due = due
        self._timer = self._plane.after(due - time.monotonic(), self._check)

    def _check(self) -> None:
        """Ping when silence or the round-trip time's age asks for it; end a connection that says nothing.

        Silent is who says nothing at all: behind megabytes on a slow line, the answer itself may take
        longer than a dead peer may.
        """
        if not self._tunnel.alive:
            return
        now = time.monotonic()
        limits = self._limits
        if now - self._swept_at >= limits.ack_timeout:
            self._swept_at = now
            self._tunnel.session.give_up_unacknowledged()
        if not self._tunnel.session.ping_answered and self._tunnel.bytes_in == self._heard:
            if now - self._due >= _STOPPED_SECONDS and not self._extended:
                # This process was stopped, and what came meanwhile is still to be read. Once for a ping: a
                # loop that is late all the time is no reason to wait for ever.
                self._extended = True
                self._patient_until = now + limits.keep_alive_timeout
            if now >= self._patient_until:
                self._tunnel.give_up(f"nothing heard for {now - self._tunnel.last_received:.0f} s")
            else:
                self._check_at(self._patient_until)
            return
        if self._answer_by and not self._tunnel.session.ping_answered:
            if now >= self._answer_by:
                self._tunnel.give_up("it does not answer on the network as it is now")
            else:
                self._check_at(self._answer_by)
            return
        # Anything that arrives puts the next ping off, but not for ever.
        due = min(self._tunnel.last_received + limits.keep_alive, self._pinged_at + limits.rtt_interval)
        if due <= now:
            self._ping()
        else:
            self._check_at(due)
