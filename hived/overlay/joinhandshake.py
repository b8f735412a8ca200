"""The join handshake, without I/O: SPAKE2 keyed by K, bound to this very connection.

The stream's opener is A, the other B. Both SPAKE2 identities hold the protocol ID, the
network ID, both peer IDs and the Noise handshake hash, so that messages cannot be
replayed, reflected, or relayed by a man in the middle. The key is confirmed both ways,
opener first: whoever does not know K learns only that one guess was wrong.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass

from spake2 import SPAKE2_A, SPAKE2_B

from .ed25519 import PARAMS
from .wire import ProtocolError

JOIN = "/hive/join/1.0.0"
SHARE_BYTES = 33
CONFIRM_BYTES = 32
MAX_KEYS = 2


@dataclass(frozen=True)
class Binding:
    """What a handshake is bound to. Peer IDs as text, the rest bytes."""

    network_id: bytes
    opener: str
    answerer: str
    handshake_hash: bytes

    def encode(self) -> bytes:
        """Unambiguous bytes: each part with its length in front."""
        parts = (
            JOIN.encode(),
            self.network_id,
            self.opener.encode(),
            self.answerer.encode(),
            self.handshake_hash,
        )
        return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


class JoinHandshake:
    """One side of one join. ``share`` goes to the other; :meth:`finish` takes its share.

    Each of the two steps costs about 0.2 ms of CPU.
    """

    def __init__(self, key: bytes, binding: Binding, *, opener: bool) -> None:
        self._binding = binding.encode()
        self._opener = opener
        side = SPAKE2_A if opener else SPAKE2_B
        self._spake = side(key, idA=b"A" + self._binding, idB=b"B" + self._binding, params=PARAMS)
        self.share: bytes = self._spake.start()
        self._secret = b""

    def finish(self, share: bytes) -> None:
        """Take the other side's share. Raises ProtocolError for anything that is not one."""
        try:
            if len(share) != SHARE_BYTES:
                raise ValueError(f"{len(share)} bytes")
            self._secret = self._spake.finish(share)
        except Exception as error:  # spake2 raises unrelated kinds, NotOnCurve among them
            raise ProtocolError(f"not a SPAKE2 share: {error}") from None

    def again(self) -> JoinHandshake:
        """The same side with the same share, for another share of the other side."""
        twin = copy(self)
        twin._spake = copy(self._spake)
        return twin

    @property
    def confirmation(self) -> bytes:
        """The proof to send that this side has the same secret."""
        return self._confirm(self._opener)

    def verify(self, confirmation: bytes) -> bool:
        """Whether the other side has the same secret: it knows K and is on this connection."""
        return hmac.compare_digest(confirmation, self._confirm(not self._opener))

    def _confirm(self, opener: bool) -> bytes:
        label = b"hive join confirm " + (b"A" if opener else b"B")
        return hmac.new(self._secret, label + self._binding, hashlib.sha256).digest()


class JoinRuns:
    """A join where either side may have two keys, because the network is being rekeyed.

    ``keys`` are oldest first. There is one handshake for each pair of the opener's and the
    answerer's keys, the opener's counting first; at most four.
    """

    def __init__(self, keys: Sequence[bytes], binding: Binding, *, opener: bool) -> None:
        self._opener = opener
        self._runs = [JoinHandshake(key, binding, opener=opener) for key in keys]
        self._pairs: list[JoinHandshake] = []
        self._keys: list[tuple[int, bool]] = []

    @property
    def shares(self) -> list[bytes]:
        """What to send, one share for each key."""
        return [run.share for run in self._runs]

    def finish(self, shares: Sequence[bytes]) -> Iterator[None]:
        """Take the other side's shares, one pair of keys a step, so that others can be served between.

        Raises ProtocolError for anything that is no share.
        """
        if not 1 <= len(shares) <= MAX_KEYS:
            raise ProtocolError(f"{len(shares)} SPAKE2 shares")
        ours, theirs = range(len(self._runs)), range(len(shares))
        pairs = (
            [(i, j) for i in ours for j in theirs] if self._opener else [(i, j) for j in theirs for i in ours]
        )
        for own, other in pairs:
            # A run finishes once; its share meets each of the other side's.
            run = self._runs[own].again()
            run.finish(shares[other])
            self._pairs.append(run)
            self._keys.append((own, other == theirs[-1]))
            yield

    @property
    def confirmations(self) -> list[bytes]:
        """The proofs to send that this side has the same secret, one for each pair of keys."""
        return [run.confirmation for run in self._pairs]

    def matching(self, confirmations: Sequence[bytes]) -> int | None:
        """The last pair of keys, so the newest, for which the other side proved the same secret."""
        proved = [pair for pair, proof in enumerate(confirmations) if self.verify(pair, proof)]
        return max(proved, default=None)

    def verify(self, pair: int, confirmation: bytes) -> bool:
        """Whether the other side proved the same secret for one pair of keys."""
        return 0 <= pair < len(self._pairs) and self._pairs[pair].verify(confirmation)

    def own_key(self, pair: int) -> int:
        """Which of this side's keys a pair is of."""
        return self._keys[pair][0]

    def is_their_newest(self, pair: int) -> bool:
        """Whether it is the newest key that the other side offered."""
        return self._keys[pair][1]
