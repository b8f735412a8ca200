"""The second door: another node's API over the overlay, for its admins, and for nobody else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

import pytest
import trio

from hived.api import remote
from hived.api.remote import API
from hived.overlay.connection import Connection
from hived.overlay.networkkeys import network_id
from hived.overlay.wire import receive, send
from hived.transport.muxstream import MuxedStream
from tests.integration.conftest import NETWORK
from tests.integration.nodes import PASSWORD, Node, cluster, join
from tests.integration.peer import GONE, Door, act, key_of, peer, push, rest
from tests.integration.rawhttp import call, request
from tests.unit.hivectl.conftest import Hivectl
from tests.unit.hivectl.terminal import Terminal

SECRET = "the-admin-password"


@dataclass(frozen=True)
class Remote:
    """far has an admin; near is where people type."""

    far: Node
    near: Node
    door: Door

    def login(self, check: bool = True) -> None:
        self.near.ctl("login", "--node", "far", "--yes", "--password-stdin", stdin=SECRET + "\n", check=check)

    def token(self) -> str:
        return (
            (self.near.directory / "state" / "hive" / f"{self.door.peer_id}.{self.near.peer_id}.token")
            .read_text()
            .strip()
        )


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Remote]:
    with cluster(tmp_path_factory.mktemp("remote"), "far", "near") as (far, near):
        join(NETWORK, far, near)
        far.ctl("admin", "set", "admin", "--password-stdin", stdin=SECRET + "\n")
        yield Remote(far, near, Door.of(far))


@pytest.fixture
def door(nodes: Remote) -> Iterator[Remote]:
    """The two nodes, with nobody logged in, before and after."""
    yield nodes
    for row in nodes.far.json("sessions"):
        nodes.far.ctl("sessions", "rm", str(row["id"]))
    for path in (nodes.near.directory / "state" / "hive").glob("*"):
        path.unlink()


def test_without_login(door: Remote) -> None:
    """Not logged in: exit 4 and what to type. What any member may know needs no log-in."""
    refused = door.near.ctl("--node", "far", "status", check=False)
    assert (refused.code, refused.out) == (4, "")
    assert refused.err.endswith(f"Type: hivectl login --node {door.door.peer_id}.\n")
    version = door.near.json("version", "--node", "far")
    assert version["hived"]
    # Nor does a pipe log in to a peer for the first time, unless told so.
    first = door.near.ctl("login", "--node", "far", "--password-stdin", stdin=SECRET + "\n", check=False)
    assert first.code == 4
    assert door.door.peer_id in first.err
    assert "--yes" in first.err
    assert door.far.json("sessions") == []


def test_login_and_all_commands(door: Remote) -> None:
    """Logged in, whatever works locally works there; the session ends with logout, or when it is revoked."""
    door.login()
    near, far = door.near, door.far
    assert near.json("--node", "far", "status")["name"] == "far"
    assert near.json("status", "--node", door.door.peer_id)["peer_id"] == door.door.peer_id
    assert near.json("status")["name"] == "near"
    assert {row["name"] for row in near.json("nodes", "--node", "far")} == {"far", "near"}
    near.ctl("proxy", "add", "ingress", f"{near.peer_id}:8084", "1984", "--node", "far")
    (row,) = far.json("proxy")
    assert near.json("--node", "far", "proxy", "show", str(row["id"])) == row
    near.ctl("--node", "far", "proxy", "rm", str(row["id"]))
    assert far.json("proxy") == []
    (session,) = near.json("sessions", "--node", "far")
    assert (session["bound_to"], session["current"]) == (f"peer:{near.peer_id}", True)
    near.ctl("logout", "--node", "far")
    assert near.ctl("status", "--node", "far", check=False).code == 4
    assert near.ctl("logout", "--node", "far", check=False).code == 4

    door.login()
    (session,) = far.json("sessions")
    far.ctl("sessions", "rm", str(session["id"]))
    assert near.ctl("status", "--node", "far", check=False).code == 4


def test_errors(door: Remote) -> None:
    """Unknown, own and absent nodes each have their exit code."""
    door.login()
    near = door.near
    absent = "12D3KooWB8ZM6LtL7rcFMB4ZrUPUFotUtXDET6uBQ5Y68w3zrDrN"
    assert near.ctl("status", "--node", "nobody", check=False).code == 5
    assert near.ctl("status", "--node", "near", check=False).code == 2
    gone = near.ctl("status", "--node", absent, check=False)
    assert (gone.code, gone.err.count("\n")) == (7, 1)


def test_token_of_another(door: Remote) -> None:
    """A session's token is good for the peer that logged in, over the overlay, and nowhere else."""
    door.login()
    token = door.token()
    assert call(door.far.socket, "GET", "/v1/status", token=token).status == 401
    assert call(door.near.socket, "GET", "/v1/status", token=token).status == 401

    async def scene() -> None:
        async with peer() as thief:
            connection = await thief.join(door.door, NETWORK, "127.0.0.40")
            assert await status_of(connection, token) == 401
            assert await status_of(connection, None) == 401
            assert await status_of(connection, "") == 401

    act(scene)
    # For its owner it still is.
    assert door.near.ctl("status", "--node", "far").code == 0


