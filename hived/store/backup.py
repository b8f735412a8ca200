"""A backup file: a node's state, encrypted with a passphrase.

Magic and format version, a header with its length in front (JSON: how the key is made), the
content (MessagePack, AES-256-GCM with all before it authenticated), and the SHA-256 of the
whole. The digest proves nothing, that is the cipher's part: it tells damage from a wrong
passphrase, and before any work is spent on either.
"""

from __future__ import annotations

import hashlib
import os
from typing import Annotated, Literal

import msgspec
from argon2.exceptions import HashingError
from argon2.low_level import Type, hash_secret_raw
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from msgspec import Meta, Struct

from ..errors import HiveError, denied, failed, usage
from ..schema import MAX_BACKUP, Name

MAGIC = b"hive-backup"
VERSION = 1
DIGEST_BYTES = 32
_LENGTH_BYTES = 2
_KEY_BYTES = 32
_NONCE_BYTES = 12
_HEAD_BYTES = len(MAGIC) + 1 + _LENGTH_BYTES
# The end of what RFC 3339 can write, in epoch seconds.
_YEAR_10000 = 253402300800
_WHAT = "reading the backup failed"


class Header(Struct, forbid_unknown_fields=True):
    """How the key follows from the passphrase (RFC 9106).

    The bounds are for files that others made: 256 MiB and some seconds are the most that one can cost.
    The default takes 64 MiB, as every log-in does, and more passes: who has the file can guess at leisure.
    """

    salt: Annotated[bytes, Meta(min_length=16, max_length=64)]
    nonce: Annotated[bytes, Meta(min_length=_NONCE_BYTES, max_length=_NONCE_BYTES)]
    kdf: Literal["argon2id"] = "argon2id"
    cipher: Literal["aes-256-gcm"] = "aes-256-gcm"
    memory_kib: Annotated[int, Meta(ge=1024, le=256 * 1024)] = 64 * 1024
    passes: Annotated[int, Meta(ge=1, le=16)] = 8
    lanes: Annotated[int, Meta(ge=1, le=16)] = 4


class Content(Struct):
    """What is in a backup. ``created`` is epoch seconds, ``addresses`` where the node was to be dialled then.

    ``key`` is a state key made for this backup alone: the sealed columns of ``database`` open with it.
    """

    peer_id: str
    name: Name
    version: str
    created: Annotated[float, Meta(ge=0, lt=_YEAR_10000)]
    networks: list[Name]
    addresses: list[str]
    key: bytes
    database: bytes

    def __repr__(self) -> str:
        """Without the secrets."""
        return f"Content({self.peer_id})"


def encrypt(content: Content, passphrase: str) -> bytes:
    """The file (blocking, about 0.3 s and 64 MiB). Raises HiveError when it would be too large."""
    header = Header(salt=os.urandom(16), nonce=os.urandom(_NONCE_BYTES))
    encoded = msgspec.json.encode(header)
    head = MAGIC + bytes([VERSION]) + len(encoded).to_bytes(_LENGTH_BYTES, "big") + encoded
    key = _derive(header, passphrase, "making the backup failed")
    data = head + AESGCM(key).encrypt(header.nonce, msgspec.msgpack.encode(content), head)
    if len(data) + DIGEST_BYTES > MAX_BACKUP:
        raise failed(
            "making the backup failed",
            f"this node's database is too large for it ({len(content.database)} bytes)",
            "Stop hived and copy its data directory instead",
        )
    return data + hashlib.sha256(data).digest()


def decrypt(data: bytes, passphrase: str) -> Content:
    """What :func:`encrypt` was given (blocking).

    Raises HiveError: usage for a file that is none, is damaged or of a later version; denied for another
    passphrase.
    """
    header, head = _head(data)
    body, digest = data[:-DIGEST_BYTES], data[-DIGEST_BYTES:]
    if len(body) < head or hashlib.sha256(body).digest() != digest:
        raise damaged("its checksum is wrong, or its end is missing")
    key = _derive(header, passphrase, _WHAT)
    try:
        plain = AESGCM(key).decrypt(header.nonce, body[head:], body[:head])
    except InvalidTag:
        raise denied(_WHAT, "the passphrase is wrong", "Type the one that the backup was made with") from None
    try:
        return msgspec.msgpack.decode(plain, type=Content)
    except msgspec.DecodeError as error:
        raise damaged(str(error)) from None


def damaged(why: str) -> HiveError:
    """A backup that cannot be used, whatever the passphrase."""
    return usage(_WHAT, f"the file is damaged ({why})", "Take another copy of it")


def _head(data: bytes) -> tuple[Header, int]:
    """The header, and how many bytes it takes with all before it."""
    if not data.startswith(MAGIC) or len(data) < _HEAD_BYTES:
        raise usage(_WHAT, "the file is no backup of a node", "Make one: hivectl backup FILE")
    if data[len(MAGIC)] != VERSION:
        raise usage(
            _WHAT,
            f"it is of format {data[len(MAGIC)]}, and this version knows {VERSION}",
            "Restore it with the version of Hive that made it, or a later one",
        )
    end = _HEAD_BYTES + int.from_bytes(data[_HEAD_BYTES - _LENGTH_BYTES : _HEAD_BYTES], "big")
    try:
        return msgspec.json.decode(data[_HEAD_BYTES:end], type=Header), end
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise damaged(f"its header: {error}") from None


def _derive(header: Header, passphrase: str, what: str) -> bytes:
    try:
        return hash_secret_raw(
            passphrase.encode(),
            header.salt,
            header.passes,
            header.memory_kib,
            header.lanes,
            _KEY_BYTES,
            Type.ID,
        )
    except (HashingError, MemoryError) as error:
        raise failed(what, f"the key cannot be made: {error}", "Free some memory and try again") from None
