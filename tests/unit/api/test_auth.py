"""Who may do what: log-ins, their delays, and sessions bound to whom they were opened by."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from trio.testing import trio_test

from hived.api.auth import OVERFLOW_UID, Auth, Caller
from hived.api.passwords import HashingThread, encode_hash, hash_password
from hived.errors import HiveError, Kind
from hived.store.admins import Admins
from tests.unit.store.stores import opened

USER, OTHER = Caller(uid=1234), Caller(uid=1235)
MEMBER, STRANGER = Caller(peer_id="peer-a"), Caller(peer_id="peer-b")
PHC = hash_password("right")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def auth(directory: Path) -> AsyncIterator[tuple[Auth, Clock, Admins]]:
    clock = Clock()
    async with opened(directory) as database:
        admins = Admins(database)
        await admins.set("me", PHC)
        yield Auth(admins, HashingThread(), clock), clock, admins


async def denied(awaitable: object) -> HiveError:
    with pytest.raises(HiveError) as caught:
        await awaitable  # type: ignore[misc]  # any awaitable
    return caught.value


def test_callers() -> None:
    assert (USER.binding, MEMBER.binding) == ("uid:1234", "peer:peer-a")
    assert Caller(uid=0).is_admin
    assert Caller(uid=os.geteuid()).is_admin
    assert not USER.is_admin
    assert not MEMBER.is_admin
    assert not Caller(uid=OVERFLOW_UID).owns_node
    assert not Caller(uid=0, peer_id="x").is_admin  # a remote caller is nobody's uid


@trio_test
async def test_a_session_belongs_to_whom_it_was_opened_by(tmp_path: Path) -> None:
    """A stolen token is worth nothing to another user or another peer."""
    async with auth(tmp_path) as (it, _, _admins):
        for owner, others in ((USER, (OTHER, MEMBER, Caller(uid=0))), (MEMBER, (STRANGER, USER))):
            token, session = await it.login(owner, "me", "right")
            assert (await it.identify(owner, token)).session == session
            assert (await it.identify(owner, token)).is_admin
            for thief in others:
                assert (await denied(it.identify(thief, token))).kind is Kind.LOGIN_REQUIRED
            assert (await denied(it.identify(owner, token + "x"))).kind is Kind.LOGIN_REQUIRED
        assert await it.identify(USER, None) == USER


@trio_test
async def test_the_token_is_not_in_the_store(tmp_path: Path) -> None:
    async with auth(tmp_path) as (it, _, _admins):
        token, _ = await it.login(USER, "me", "right")
        data = b"".join(path.read_bytes() for path in tmp_path.iterdir())  # noqa: ASYNC240 - a test may block
        assert token.encode() not in data
        assert b"right" not in data


@trio_test
async def test_an_ended_session(tmp_path: Path) -> None:
    async with auth(tmp_path) as (it, _, admins):
        token, session = await it.login(USER, "me", "right")
        await admins.close_session(session.id)
        assert (await denied(it.identify(USER, token))).kind is Kind.LOGIN_REQUIRED
        token, session = await it.login(USER, "me", "right")
        connection = sqlite3.connect(tmp_path / "hive.db")
        connection.execute("UPDATE session SET expires = 1")
        connection.commit()
        connection.close()
        assert (await denied(it.identify(USER, token))).kind is Kind.LOGIN_REQUIRED


@trio_test
async def test_wrong_passwords_are_delayed_per_caller(tmp_path: Path) -> None:
    """An unknown user looks the same; the right password has to wait too; another caller has not."""
    async with auth(tmp_path) as (it, clock, _):
        texts = []
        for user, delay in (("me", 1.0), ("nobody", 2.0)):
            error = await denied(it.login(USER, user, "wrong"))
            assert error.kind is Kind.DENIED
            texts.append(error.why)
            assert "has to wait" in (await denied(it.login(USER, "me", "right"))).why
            clock.now += delay
        assert texts == ["wrong user or password"] * 2
        clock.now += 10
        await it.login(USER, "me", "right")
        await denied(it.login(USER, "me", "wrong"))
        clock.now += 5
        await it.login(OTHER, "me", "right")


@trio_test
async def test_the_overflow_user_gets_no_session(tmp_path: Path) -> None:
    async with auth(tmp_path) as (it, _, admins):
        error = await denied(it.login(Caller(uid=OVERFLOW_UID), "me", "right"))
        assert error.kind is Kind.DENIED
        assert await admins.sessions() == []


@trio_test
async def test_setting_a_password(tmp_path: Path) -> None:
    """Root needs no old one; who is logged in does; the sessions end."""
    async with auth(tmp_path) as (it, clock, admins):
        token, session = await it.login(USER, "me", "right")
        caller = replace(USER, session=session)
        assert "old password is needed" in (await denied(it.set_password(caller, "me", "new", None))).why
        assert "wrong" in (await denied(it.set_password(caller, "me", "new", "wrong"))).why
        clock.now += 100
        await it.set_password(caller, "me", encode_hash(PHC), "right")
        assert (await denied(it.identify(USER, token))).kind is Kind.LOGIN_REQUIRED
        await it.set_password(caller, "you", "fresh", None)
        await it.login(OTHER, "you", "fresh")
        await it.set_password(Caller(uid=0), "me", "by-root", None)
        await it.login(OTHER, "me", "by-root")
        assert (await denied(it.set_password(Caller(uid=0), "me", "hash_nonsense", None))).kind is Kind.USAGE
        assert [admin.user for admin in await admins.all()] == ["me", "you"]


@trio_test
async def test_the_first_admin_of_a_configuration(tmp_path: Path) -> None:
    async with auth(tmp_path) as (it, _, _admins):
        assert not await it.create("me", "other")
        assert await it.create("you", encode_hash(PHC))
        await it.login(USER, "you", "right")
        assert not await it.differs("me", "right")
        assert await it.differs("me", "wrong")
        assert not await it.differs("me", PHC)
        assert await it.differs("me", hash_password("right"))
        assert not await it.differs("nobody", "x")


@trio_test
async def test_a_remote_caller_tries_one_password_at_a_time(tmp_path: Path) -> None:
    """Else as many are checked as come before the first is known to be wrong."""
    async with auth(tmp_path) as (it, _, _):
        reasons: list[str] = []

        async def one() -> None:
            reasons.append((await denied(it.login(MEMBER, "me", "wrong"))).why)

        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(one)
        assert sorted(reasons) == [
            "another log-in from there is being checked",
            "another log-in from there is being checked",
            "another log-in from there is being checked",
            "wrong user or password",
        ]
        await it.login(STRANGER, "me", "right")
