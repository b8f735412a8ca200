"""The group of our SPAKE2 in libsodium: the points of Ed25519 of prime order (RFC 9382, section 4).

The spake2 package brings its own arithmetic, in Python: 18 ms of CPU for a stranger's join, under the
interpreter's lock and not in constant time. This is what it asks of a group, with the same bytes on
the wire, some twenty times as fast and in constant time.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from typing import Any, Final

from nacl import bindings
from nacl.exceptions import CryptoError
from spake2.parameters.ed25519 import ParamsEd25519

ELEMENT_BYTES = 32
ORDER: Final = 2**252 + 27742317777372353535851937790883648493
_PLAIN: Any = ParamsEd25519


class NotAnElementError(Exception):
    """These bytes are no point of the group: off the curve, of small order, or not canonical."""


class Element:
    """A point of the group that is not its neutral element."""

    def __init__(self, encoded: bytes) -> None:
        self._encoded = encoded

    def to_bytes(self) -> bytes:
        return self._encoded

    def add(self, other: Element) -> Element:
        return Element(bindings.crypto_core_ed25519_add(self._encoded, other._encoded))

    def scalarmult(self, scalar: int) -> Element:
        """Raises NotAnElementError where the product, or this, is the neutral element."""
        try:
            return Element(bindings.crypto_scalarmult_ed25519_noclamp(_scalar(scalar), self._encoded))
        except CryptoError:
            raise NotAnElementError from None


class _Base(Element):
    """The base point, for which libsodium has tables."""

    def scalarmult(self, scalar: int) -> Element:
        return Element(bindings.crypto_scalarmult_ed25519_base_noclamp(_scalar(scalar)))


def _scalar(number: int) -> bytes:
    return (number % ORDER).to_bytes(32, "little")


class Group:
    """What spake2 asks of ``params.group``."""

    Base = _Base(_PLAIN.group.Base.to_bytes())

    def random_scalar(self, entropy: Callable[[int], bytes]) -> int:
        """Below the order; 256 bits more than it has leave no bias."""
        return int.from_bytes(entropy(64), "big") % ORDER

    def password_to_scalar(self, password: bytes) -> int:
        return int(_PLAIN.group.password_to_scalar(password))

    def bytes_to_element(self, encoded: bytes) -> Element:
        """Raises NotAnElementError."""
        if len(encoded) != ELEMENT_BYTES or not bindings.crypto_core_ed25519_is_valid_point(encoded):
            raise NotAnElementError
        return Element(encoded)


def _parameters() -> Any:
    """The package's own, M and N among them, in this group."""
    found = copy(_PLAIN)
    found.group = Group()
    found.M, found.N = Element(_PLAIN.M.to_bytes()), Element(_PLAIN.N.to_bytes())
    return found


PARAMS: Final = _parameters()
