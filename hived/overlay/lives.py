"""Other lives of this node's identity: from before a restored backup, or of a copy that runs elsewhere.

A node that meets its own record with a higher sequence publishes past it. An older life
says no more then. A copy does the same in turn: whoever answers again after it was outdone
is alive. Two copies would outdo each other for ever at network speed, so each next time
waits twice as long.
"""

from __future__ import annotations

from dataclasses import dataclass, field

FIRST_WAIT = 1.0
MAX_WAIT = 600.0
CALM_SECONDS = 3600.0


@dataclass
class Lives:
    """Sans-IO; times are seconds of one monotonic clock. ``nonce`` is this boot's."""

    nonce: bytes
    twin_seen: float | None = None
    _outdone: set[tuple[str, bytes]] = field(default_factory=set)
    _wait: float = 0.0
    _last: float = float("-inf")

    def met(self, network: str, nonce: bytes, now: float) -> bool:
        """An own record with a higher sequence came; whether it proves that a copy of this node runs.

        Its nonce is this boot's only when the memory itself was copied (a snapshot of a virtual machine).
        """
        alive = nonce == self.nonce or (network, nonce) in self._outdone
        if alive:
            self.twin_seen = now
        return alive

    def outdo(self, network: str, nonce: bytes, now: float) -> float:
        """This node is to publish past such a record: seconds to wait before."""
        self._outdone.add((network, nonce))
        if len(self._outdone) > 1000:
            self._outdone.clear()
        if now - self._last > CALM_SECONDS:
            self._wait = 0.0
        wait, self._wait = self._wait, min(MAX_WAIT, max(FIRST_WAIT, self._wait * 2))
        self._last = now + wait
        return wait
