"""The Unix socket's door: who may connect, many at once, watches, and tunnels to another node."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import stat
from pathlib import Path

import pytest
import trio
from trio.testing import trio_test

from hived.api import server
from hived.daemon import Daemon
from hived.errors import HiveError, Kind
from tests.integration.nodes import free_port
from tests.unit.api.doors import ROOT, call, node, raw
from tests.unit.api.test_calls import PASSWORD, STRANGER, ok

GET = b"GET /v1/info HTTP/1.1\r\nHost: x\r\n\r\n"


async def connect(daemon: Daemon) -> trio.SocketStream:
    return await trio.open_unix_socket(str(daemon.config.socket))


async def read_until(stream: trio.abc.ReceiveStream, text: bytes) -> bytes:
    got = bytearray()
    while text not in got:
        part = await stream.receive_some()
        assert part, bytes(got)
        got += part
    return bytes(got)


@trio_test
async def test_a_hundred_clients_at_once(tmp_path: Path) -> None:
    """While as many silent ones are connected."""
    async with node(tmp_path) as daemon:
        silent = [await connect(daemon) for _ in range(50)]
        done: list[bytes] = []

        async def one() -> None:
            async with await connect(daemon) as stream:
                await stream.send_all(GET)
                done.append(await read_until(stream, b"}"))

        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(one)
        assert len(done) == 100
        assert all(answer.startswith(b"HTTP/1.1 200 ") for answer in done)
        for stream in silent:
            await stream.aclose()


@trio_test
async def test_keep_alive_pipelining_and_garbage(tmp_path: Path) -> None:
    async with node(tmp_path) as daemon:
        assert (await raw(daemon, GET * 3)).count(b"HTTP/1.1 200 ") == 3
        for garbage in (b"\x00\x01\r\n\r\n", b"GET\r\n\r\n", b"GET //[ HTTP/1.1\r\nHost: x\r\n\r\n"):
            assert (await raw(daemon, garbage)).startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 404 ")), garbage
        assert await raw(daemon, b"") == b""
        assert (await call(daemon, "GET", "/v1/info")).status == 200


@trio_test
async def test_a_watch_tells_each_change_and_ends_with_its_client(tmp_path: Path) -> None:
    async with node(tmp_path) as daemon:
        stream = await connect(daemon)
        await stream.send_all(b"GET /v1/status?watch=true HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b'"name":"alpha"' in await read_until(stream, b'"name":"alpha"')
        await ok(daemon, "PUT", "/v1/name", {"name": "omega"})
        await read_until(stream, b'"name":"omega"')
        await stream.aclose()
        with trio.fail_after(5):
            while daemon.server._clients.borrowed_tokens > 1:  # the one that waits in accept  # noqa: ASYNC110
                await trio.sleep(0.005)


@trio_test
async def test_a_defect_in_a_call_is_one_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with node(tmp_path) as daemon:
        monkeypatch.setattr(daemon.node, "name", lambda: 1 / 0)
        answer = await call(daemon, "GET", "/v1/info")
        assert (answer.status, answer.kind) == (500, "failed")
        assert "ZeroDivision" not in json.dumps(answer.json)
        assert (await call(daemon, "GET", "/v1/networks")).status == 200


@trio_test
async def test_a_tunnel_to_another_node(tmp_path: Path) -> None:
    """The other node's API over the overlay: info at once, more only with a session there, none from afar."""
    async with node(tmp_path, "alpha") as alpha, node(tmp_path, "beta") as beta:
        for daemon in (alpha, beta):
            await ok(daemon, "POST", "/v1/networks", {"name": "net", "password": PASSWORD})
        await ok(beta, "POST", "/v1/register", {"identity": (await ok(alpha, "GET", "/v1/id"))["identity"]})
        await ok(alpha, "PUT", "/v1/admins/me", {"password": PASSWORD})
        path = f"/v1/tunnel/{alpha.identity.peer_id}"
        plain = await call(beta, "POST", path)
        assert plain.kind == "usage"
        stream = await connect(beta)
        await stream.send_all(
            f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: hive-api\r\n\r\n".encode()
        )
        head = await read_until(stream, b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 ")
        assert alpha.identity.peer_id.encode() in head
        await stream.send_all(GET)
        assert b'"name":"alpha"' in await read_until(stream, b"}")
        await stream.send_all(b"GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"HTTP/1.1 401 " in await read_until(stream, b"}")
        body = json.dumps({"user": "me", "password": PASSWORD}).encode()
        await stream.send_all(
            b"POST /v1/login HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        )
        answer = await read_until(stream, b"}")
        token = json.loads(answer.split(b"\r\n\r\n")[1])["token"]
        bearer = f"Host: x\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
        await stream.send_all(b"GET /v1/sessions HTTP/1.1\r\n" + bearer)
        assert f"peer:{beta.identity.peer_id}".encode() in await read_until(stream, b"]")
        onward = f"POST /v1/tunnel/{beta.identity.peer_id} HTTP/1.1\r\n"
        upgrade = b"Upgrade: hive-api\r\nConnection: Upgrade\r\n"
        await stream.send_all(onward.encode() + upgrade + bearer)
        assert b"HTTP/1.1 403 " in await read_until(stream, b"}")
        await stream.aclose()
        # The token is bound to beta's peer ID: on alpha's own socket it is nothing.
        assert (await call(alpha, "GET", "/v1/sessions", None, ROOT, token)).status == 401


@trio_test
async def test_a_forward_lives_as_long_as_its_caller(tmp_path: Path) -> None:
    async with node(tmp_path, "alpha") as alpha:
        await ok(alpha, "POST", "/v1/networks", {"name": "net", "password": PASSWORD})
        port = free_port()
        body = json.dumps({"peer": STRANGER.peer_id, "peer_port": 80, "port": port}).encode()
        stream = await connect(alpha)
        head = f"POST /v1/forward HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        await stream.send_all(head.encode() + body)
        assert b'"event":"listening"' in await read_until(stream, b'listening"')
        assert (await call(alpha, "POST", "/v1/forward", body)).kind == "conflict"
        client = await trio.open_tcp_stream("127.0.0.1", port)
        with pytest.raises(trio.BrokenResourceError):
            await client.receive_some()
        assert b"no address of it is known" in await read_until(stream, b"known")
        await stream.aclose()
        with trio.fail_after(5):
            while True:
                with contextlib.suppress(OSError):
                    socket.create_server(("127.0.0.1", port)).close()  # the port is free again
                    break
                await trio.sleep(0.01)


# The socket file


def test_the_socket_is_never_open_wider(tmp_path: Path) -> None:
    async def main() -> None:
        listener = server.listen(tmp_path / "s")
        assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == server.SOCKET_MODE
        with pytest.raises(HiveError) as caught:
            server.listen(tmp_path / "s")
        assert caught.value.kind is Kind.CONFLICT
        listener.socket.close()
        server.listen(tmp_path / "s").socket.close()  # what a dead one left is taken over
        server.remove(tmp_path / "s")
        server.remove(tmp_path / "s")
        assert list(tmp_path.iterdir()) == []  # noqa: ASYNC240 - a test may block

    before = os.umask(0)
    try:
        trio.run(main)
        assert os.umask(0) == 0
    finally:
        os.umask(before)


def test_what_is_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    for path, kind in ((tmp_path / "file", Kind.CONFLICT), (tmp_path / "file/s", Kind.FAILED)):
        with pytest.raises(HiveError) as caught:
            server.listen(path)
        assert caught.value.kind is kind
    server.remove(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "precious"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "left"))
    server.remove(tmp_path / "left")
    assert not (tmp_path / "left").exists()
