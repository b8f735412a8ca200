"""What strangers may ask: identify tells no network, ping echoes."""

from __future__ import annotations

import contextlib

import pytest
from libp2p.crypto.serialization import deserialize_public_key
from libp2p.identity.identify.pb.identify_pb2 import Identify
from libp2p.peer.id import ID
from multiaddr import Multiaddr
from trio.testing import trio_test

from hived.overlay.connection import STREAM_ERRORS
from hived.overlay.identify import IDENTIFY, MAX_PINGS, PING, IdentifyService, serve_ping
from hived.overlay.joinhandshake import JOIN
from hived.overlay.networkkeys import network_id
from hived.overlay.wire import receive_exactly
from tests.unit.overlay.parties import NETWORK, Logged, party


@trio_test
async def test_identify(logged: Logged) -> None:
    async with party("a") as alice, party("b") as bob:
        service = IdentifyService(bob.identity, lambda: [bob.address], lambda: bob.host.handlers)
        bob.host.handlers[IDENTIFY] = service.serve
        bob.host.member_handlers["/hive/secret/1"] = service.serve
        stream = await (await alice.dial(bob)).open_stream(IDENTIFY)
        address, data = bob.address, bytearray()
        while part := await stream.receive_some():
            data += part
    length, start, shift = 0, 0, 0
    while True:
        length |= (data[start] & 0x7F) << shift
        shift, start = shift + 7, start + 1
        if not data[start - 1] & 0x80:
            break
    assert length == len(data) - start
    told = Identify.FromString(bytes(data[start:]))
    assert str(ID.from_pubkey(deserialize_public_key(told.public_key))) == bob.peer_id
    assert [str(Multiaddr(raw)) for raw in told.listen_addrs] == [address]
    assert str(Multiaddr(told.observed_addr)).startswith("/ip4/127.0.0.1/tcp/")
    assert set(told.protocols) == {IDENTIFY, JOIN}
    assert NETWORK.encode() not in data
    assert network_id(NETWORK) not in data


@trio_test
async def test_ping(logged: Logged) -> None:
    async with party("a") as alice, party("b") as bob:
        bob.host.handlers[PING] = serve_ping
        stream = await (await alice.dial(bob)).open_stream(PING)
        for number in range(3):
            await stream.send_all(bytes([number]) * 32)
            assert await receive_exactly(stream, 32) == bytes([number]) * 32
        await stream.send_all(b"half")
        await stream.send_eof()
        assert await stream.receive_some() == b""


@trio_test
async def test_more_pings_at_once_than_anybody_needs_are_reset(logged: Logged) -> None:
    async with party("a") as alice, party("b") as bob:
        bob.host.handlers[PING] = serve_ping
        connection = await alice.dial(bob)
        held = [await connection.open_stream(PING) for _ in range(MAX_PINGS)]
        for stream in held:
            await stream.send_all(b"x" * 32)
            assert await stream.receive_some() == b"x" * 32
        with pytest.raises(STREAM_ERRORS):
            # The reset may come before the answer that the protocol is spoken.
            await (await connection.open_stream(PING)).receive_some()
        await held[0].aclose()
        # One has ended: there is room for one more, once the other side knows.
        while True:
            with contextlib.suppress(*STREAM_ERRORS):
                again = await connection.open_stream(PING)
                await again.send_all(b"y" * 32)
                if await again.receive_some() == b"y" * 32:
                    break


@trio_test
async def test_ping_survives_a_reset(logged: Logged) -> None:
    async with party("a") as alice, party("b") as bob:
        bob.host.handlers[PING] = serve_ping
        connection = await alice.dial(bob)
        stream = await connection.open_stream(PING)
        stream.reset()
        again = await connection.open_stream(PING)
        await again.send_all(b"x" * 32)
        assert await receive_exactly(again, 32) == b"x" * 32
        with pytest.raises(STREAM_ERRORS):
            await stream.send_all(b"x")
