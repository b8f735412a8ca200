"""Who comes in: garbage, silence and floods; listeners that change."""

from __future__ import annotations

import contextlib
import socket

import pytest
import trio
from trio.testing import trio_test

from hived.errors import HiveError, Kind
from hived.overlay import inbound
from hived.overlay.identify import PING
from tests.unit.overlay.parties import Logged, party, until
from tests.unit.overlay.test_host import echo, said, why_not


@trio_test
async def test_garbage_on_the_listener(logged: Logged) -> None:
    """What speaks no Hive is let go, and the listener goes on."""
    async with party("a") as alice, party("b") as bob:
        port = int(bob.address.rsplit("/", 1)[1])
        for text in (b"GET / HTTP/1.1\r\n\r\n", b"\x00" * 100, b"\xff" * 5000, b""):
            stream = await trio.open_tcp_stream("127.0.0.1", port)
            try:
                await stream.send_all(text)
                await stream.send_eof()
                while await stream.receive_some():
                    pass
            except trio.BrokenResourceError:
                pass
            await stream.aclose()
        assert (await alice.dial(bob)).is_open


@trio_test
async def test_silent_connections_make_room(logged: Logged, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half-open handshakes hold nobody up: the one that is silent longest goes."""
    monkeypatch.setattr(inbound, "MAX_HANDSHAKES", 3)
    async with party("a") as alice, party("b") as bob:
        port = int(bob.address.rsplit("/", 1)[1])
        silent = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(3)]
        await until(lambda: len(bob.host.inbound.handshakes) == 3)
        assert (await alice.dial(bob)).is_open
        with pytest.raises(trio.BrokenResourceError):
            while await silent[0].receive_some():
                pass
            raise trio.BrokenResourceError  # an orderly end is as good
        for stream in silent:
            await stream.aclose()
    assert logged.having("more connections than are worth a handshake")


@trio_test
async def test_a_flood_is_turned_away_and_a_members_address_is_not(logged: Logged) -> None:
    """From 127.0.0.2 more connections than are worth a handshake; from 127.0.0.1 a member came before."""
    async with party("a") as alice, party("b") as bob:
        await alice.joined(bob)
        port = int(bob.address.rsplit("/", 1)[1])
        flood = []
        for _ in range(60):
            sock = trio.socket.socket()
            await sock.bind(("127.0.0.2", 0))
            with contextlib.suppress(ConnectionResetError):
                await sock.connect(("127.0.0.1", port))
            flood.append(sock)
        await until(lambda: bool(logged.having("more connections than are worth a handshake")))
        assert (await alice.dial(bob)).is_open
        for sock in flood:
            sock.close()


@trio_test
async def test_a_taken_port_changes_nothing() -> None:
    async with party("a") as alice:
        before = alice.host.listening
        with socket.create_server(("127.0.0.1", 0)) as taken:
            wanted = f"/ip4/127.0.0.1/tcp/{taken.getsockname()[1]}"
            with pytest.raises(HiveError) as caught:
                alice.host.listen(["/ip4/127.0.0.2/tcp/0", wanted])
        assert caught.value.kind is Kind.CONFLICT
        assert wanted in caught.value.line()
        assert alice.host.listening == before


@pytest.mark.parametrize("address", ["/dns/localhost/tcp/0", "/ip4/192.0.2.1/tcp/0"])
def test_what_cannot_be_listened_on(address: str) -> None:
    async def main() -> None:
        async with party("a") as alice:
            with pytest.raises(HiveError, match="listening on"):
                alice.host.listen([address])

    trio.run(main)


@trio_test
async def test_listeners_change_and_connections_stay() -> None:
    async with party("a") as alice, party("b") as bob:
        bob.host.handlers[PING] = echo
        connection, old = await alice.dial(bob), bob.address
        bob.host.listen(["/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.2/tcp/0"])
        assert bob.host.listening[0] == old  # the same wish, the same socket
        assert len(bob.host.listening) == 2
        bob.host.stop_listening()
        assert bob.host.listening == []
        assert await why_not(alice.host.dial(old, bob.peer_id)) == "connection refused"
        assert await said(connection, PING, b"x") == b"x"
