"""From a network's name and password to its ID and its key K (DESIGN.md, Networks and membership)."""

from __future__ import annotations

import hashlib
import secrets

from argon2.low_level import Type, hash_secret_raw

KEY_BYTES = 32
NETWORK_ID_BYTES = 32
# RFC 9106, second recommended option, which argon2-cffi has as its default.
_TIME_COST, _MEMORY_KIB, _LANES = 3, 65536, 4
SHORT_PASSWORD = 12


def network_id(name: str) -> bytes:
    """What stands for the network on the wire: made from its name only, never from the password."""
    return hashlib.sha256(b"hive-network-id" + name.encode()).digest()


def derive_key(name: str, password: str) -> bytes:
    """K = Argon2id(password, salt from the name), 32 bytes.

    Takes about 0.1 s and 64 MiB: call it in a thread.
    """
    salt = hashlib.sha256(b"hive-network" + name.encode()).digest()[:16]
    return hash_secret_raw(password.encode(), salt, _TIME_COST, _MEMORY_KIB, _LANES, KEY_BYTES, Type.ID)


def generate_password() -> str:
    """A password of 128 random bits, 22 characters that need no quoting in a shell."""
    while (password := secrets.token_urlsafe(16)).startswith("-"):
        pass  # a leading dash would read as an option
    return password
