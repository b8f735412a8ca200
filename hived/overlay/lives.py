"""Other lives of this node's identity: from before a restored backup, or of a copy that runs elsewhere.

A node that meets its own record with a higher sequence publishes past it. An older life
says no more then; at most one more of its records is still about. A copy does the same in
turn: whoever outdoes this node twice more is alive. Two copies would outdo each other for ever at
network speed, so each next time waits twice as long.
"""

from __future__ import annotations

from dataclasses import dataclass, field

FIRST_WAIT = 1.0
MAX_WAIT = 600.0
CALM_SECONDS = 3600.0
PROOFS = 2
_MAX_LIVES = 1000


@dataclass
class _Life:
    sequence: int
    strikes: int = 0


@dataclass
class Lives:
    """Sans-IO; times are seconds of one monotonic clock. ``nonce`` is this boot's.

    ``twin_seen``: when a copy last proved that it runs.
    """

    nonce: bytes
    twin_seen: float | None = None
    _lives: dict[tuple[str, bytes], _Life] = field(default_factory=dict)
    _wait: float = 0.0
    _last: float = float("-inf")

    def met(self, network: str, nonce: bytes, sequence: int, own: int, now: float) -> bool:
        """A record of this node came that it did not sign in this life; whether a copy runs, as that proves.

        ``own`` is the sequence that this node has reached. A record that was met before proves
        nothing, nor does one that comes before this node has published past the former.
        """
        life = self._lives.get((network, nonce))
        if life is None:
            if len(self._lives) >= _MAX_LIVES:
                self._lives.clear()
            life = self._lives[network, nonce] = _Life(sequence)
        elif sequence > life.sequence:
            life.strikes += own > life.sequence
            life.sequence = sequence
        # This boot's nonce in a record that it never signed: its memory was copied (a snapshot).
        alive = nonce == self.nonce or life.strikes >= PROOFS
        if alive:
            self.twin_seen = now
        return alive

    def outdo(self, now: float) -> float:
        """This node is to publish past such a record: seconds to wait before."""
        if now - self._last > CALM_SECONDS:
            self._wait = 0.0
        wait, self._wait = self._wait, min(MAX_WAIT, max(FIRST_WAIT, self._wait * 2))
        self._last = now + wait
        return wait
