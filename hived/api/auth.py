"""Who is calling, log-ins and sessions (DESIGN.md, Who you are)."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass

import trio

from ..errors import HiveError, Kind, denied
from ..logs import Log
from ..overlay.guesses import Guesses
from ..store.admins import Admins, Session
from .passwords import HashingThread, decode_hash

log = Log("hived.api.auth")

SESSION_SECONDS = 12 * 3600.0
OVERFLOW_UID = 65534
_TOTAL = "total"


@dataclass(frozen=True)
class Caller:
    """Who is at the other end: a local ``uid`` or a member ``peer_id``, and its session if it has one."""

    uid: int | None = None
    peer_id: str | None = None
    session: Session | None = None

    @property
    def binding(self) -> str:
        """What a session of this caller is bound to."""
        return f"peer:{self.peer_id}" if self.peer_id else f"uid:{self.uid}"

    @property
    def is_local(self) -> bool:
        return self.peer_id is None

    @property
    def owns_node(self) -> bool:
        """Root and hived's own user need no log-in: the node's files are theirs anyway."""
        return self.is_local and self.uid in (0, os.geteuid()) and self.uid != OVERFLOW_UID

    @property
    def is_admin(self) -> bool:
        return self.owns_node or self.session is not None


class Auth:
    """Log-ins against the store, with growing delays for each caller and in total."""

    def __init__(self, store: Admins, hashing: HashingThread, clock: Callable[[], float]) -> None:
        self._store = store
        self._hashing = hashing
        self._clock = clock
        self._guesses = Guesses(first_delay=1.0)
        self._total = Guesses(first_delay=0.05, max_delay=2.0)
        self._trying: set[str] = set()

    async def login(self, caller: Caller, user: str, password: str) -> tuple[str, Session]:
        """Check a password and open a session: (token, session). Raises HiveError (denied)."""
        what = f"logging in as {user} failed"
        if caller.is_local and caller.uid == OVERFLOW_UID:
            raise denied(
                what, "your user ID does not exist on this machine", "Log in from outside the container"
            )
        await self._check(caller, user, password, what)
        token = secrets.token_urlsafe(32)
        session = await self._store.open_session(_digest(token), user, caller.binding, SESSION_SECONDS)
        log.info("logged in", user=user, caller=caller.binding)
        return token, session

    async def identify(self, caller: Caller, token: str | None) -> Caller:
        """The caller with the session of its token. Raises HiveError (login-required) for a dead one."""
        if token is None:
            return caller
        session = await self._store.find_session(_digest(token))
        if session is None or session.bound_to != caller.binding:
            raise HiveError(
                Kind.LOGIN_REQUIRED, "checking the session failed", "it has ended", "Log in: hivectl login"
            )
        return Caller(caller.uid, caller.peer_id, session)

    async def set_password(self, caller: Caller, user: str, password: str, old: str | None) -> None:
        """Create a user, or change a password: that needs the old one unless the caller owns the node."""
        existing = await self._store.get(user)
        if existing is not None and not caller.owns_node:
            what = f"changing the password of {user} failed"
            if old is None:
                raise denied(
                    what, "the old password is needed", "Give it, or run: sudo hivectl admin set " + user
                )
            await self._check(caller, user, old, what)
        await self._store.set(user, decode_hash(password) or await self._hashing.hash(password))
        log.info("admin set", user=user, caller=caller.binding)

    async def create(self, user: str, password: str) -> bool:
        """The first admin from flags or configuration: False, and no change, when there is such a user."""
        if await self._store.get(user) is not None:
            return False
        return await self._store.create(user, decode_hash(password) or await self._hashing.hash(password))

    async def differs(self, user: str, password: str) -> bool:
        """Whether a configured password is another than the stored one."""
        existing = await self._store.get(user)
        given = decode_hash(password)
        if existing is None:
            return False
        return given != existing.hash if given else not await self._hashing.verify(existing.hash, password)

    async def _check(self, caller: Caller, user: str, password: str, what: str) -> None:
        now = self._clock()
        wait = self._guesses.wait(caller.binding, now)
        if wait > 0:
            raise denied(
                what,
                "after a wrong password the next try has to wait",
                f"Try again in {max(1, round(wait))} s",
            )
        if not caller.is_local and caller.binding in self._trying:
            raise denied(what, "another log-in from there is being checked", "Try again in a moment")
        self._guesses.begin(caller.binding, now)
        self._trying.add(caller.binding)
        try:
            await self._verify(caller, user, password, what)
        finally:
            self._trying.discard(caller.binding)

    async def _verify(self, caller: Caller, user: str, password: str, what: str) -> None:
        now = self._clock()
        # What others got wrong slows a caller down, but cannot lock it out.
        await trio.sleep(self._total.wait(_TOTAL, now))
        admin = await self._store.get(user)
        if not await self._hashing.verify(admin.hash if admin else None, password, is_local=caller.is_local):
            delay = self._guesses.failed(caller.binding, self._clock())
            self._total.failed(_TOTAL, self._clock())
            log.warning(
                "log-in refused",
                user=user,
                caller=caller.binding,
                failures=self._guesses.failures(caller.binding),
                next_try_in=f"{delay:g}s",
            )
            raise denied(what, "wrong user or password", "Check both and try again")
        self._guesses.succeeded(caller.binding)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
