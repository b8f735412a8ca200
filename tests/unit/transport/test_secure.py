"""From a pipe to a secured one: who answers is who was meant, and whoever stays silent or lies is let go."""

from __future__ import annotations

import os
import socket

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, memory_stream_pair, trio_test

from hived.overlay.identity import Identity
from hived.transport.secure import (
    HANDSHAKE_SECONDS,
    MAX_PLAINTEXT,
    HandshakeError,
    RawPipe,
    Secured,
    Upgrader,
    negotiate,
    select,
)

ALICE, BOB = (Identity.from_seed(letter * 32) for letter in (b"a", b"b"))


async def secured(expected: str = BOB.peer_id) -> tuple[Secured, Secured]:
    """Both ends, over a socket pair."""
    ends = [trio.SocketStream(trio.socket.from_stdlib_socket(sock)) for sock in socket.socketpair()]
    made: dict[str, Secured] = {}

    async def answer() -> None:
        made["bob"] = await Upgrader(BOB.key_pair).upgrade(ends[1], initiator=False, expected=None)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer)
        made["alice"] = await Upgrader(ALICE.key_pair).upgrade(ends[0], initiator=True, expected=expected)
    return made["alice"], made["bob"]


@trio_test
async def test_both_know_who_the_other_is() -> None:
    alice, bob = await secured()
    assert (alice.peer_id, bob.peer_id) == (BOB.peer_id, ALICE.peer_id)
    assert alice.handshake_hash == bob.handshake_hash
    assert len(alice.handshake_hash) == 32
    again, _ = await secured()
    assert again.handshake_hash != alice.handshake_hash


@trio_test
async def test_bytes_pass_whatever_their_number() -> None:
    alice, bob = await secured()
    for size in (1, MAX_PLAINTEXT - 1, MAX_PLAINTEXT, MAX_PLAINTEXT + 1, 300_000):
        data = os.urandom(size)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(alice.pipe.send_all, data)
            got = bytearray()
            while len(got) < size:
                got += await bob.pipe.receive_some(1000)
        assert bytes(got) == data
    await alice.pipe.wait_send_all_might_not_block()
    await bob.pipe.send_all(b"back")
    assert await alice.pipe.receive_some() == b"back"
    await alice.pipe.aclose()
    assert await bob.pipe.receive_some() == b""


@trio_test
async def test_the_wire_shows_nothing_and_takes_nothing_altered() -> None:
    alice, bob = await secured()
    raw = alice.pipe._pipe
    await alice.pipe.send_all(b"secret" * 10)
    assert await bob.pipe.receive_some() == b"secret" * 10
    await raw.send_all((20).to_bytes(2, "big") + bytes(20))
    with pytest.raises(trio.BrokenResourceError, match="decrypt"):
        await bob.pipe.receive_some()


@trio_test
async def test_an_end_inside_a_message_is_no_clean_end() -> None:
    alice, bob = await secured()
    await alice.pipe._pipe.send_all((20).to_bytes(2, "big") + b"half")
    await alice.pipe.aclose()
    with pytest.raises(trio.BrokenResourceError, match="inside"):
        await bob.pipe.receive_some()


@trio_test
async def test_another_peer_than_expected() -> None:
    with pytest.raises(BaseExceptionGroup) as caught:
        await secured(expected=ALICE.peer_id)
    assert caught.group_contains(HandshakeError)


@trio_test
async def test_a_dialer_must_know_whom_it_dials() -> None:
    client, server = memory_stream_pair()
    async with trio.open_nursery() as nursery:

        async def answer() -> None:
            with pytest.raises(HandshakeError):
                await Upgrader(BOB.key_pair).upgrade(server, initiator=False, expected=None)

        nursery.start_soon(answer)
        with pytest.raises(HandshakeError, match="must know"):
            await Upgrader(ALICE.key_pair).upgrade(client, initiator=True, expected=None)
        await client.aclose()


@pytest.mark.parametrize("initiator", [True, False])
def test_a_silent_peer_is_let_go(initiator: bool) -> None:
    async def main() -> None:
        pipe, _other = memory_stream_pair()
        expected = BOB.peer_id if initiator else None
        with pytest.raises(HandshakeError, match="no handshake within"):
            await Upgrader(ALICE.key_pair).upgrade(pipe, initiator=initiator, expected=expected)
        assert trio.current_time() == pytest.approx(HANDSHAKE_SECONDS)

    trio.run(main, clock=MockClock(autojump_threshold=0))


def line(text: bytes) -> bytes:
    return bytes([len(text) + 1]) + text + b"\n"


HEADER, NOISE = line(b"/multistream/1.0.0"), line(b"/noise")
PIECES = st.sampled_from(
    [HEADER, NOISE, line(b"na"), line(b"ls"), line(b"/tls/1.0.0"), b"\xff" * 10, b"\x00\x20" + bytes(32)]
)


@settings(max_examples=60, deadline=None)
@given(st.lists(PIECES | st.binary(max_size=40), max_size=6).map(b"".join), st.booleans())
def test_any_bytes_are_a_handshake_error(data: bytes, initiator: bool) -> None:
    """A hostile peer makes py-libp2p's parsers raise nearly anything; one error comes out."""

    async def main() -> None:
        pipe, other = memory_stream_pair()
        await other.send_all(data)
        await other.send_eof()
        expected = BOB.peer_id if initiator else None
        with pytest.raises(HandshakeError):
            await Upgrader(ALICE.key_pair).upgrade(pipe, initiator=initiator, expected=expected)

    trio.run(main, clock=MockClock(autojump_threshold=0))


@trio_test
async def test_select_and_negotiate() -> None:
    client, server = memory_stream_pair()
    chosen: list[str] = []
    async with trio.open_nursery() as nursery:

        async def answer() -> None:
            chosen.append(await negotiate(RawPipe(server, False), ["/a", "/b"]))

        nursery.start_soon(answer)
        await select(RawPipe(client, True), "/b")
        # What follows belongs to the protocol: not a byte of it is taken.
        await client.send_all(b"data")
    assert chosen == ["/b"]
    assert await server.receive_some(10) == b"data"


@trio_test
async def test_a_protocol_that_is_not_offered() -> None:
    client, server = memory_stream_pair()
    async with trio.open_nursery() as nursery:

        async def answer() -> None:
            with pytest.raises(HandshakeError):
                await negotiate(RawPipe(server, False), ["/a"])

        nursery.start_soon(answer)
        with pytest.raises(HandshakeError, match="/b was not agreed"):
            await select(RawPipe(client, True), "/b")
        await client.aclose()
