"""Encryption of secrets at rest with the state key (AES-256-GCM, RFC 5116).

A sealed value is a 12-byte random nonce and the ciphertext; the place it is stored in
is authenticated with it, so that values cannot be moved from row to row.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ..errors import failed

KEY_BYTES = 32
_NONCE_BYTES = 12


def place(table: str, row: object, column: str = "sealed_key") -> str:
    """Where a value lies, to be authenticated with it; ``row`` is the value of the table's primary key.

    ``sealed_key`` of ``network`` lies in ``network/NAME``, ``sealed_old_key`` in ``network-old/NAME``.
    """
    which = column.removeprefix("sealed").removesuffix("key").strip("_")
    return f"{table}-{which}/{row}" if which else f"{table}/{row}"


class StateKey:
    """The key that protects the secrets of one node's database."""

    def __init__(self, key: bytes, source: Path) -> None:
        self._aead = AESGCM(key)
        self.source = source

    def seal(self, plain: bytes, place: str) -> bytes:
        """Encrypt ``plain`` for ``place`` (``table/row``)."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._aead.encrypt(nonce, plain, place.encode())

    def open(self, sealed: bytes, place: str) -> bytes:
        """Decrypt what :meth:`seal` made for ``place``; HiveError when the key is another."""
        try:
            return self._aead.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], place.encode())
        except (InvalidTag, ValueError):
            raise failed(
                f"decrypting {place.split('/')[0]} in the database failed",
                f"{self.source} is not the key it was encrypted with",
                "Put the right state key back, or set the database aside and start anew",
            ) from None


def load(data_dir: Path, credential: Path | None, database_exists: bool) -> StateKey:
    """The state key: ``credential``, where there is that file, else ``state.key`` (0600), made when new.

    A database without its key is an error: a new key could not read it.
    """
    path = source(data_dir, credential)
    if not database_exists and not is_there(path):
        try:
            return StateKey(_create(path), path)
        except OSError as error:
            raise failed(
                f"making {path} failed",
                error.strerror or str(error),
                "Check the disk, and the directory's owner",
            ) from None
    if path.parent == data_dir:
        with suppress(OSError):  # reading it says what is wrong
            if path.stat().st_uid == os.geteuid():
                path.chmod(0o600)
    return read(path)


def source(data_dir: Path, credential: Path | None) -> Path:
    """Where the state key is: in the credential, where there is one, else in the state."""
    return credential if credential and is_there(credential) else data_dir / "state.key"


def read(path: Path) -> StateKey:
    """The state key in that file. Raises HiveError."""
    what = f"reading {path} failed"
    try:
        # It may be a pipe, or longer than any memory, where root looks at what another user has.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            about = os.fstat(fd)
            if not stat.S_ISREG(about.st_mode):
                raise failed(what, "it is no regular file", "Put the right file back")
            key = os.read(fd, KEY_BYTES + 1)
        finally:
            os.close(fd)
    except FileNotFoundError:
        raise failed(
            what,
            "the key that encrypts the database is missing",
            "Put it back, or set the database aside and start anew",
        ) from None
    except OSError as error:
        raise failed(what, error.strerror or str(error), "Check its owner and mode") from None
    if len(key) != KEY_BYTES:
        raise failed(
            what, f"it holds {about.st_size} bytes instead of {KEY_BYTES}", "Put the right file back"
        )
    return StateKey(key, path)


def is_there(path: Path) -> bool:
    """False only where there is no such file: one that may not be looked at is there."""
    try:
        path.stat()
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return True


def _create(path: Path) -> bytes:
    """Write a new key so that a power cut leaves the whole file or none."""
    key = os.urandom(KEY_BYTES)
    temporary = path.with_suffix(".new")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(key)
        file.flush()
        os.fsync(file.fileno())
    os.rename(temporary, path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
    return key
