"""Argon2id password hashes, and the niced thread that computes them one at a time.

``hash_...`` is base64url of the PHC string, safe in shells, compose files and units.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import os
import queue
import threading
from collections.abc import Callable
from typing import Any

import argon2
import outcome
import trio
from argon2.exceptions import InvalidHashError, VerificationError

from ..errors import HiveError, Kind, usage

PREFIX = "hash_"
MAX_WAITING = 32
MAX_REMOTE = 24
_NICE = 10
# Memory (KiB), passes and lanes of a hash that an admin brings along.
_MAX_COSTS = (1024 * 1024, 64, 64)


def hash_password(password: str) -> str:
    """The PHC string of a password (blocking, about 0.1 s)."""
    return argon2.PasswordHasher().hash(password)


def verify_password(phc: str, password: str) -> bool:
    """Whether the password fits (blocking, about 0.1 s)."""
    try:
        return argon2.PasswordHasher().verify(phc, password)
    except (VerificationError, InvalidHashError):
        return False


def encode_hash(phc: str) -> str:
    """``hash_`` and base64url of a PHC string."""
    return PREFIX + base64.urlsafe_b64encode(phc.encode()).rstrip(b"=").decode()


def decode_hash(text: str) -> str | None:
    """The PHC string when ``text`` is ``hash_...`` or a PHC string itself; None for a plain password.

    Raises HiveError (usage) for ``hash_...`` that holds none.
    """
    if text.startswith("$argon2"):
        phc = text
    elif text.startswith(PREFIX):
        body = text.removeprefix(PREFIX)
        try:
            phc = base64.b64decode(body + "=" * (-len(body) % 4), altchars=b"-_", validate=True).decode(
                "ascii"
            )
        except (binascii.Error, ValueError):
            phc = ""
    else:
        return None
    try:
        parameters = argon2.extract_parameters(phc)
        costs = (parameters.memory_cost, parameters.time_cost, parameters.parallelism)
        if not phc.isascii() or any(cost > most for cost, most in zip(costs, _MAX_COSTS, strict=True)):
            raise InvalidHashError
    except (InvalidHashError, ValueError):
        raise usage(
            "reading the password hash failed", "it is no Argon2 hash", "Make one with: hived hash-password"
        ) from None
    return phc


class HashingThread:
    """Computes hashes away from the event loop, at low priority, one at a time."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._waiting = 0
        self._dummy = ""
        threading.Thread(target=self._work, name="hive-argon2", daemon=True).start()

    def __enter__(self) -> HashingThread:
        return self

    def __exit__(self, *_: object) -> None:
        """The thread ends when it has done what waits."""
        self._jobs.put(None)

    async def hash(self, password: str) -> str:
        return str(await self._run(lambda: hash_password(password)))

    async def verify(self, phc: str | None, password: str, *, is_local: bool = True) -> bool:
        """Whether the password fits; None (an unknown user) takes as long and never fits.

        Callers over the overlay have a part of the places only.
        """

        def work() -> bool:
            self._dummy = self._dummy or hash_password("")
            return verify_password(phc or self._dummy, password) and phc is not None

        return bool(await self._run(work, MAX_WAITING if is_local else MAX_REMOTE))

    async def _run(self, function: Callable[[], Any], places: int = MAX_WAITING) -> Any:
        if self._waiting >= places:
            raise HiveError(
                Kind.DENIED,
                "checking the password failed",
                "too many log-ins at once",
                "Try again in a moment",
            )
        token, done = trio.lowlevel.current_trio_token(), trio.Event()
        results: list[outcome.Outcome[Any]] = []

        def job() -> None:
            results.append(outcome.capture(function))
            with contextlib.suppress(trio.RunFinishedError):
                token.run_sync_soon(done.set)

        self._waiting += 1
        try:
            self._jobs.put(job)
            # Shielded: a caller that vanishes must not free its place while its job still waits.
            with trio.CancelScope(shield=True):
                await done.wait()
        finally:
            self._waiting -= 1
        return results[0].unwrap()

    def _work(self) -> None:
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
        while (job := self._jobs.get()) is not None:
            job()
