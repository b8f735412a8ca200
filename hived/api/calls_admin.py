"""Calls about admin users and their sessions."""

from __future__ import annotations

from ..errors import not_found, usage
from ..schema import AdminRow, Done, Login, LoginRequest, SessionRow, SetAdmin, check_name
from .auth import Caller
from .node import Node, rfc3339


async def login(node: Node, caller: Caller, body: LoginRequest) -> Login:
    """Open a session of 12 hours, bound to the caller's user ID or peer ID."""
    token, session = await node.auth.login(caller, body.user, body.password)
    return Login(token=token, user=session.user, expires=rfc3339(session.expires) or "")


async def logout(node: Node, caller: Caller) -> Done:
    """End the session that the call was made with."""
    if caller.session is None:
        return Done(note="there was no session")
    await node.admins.close_session(caller.session.id)
    return Done()


async def sessions(node: Node, caller: Caller) -> list[SessionRow]:
    """Who is logged in."""
    return [
        SessionRow(
            id=s.id,
            user=s.user,
            bound_to=s.bound_to,
            created=rfc3339(s.created) or "",
            expires=rfc3339(s.expires) or "",
            current=caller.session is not None and caller.session.id == s.id,
        )
        for s in await node.admins.sessions()
    ]


async def end_session(node: Node, caller: Caller, session_id: str) -> Done:
    """End any session."""
    if not session_id.isdecimal() or not await node.admins.close_session(int(session_id[:18])):
        raise not_found(
            f"ending session {session_id} failed", "there is none with this ID", "See hivectl sessions"
        )
    return Done()


async def admins(node: Node, caller: Caller) -> list[AdminRow]:
    """The admin users."""
    return [AdminRow(user=a.user, created=rfc3339(a.created) or "") for a in await node.admins.all()]


async def set_admin(node: Node, caller: Caller, user: str, body: SetAdmin) -> Done:
    """Create an admin user, or change its password; its sessions end then."""
    if not check_name(user):
        raise usage(
            "setting the admin failed", f"{user!r} is no valid name", "Names are 1 to 63 of a-z A-Z 0-9 . _ -"
        )
    await node.auth.set_password(caller, user, body.password, body.old_password)
    return Done()


async def remove_admin(node: Node, caller: Caller, user: str) -> Done:
    """Remove an admin user; its sessions end."""
    if not await node.admins.remove(user):
        raise not_found(f"removing admin {user} failed", "there is no such user", "See hivectl admin")
    return Done()
