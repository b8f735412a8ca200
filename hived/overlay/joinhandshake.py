"""The join handshake, without I/O: SPAKE2 keyed by K, bound to this very connection.

The stream's opener is A, the other B. Both SPAKE2 identities hold the protocol ID, the
network ID, both peer IDs and the Noise handshake hash, so that messages cannot be
replayed, reflected, or relayed by a man in the middle. The key is confirmed both ways,
opener first: whoever does not know K learns only that one guess was wrong.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass

from spake2 import SPAKE2_A, SPAKE2_B

from .wire import ProtocolError

JOIN = "/hive/join/1.0.0"
SHARE_BYTES = 33
CONFIRM_BYTES = 32


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

    Each elliptic curve step costs about 10 ms of CPU: construct and finish in a thread.
    """

    def __init__(self, key: bytes, binding: Binding, *, opener: bool) -> None:
        self._binding = binding.encode()
        self._opener = opener
        side = SPAKE2_A if opener else SPAKE2_B
        self._spake = side(key, idA=b"A" + self._binding, idB=b"B" + self._binding)
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
