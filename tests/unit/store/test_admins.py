"""Users and their sessions."""

from __future__ import annotations

from pathlib import Path

from trio.testing import trio_test

from hived.store.admins import Admins
from tests.unit.store.stores import opened


@trio_test
async def test_create_only_makes_what_is_not_there(tmp_path: Path) -> None:
    async with opened(tmp_path) as database:
        admins = Admins(database)
        assert await admins.create("me", "one")
        assert not await admins.create("me", "two")
        found = await admins.get("me")
        assert found is not None
        assert found.hash == "one"
        assert await admins.get("you") is None
        assert [admin.user for admin in await admins.all()] == ["me"]


@trio_test
async def test_a_new_password_ends_the_sessions(tmp_path: Path) -> None:
    async with opened(tmp_path) as database:
        admins = Admins(database)
        await admins.set("me", "one")
        await admins.set("you", "one")
        await admins.open_session(b"1", "me", "uid:1", 60)
        await admins.open_session(b"2", "you", "uid:2", 60)
        await admins.set("me", "two")
        assert await admins.find_session(b"1") is None
        assert await admins.find_session(b"2") is not None
        changed = await admins.get("me")
        assert changed is not None
        assert changed.hash == "two"


@trio_test
async def test_removing_a_user_ends_the_sessions(tmp_path: Path) -> None:
    async with opened(tmp_path) as database:
        admins = Admins(database)
        await admins.set("me", "one")
        await admins.open_session(b"1", "me", "uid:1", 60)
        assert await admins.remove("me")
        assert not await admins.remove("me")
        assert await admins.find_session(b"1") is None
        assert await admins.sessions() == []


@trio_test
async def test_sessions(tmp_path: Path) -> None:
    async with opened(tmp_path) as database:
        admins = Admins(database)
        await admins.set("me", "one")
        session = await admins.open_session(b"1", "me", "peer:x", 60)
        assert session.expires == session.created + 60
        assert await admins.find_session(b"1") == session
        assert await admins.find_session(b"2") is None
        assert await admins.sessions() == [session]
        assert await admins.close_session(session.id)
        assert not await admins.close_session(session.id)
        assert await admins.find_session(b"1") is None


@trio_test
async def test_an_expired_session_is_none(tmp_path: Path) -> None:
    async with opened(tmp_path) as database:
        admins = Admins(database)
        await admins.set("me", "one")
        await admins.open_session(b"old", "me", "uid:1", -1)
        assert await admins.find_session(b"old") is None
        assert await admins.sessions() == []
        await admins.open_session(b"new", "me", "uid:1", 60)
        assert await database.run(lambda db: db["session"].count()) == 1  # the old one is swept away
