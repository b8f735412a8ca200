"""This node as the author of its records: what they say, when they are signed anew, who else signs them."""

from __future__ import annotations

import os
import random
from collections.abc import Callable

import msgspec

from .. import __version__
from ..logs import Log
from .clock import Clock
from .identity import Identity
from .lives import CALM_SECONDS, Lives
from .networkkeys import network_id
from .records import NodeRecord, SignedRecord, sign

log = Log("hived.overlay.author")

RESIGN_SECONDS = 86400.0
_FIRST_STEP = 2**16
# In milliseconds, which sequences are where clocks are right: 200 days.
LEAP = 2**34


class Author:
    """Signs this node's record in each network: ``name``, ``addresses``, ``relays``, ``capabilities`` of now.

    ``on_twin`` is called each time that another hived with this identity proves that it runs.
    """

    def __init__(self, identity: Identity, clock: Clock, rng: random.Random) -> None:
        self.peer_id = identity.peer_id
        self.name = ""
        self.addresses: list[str] = []
        self.capabilities: Callable[[str], list[str]] = lambda network: []
        self.relays: Callable[[str], list[str]] = lambda network: []
        self.lives = Lives(os.urandom(8))
        self.on_twin: Callable[[], None] = lambda: None
        self._identity = identity
        self._clock = clock
        self._rng = rng
        self._due: dict[str, float] = {}
        self._highest: dict[str, int] = {}
        self._warned = float("-inf")

    def sign(
        self, network: str, own: SignedRecord | None, *, after: int = 0, anew: bool = False
    ) -> SignedRecord | None:
        """This node's next record after ``own``; None when it would say the same, unless ``anew``.

        Its sequence is above ``own``'s and ``after``, and the time in ms where the clock allows.
        """
        draft = NodeRecord(
            network=network_id(network),
            peer_id=self._identity.peer_id,
            name=self.name,
            addresses=self.addresses,
            relays=self.relays(network),
            version=__version__,
            capabilities=self.capabilities(network),
            seq=0,
            nonce=self.lives.nonce,
            issued=0.0,
        )
        said = msgspec.structs.replace(own.record, seq=0, issued=0.0) if own else None
        if draft == said and not after and not anew:
            return None
        now = self._now()
        last = max(own.record.seq if own else 0, after, self._highest.get(network, 0))
        # Copies of one state that boot behind their last sequence must not sign the same one.
        step = 1 if network in self._highest else 1 + self._rng.randrange(_FIRST_STEP)
        if after > 0 and int(now * 1000) <= after:
            # The clock is behind: beyond all that an older life of some months can have signed.
            step += LEAP
        seq = self._highest[network] = max(last + step, int(now * 1000))
        self._due[network] = self._clock.monotonic() + RESIGN_SECONDS * self._rng.uniform(0.9, 1.0)
        return sign(msgspec.structs.replace(draft, seq=seq, issued=now), self._identity.key_pair)

    def is_due(self, network: str, own: NodeRecord) -> bool:
        """Whether a day has passed since the record was signed, by either clock, or its time lies ahead."""
        if self._clock.monotonic() >= self._due.get(network, float("-inf")):
            return True
        return abs(self._now() - own.issued) > RESIGN_SECONDS

    def _now(self) -> float:
        """Epoch seconds; a clock before 1970 would make a record that nobody takes."""
        return max(0.0, self._clock.wall())

    @property
    def has_twin(self) -> bool:
        """Whether another hived with this identity ran within the last hour."""
        seen = self.lives.twin_seen
        return seen is not None and self._clock.monotonic() - seen < CALM_SECONDS

    def met(self, network: str, record: NodeRecord, own: int) -> float:
        """Another life's record of this node came: seconds to wait before one is signed past it.

        ``own`` is the sequence that this node has reached.
        """
        now = self._clock.monotonic()
        alive = self.lives.met(network, record.nonce, record.seq, own, now)
        if alive:
            self.on_twin()
        if alive and now - self._warned > 600.0:
            self._warned = now
            log.error(
                "another hived runs with this node's identity: its state was copied; stop one of the two"
                " (to move a node: hivectl backup, stop it for good, hivectl restore)",
                network=network,
                name=record.name,
                addresses=" ".join(record.addresses[:4]),
            )
        elif not alive:
            log.info("publishing above an older life's record", network=network, seq=record.seq)
        return self.lives.outdo(now)
