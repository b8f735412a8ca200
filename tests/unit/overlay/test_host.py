"""Listeners, dialing, and who is served what, over real sockets."""

from __future__ import annotations

import contextlib
import socket

import pytest
import trio
from trio.testing import trio_test

from hived.overlay import host as host_module
from hived.overlay.addresses import parse
from hived.overlay.connection import STREAM_ERRORS, Connection, DialError
from hived.transport.multistream import optimistic
from hived.transport.muxstream import MuxedStream
from tests.unit.overlay.parties import Logged, party, until

OPEN, CLOSED = "/test/open/1", "/test/members/1"


async def echo(stream: MuxedStream, connection: Connection) -> None:
    while data := await stream.receive_some():
        await stream.send_all(data)
    await stream.send_eof()


async def said(connection: Connection, protocol: str, text: bytes) -> bytes:
    """What an echo answers."""
    stream = await connection.open_stream(protocol)
    await stream.send_all(text)
    await stream.send_eof()
    answer = bytearray()
    while data := await stream.receive_some():
        answer += data
    return bytes(answer)


@trio_test
async def test_a_connection_both_ways(logged: Logged) -> None:
    """Both ends know who the other is, tell it, and open streams."""
    async with party("a") as alice, party("b") as bob:
        seen: list[tuple[str, str]] = []
        bob.host.on_connected.append(lambda c: seen.append(("on", c.peer_id)))
        bob.host.on_disconnected.append(lambda c: seen.append(("off", c.peer_id)))
        alice.host.handlers[OPEN] = bob.host.handlers[OPEN] = echo
        ours = await alice.dial(bob)
        await until(lambda: bool(seen))
        theirs = bob.host.find(alice.peer_id)
        assert theirs is not None
        assert (ours.peer_id, theirs.peer_id) == (bob.peer_id, alice.peer_id)
        assert (ours.initiator, theirs.initiator) == (True, False)
        assert ours.handshake_hash == theirs.handshake_hash != b""
        assert ours.address == bob.address
        assert await said(ours, OPEN, b"hello") == b"hello"
        assert await said(theirs, OPEN, b"back") == b"back"
        alice.host.close_peer(bob.peer_id)
        await until(lambda: len(seen) == 2)
        assert seen == [("on", alice.peer_id), ("off", alice.peer_id)]
        assert bob.host.find(alice.peer_id) is None
        assert alice.host.all_connections() == []
        assert not ours.is_open


@trio_test
async def test_a_host_that_stops_says_so(logged: Logged) -> None:
    async with party("b") as bob:
        gone = trio.Event()
        bob.host.on_disconnected.append(lambda connection: gone.set())
        async with party("a") as alice:
            ours = await alice.joined(bob)
            theirs = bob.host.find(alice.peer_id)
            assert theirs is not None
        assert not ours.is_open
        await gone.wait()
        assert not theirs.muxer.lost
        assert bob.host.all_connections() == []
        assert not logged.defects


@pytest.mark.parametrize("message", [bytes(32), b"\1" + bytes(31), b"", bytes(5), b"\xff" * 4000])
@pytest.mark.parametrize("suite", ["/noise", "/hive/noise-aesgcm/1.0.0"])
@trio_test
async def test_no_first_message_ends_the_host(logged: Logged, suite: str, message: bytes) -> None:
    """Points of low order among them, whose shared secrets the cryptography refuses to make."""
    async with party("a") as alice, party("b") as bob:
        end = parse(bob.address)
        async with await trio.open_tcp_stream(end.host, end.port) as stranger:
            await stranger.send_all(optimistic(suite) + len(message).to_bytes(2, "big") + message)
            await stranger.send_eof()
            with contextlib.suppress(trio.BrokenResourceError):
                while await stranger.receive_some():
                    pass
        bob.host.handlers[OPEN] = echo
        assert await said(await alice.dial(bob), OPEN, b"alive") == b"alive"


@trio_test
async def test_strangers_are_offered_less_than_members(logged: Logged) -> None:
    async with party("a") as alice, party("b") as bob:
        bob.host.handlers[OPEN] = bob.host.member_handlers[CLOSED] = echo
        connection = await alice.dial(bob)
        assert await said(connection, OPEN, b"x") == b"x"
        with pytest.raises(STREAM_ERRORS):
            await said(connection, CLOSED, b"x")
        await alice.membership.join(connection, "net")
        await until(lambda: bob.host.find(alice.peer_id, "net") is not None)
        assert await said(connection, CLOSED, b"x") == b"x"
        with pytest.raises(STREAM_ERRORS):
            await said(connection, "/no/such/protocol", b"x")