async def status_of(connection: Connection, token: str | None) -> int:
    """The status that a GET /v1/status over the overlay is answered with."""
    more = "Connection: close\r\n" + (f"Authorization: Bearer {token}\r\n" if token is not None else "")
    stream = await connection.open_stream(API)
    await send(stream, remote.Open(network=network_id(NETWORK)))
    await stream.send_all(request("GET", "/v1/status", more=more))
    return int((await rest(stream)).split()[1])


def test_wrong_passwords(door: Remote) -> None:
    """A peer that guesses waits longer and longer; the node's admin at another peer does not."""

    async def scene() -> None:
        async with peer() as guesser:
            connection = await guesser.join(door.door, NETWORK, "127.0.0.41")
            for expected in (b"wrong user or password", b"after a wrong password"):
                stream = await connection.open_stream(API)
                await send(stream, remote.Open(network=network_id(NETWORK)))
                body = b'{"user":"admin","password":"guess"}'
                await stream.send_all(request("POST", "/v1/login", body, "Connection: close\r\n"))
                answer = await rest(stream)
                assert b" 403 " in answer.split(b"\r\n")[0]
                assert expected in answer
            return await trio.to_thread.run_sync(door.login)

    act(scene)
    assert door.near.ctl("status", "--node", "far").code == 0


def test_requests_that_break_off(door: Remote) -> None:
    """Garbage, bodies that are no JSON, and streams that end early are answered or dropped; far goes on."""

    async def scene() -> None:
        async with peer() as member:
            connection = await member.join(door.door, NETWORK, "127.0.0.42")
            for data in (
                b"\xff" * 300,
                b"GET /v1",
                request("POST", "/v1/login", b"\xff\xfe"),
                request("POST", "/v1/login", b"[" * 50_000),
                request("PUT", "/v1/name", b'{"name":"' + b"x" * 300_000 + b'"}'),
                request("GET", "/v1/info") * 100,
                request("POST", "/v1/tunnel/near", more="Connection: Upgrade\r\nUpgrade: hive-api\r\n"),
            ):
                stream = await connection.open_stream(API)
                await send(stream, remote.Open(network=network_id(NETWORK)))
                try:
                    await stream.send_all(data)
                    await stream.send_eof()
                except GONE:
                    pass
                answered = await rest(stream)
                assert b" 200 " not in answered.split(b"\r\n")[0] or data.startswith(b"GET /v1/info ")

    after = len(door.far.log.lines)
    act(scene)
    assert door.far.json("status")["name"] == "far"
    assert not [entry for entry in door.far.log.lines[after:] if "traceback" in entry]


def terminal(node: Node, *words: str) -> Terminal:
    return Terminal(Hivectl(node.directory, node.socket), *words)


