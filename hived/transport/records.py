"""Noise transport messages with their length in front, one direction each. No I/O.

This is the inner loop of the data plane: the AEAD contexts of ``cryptography`` are used directly, into
buffers that are there already; a message costs one call and its nonce.
"""

from __future__ import annotations

import struct
from typing import Final, NoReturn

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from .suites import AESGCM_LONG, TAG_BYTES, Suite

# The longest message of any suite, without its prefix.
MAX_RECORD_BYTES: Final = AESGCM_LONG.max_record
# Noise reserves the last one (revision 34, section 5.1); REKEY uses it (section 4.2).
MAX_NONCE: Final = 2**64 - 1
_PREFIX: Final = {2: struct.Struct(">H"), 4: struct.Struct(">I")}


class BadRecordError(Exception):
    """A message that its sender cannot have sealed so; the connection cannot go on."""


class _Direction:
    """A key and its counter: CipherState of the Noise specification, section 5.1.

    ``prefix``: bytes of a message's length; ``overhead``: how much longer a message is than its payload;
    ``max_plain``: bytes of the longest payload; ``max_record``: of the longest message without its prefix.
    """

    def __init__(self, suite: Suite, key: bytes, nonce: int = 0) -> None:
        self.prefix = suite.prefix
        self.overhead = suite.prefix + TAG_BYTES
        self.max_plain = suite.max_plain
        self.max_record = suite.max_record
        self._head = _PREFIX[suite.prefix]
        # Sections 12.3 and 12.4: 32 zero bits, then the counter, of which the order of bytes differs.
        self._nonce = struct.Struct(">IQ" if suite.aes else "<IQ").pack
        self._aead = AESGCM if suite.aes else ChaCha20Poly1305
        self._key = key
        self._cipher = self._aead(key)
        self._next = nonce
        self._step = suite.rekey_after
        self._stop = MAX_NONCE
        if self._step is not None:
            self._stop = min((nonce // self._step + 1) * self._step, MAX_NONCE)

    def _at_stop(self) -> None:
        """REKEY (sections 4.2 and 11.3): a new key from the old one; the counter goes on."""
        if self._step is None or self._next >= MAX_NONCE:
            raise BadRecordError("all nonces are used")
        self._key = self._cipher.encrypt(self._nonce(0, MAX_NONCE), bytes(32), None)[:32]
        self._cipher = self._aead(self._key)
        self._stop = min(self._next + self._step, MAX_NONCE)


class Sealer(_Direction):
    """Seals what this node sends."""

    def seal(self, plain: memoryview, out: memoryview) -> int:
        """Write prefix, ciphertext and tag of one message into ``out``; how many bytes.

        Raises ValueError for more than ``max_plain`` bytes, BadRecordError when the nonces are used up.
        """
        size = len(plain) + TAG_BYTES
        if size > self.max_record:
            raise ValueError(f"a payload of {len(plain)} bytes")
        number = self._next
        if number == self._stop:
            self._at_stop()
        # Counted before it is used: whatever fails below, the nonce does not come again.
        self._next = number + 1
        prefix = self.prefix
        end = prefix + size
        self._head.pack_into(out, 0, size)
        self._cipher.encrypt_into(self._nonce(0, number), plain, None, out[prefix:end])
        return end


class Opener(_Direction):
    """Opens what the peer has sent. After an error it opens nothing more."""

    def head(self, buffer: memoryview | bytes, at: int = 0) -> int:
        """The bytes of the message whose prefix is at ``at``, without the prefix.

        Raises BadRecordError for a length that no message has.
        """
        size: int = self._head.unpack_from(buffer, at)[0]
        if not TAG_BYTES <= size <= self.max_record:
            self._refuse(size)
        return size

    def open(self, sealed: memoryview, plain: memoryview) -> int:
        """Open one message, without its prefix, into ``plain``; how many bytes.

        Raises BadRecordError; ``plain`` then holds anything, and nothing to be trusted.
        """
        number = self._next
        if number == self._stop:
            self._at_stop()
        size = len(sealed) - TAG_BYTES
        if not 0 <= size <= self.max_plain:
            self._refuse(len(sealed))
        try:
            self._cipher.decrypt_into(self._nonce(0, number), sealed, None, plain[:size])
        except InvalidTag:
            self._refuse()
        self._next = number + 1
        return size

    def _refuse(self, size: int | None = None) -> NoReturn:
        # As if all nonces were used.
        self._next = self._stop = MAX_NONCE
        raise BadRecordError(
            "the authentication tag is wrong" if size is None else f"a message of {size} bytes"
        ) from None