@trio_test
async def test_streams_of_a_stranger_are_bounded(logged: Logged) -> None:
    async with party("a") as alice, party("b") as bob:
        bob.host.handlers[OPEN] = echo
        connection = await alice.dial(bob)
        held = [await connection.open_stream(OPEN) for _ in range(host_module.MAX_STRANGER_STREAMS)]
        with pytest.raises(STREAM_ERRORS):
            await connection.open_stream(OPEN)
        held[0].reset()
        theirs = bob.host.find(alice.peer_id)
        assert theirs is not None
        await until(lambda: theirs.streams < host_module.MAX_STRANGER_STREAMS)
        assert await said(connection, OPEN, b"x") == b"x"


@trio_test
async def test_strangers_are_bounded_and_the_oldest_goes(
    logged: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A member's connection never is the one that goes."""
    monkeypatch.setattr(host_module, "MAX_STRANGERS", 2)
    async with party("a") as alice, party("b") as bob:
        member = await alice.joined(bob)
        strangers = [await alice.dial(bob) for _ in range(4)]
        await until(lambda: sum(c.is_open for c in strangers) == 2)
        assert [c.is_open for c in strangers] == [False, False, True, True]
        assert member.is_open
    assert logged.having("too many strangers")


@trio_test
async def test_a_failing_handler_ends_its_stream_only() -> None:
    """Not the connection, and not the host. (Its traceback is in the log.)"""

    async def fails(stream: MuxedStream, connection: Connection) -> None:
        await stream.receive_some(1)
        raise RuntimeError("a defect")

    async with party("a") as alice, party("b") as bob:
        bob.host.handlers.update({OPEN: echo, "/fails": fails})
        connection = await alice.dial(bob)
        for _ in range(3):
            stream = await connection.open_stream("/fails")
            await stream.send_all(b"x")
            with pytest.raises(STREAM_ERRORS):
                await stream.receive_some(1)
        assert await said(connection, OPEN, b"x") == b"x"
        theirs = bob.host.find(alice.peer_id)
        assert theirs is not None
        await until(lambda: theirs.streams == 0)


# Dialing


async def why_not(dial: object) -> str:
    with pytest.raises(DialError) as caught:
        await dial  # type: ignore[misc]  # any awaitable
    return str(caught.value)


@trio_test
async def test_reasons_for_a_failed_dial(logged: Logged) -> None:
    """Each for people, without the address that the caller names anyway."""
    async with party("a") as alice, party("b") as bob, party("c") as carol:
        with socket.create_server(("127.0.0.1", 0)) as mute:
            gone = mute.getsockname()[1]
        dial = alice.host.dial
        assert await why_not(dial(f"/ip4/127.0.0.1/tcp/{gone}", bob.peer_id)) == "connection refused"
        assert (
            await why_not(dial("/dns/no-such-host.invalid/tcp/1", bob.peer_id))
            == "the host name is not known"
        )
        assert await why_not(dial(carol.address, bob.peer_id)) == "another node answers there"
        assert await why_not(dial(alice.address, alice.peer_id)) == "this is the node itself"
        alice.blocked.add(bob.peer_id)
        assert await why_not(dial(bob.address, bob.peer_id)) == "the peer is blocked"
        assert alice.host.all_connections() == []
        await until(lambda: bob.host.all_connections() == [])


@trio_test
async def test_a_blocked_peer_is_turned_away(logged: Logged) -> None:
    async with party("a") as alice, party("b") as bob:
        bob.blocked.add(alice.peer_id)
        try:
            connection = await alice.dial(bob)
        except DialError:
            return
        with trio.fail_after(5):
            await connection.muxer.closed.wait()
        assert bob.host.find(alice.peer_id) is None


@trio_test
async def test_a_name_is_resolved() -> None:
    async with party("a") as alice, party("b") as bob:
        port = bob.address.rsplit("/", 1)[1]
        assert (await alice.host.dial(f"/dns4/localhost/tcp/{port}", bob.peer_id)).is_open


@trio_test
async def test_both_ends_prefer_the_same_connection() -> None:
    """Where both dialled: the one that the smaller peer ID dialled."""
    async with party("a") as alice, party("b") as bob:
        one, two = await alice.dial(bob), await bob.dial(alice)
        await until(lambda: len(alice.host.all_connections()) == len(bob.host.all_connections()) == 2)
        ours, theirs = alice.host.find(bob.peer_id), bob.host.find(alice.peer_id)
        assert ours is not None
        assert theirs is not None
        assert ours.handshake_hash == theirs.handshake_hash
        assert ours.handshake_hash == (one if alice.peer_id < bob.peer_id else two).handshake_hash


@trio_test
async def test_the_end_closes_every_connection() -> None:
    async with party("a") as alice:
        async with party("b") as bob:
            connection = await alice.dial(bob)
        await connection.muxer.closed.wait()
        await until(lambda: not alice.host.all_connections())