def test_password_on_a_terminal(door: Remote) -> None:
    """The prompt names the peer ID; the first log-in asks whether it is the right one; no means no."""
    no = terminal(door.near, "status", "--node", "far")
    no.until(f"First log-in to {door.door.peer_id}")
    no.type("n")
    assert no.end()[0] == 4
    assert door.far.json("sessions") == []

    yes = terminal(door.near, "status", "--node", "far")
    yes.until(f"First log-in to {door.door.peer_id}")
    yes.type("y")
    yes.until(f"User on {door.door.peer_id}")
    yes.type("")
    yes.until(f"Password of admin on {door.door.peer_id}")
    yes.type(SECRET)
    yes.until("reachability")
    assert yes.end()[0] == 0
    assert SECRET not in yes.screen


def test_password_goes_to_its_peer_only(door: Remote) -> None:
    """While somebody types the password, the name comes to mean another node: that one gets nothing."""
    received: list[bytes] = []

    async def record(stream: MuxedStream, connection: Connection) -> None:
        await receive(stream, remote.Open)
        while data := await stream.receive_some(65536):
            received.append(data)
            await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    async def scene() -> None:
        async with peer() as thief:
            thief.host.member_handlers[API] = record
            connection = await thief.join(Door.of(door.near), NETWORK, "127.0.0.43")
            record_of = thief.sign(thief.record(NETWORK, "thief")).envelope
            assert await push(connection, NETWORK, [record_of])
            await trio.to_thread.run_sync(while_typing, thief.peer_id)

    def while_typing(thief: str) -> None:
        near = door.near
        near.ctl("nodes", "alias", "far", "server")
        try:
            screen = terminal(near, "status", "--node", "server")
            screen.until("First log-in to")
            screen.type("y")
            screen.until("User on")
            screen.type("")
            screen.until(f"Password of admin on {door.door.peer_id}")
            near.ctl("nodes", "alias", "far", "--rm")
            near.ctl("nodes", "alias", thief, "server")
            # The thief does answer: a command for it gets there.
            near.ctl("version", "--node", "server", check=False)
            assert received
            received.clear()
            screen.type(SECRET)
            code, _ = screen.end()
            assert code == 0
            assert door.door.peer_id in screen.screen.split("Password of admin")[1]
        finally:
            near.ctl("nodes", "alias", thief, "--rm", check=False)
            near.ctl("nodes", "alias", "far", "--rm", check=False)

    act(scene, 60)
    assert not any(SECRET.encode() in data for data in received)
    assert received == []


def test_blocked_node(door: Remote) -> None:
    """A blocked node's connections end and stay away, session or not; unblocked, it is back."""
    far, near = door.far, door.near
    door.login()
    far.ctl("nodes", "block", "near")
    try:
        refused = near.ctl("status", "--node", "far", check=False)
        assert (refused.code, refused.out) == (7, "")
        row = far.row(near)
        assert row is not None
        assert (row["path"], row["blocked"]) == ("none", True)
    finally:
        far.ctl("nodes", "unblock", "near")
    far.await_row(near, lambda row: bool(row["path"] == "direct"), 10)
    near.await_row(far, lambda row: bool(row["path"] == "direct"), 10)
    near.ctl("status", "--node", "far")


def test_member_that_lies_about_its_network(door: Remote) -> None:
    """The first message of the API names a network that the caller is no member of: nothing is answered."""

    async def scene() -> None:
        async with peer() as member:
            connection = await member.dial(door.door, "127.0.0.44")
            member.membership.set_network(NETWORK, key_of(NETWORK, PASSWORD))
            await member.membership.join(connection, NETWORK)
            for opening in (network_id("other"), b"", b"\xff" * 400):
                stream = await connection.open_stream(API)
                await send(stream, remote.Open(network=opening))
                with suppress(*GONE):
                    await stream.send_all(request("GET", "/v1/info"))
                assert await rest(stream) == b""

    act(scene)
