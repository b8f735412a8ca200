"""Peers that speak later versions of the protocols: what they add is ignored, what is unknown is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import psutil
import pytest
import trio
from libp2p.peer.envelope import Envelope, make_unsigned

from hived.api import remote
from hived.overlay.connection import Connection
from hived.overlay.joinhandshake import JOIN, Binding, JoinHandshake
from hived.overlay.membership import Answer, Confirm, Done, Hello
from hived.overlay.networkkeys import network_id
from hived.overlay.records import DOMAIN, PAYLOAD_TYPE
from hived.overlay.wire import Message, receive
from hived.proxy.header import PROXY, Header, Verdict
from hived.transport.muxstream import MuxedStream
from tests.integration.conftest import NETWORK
from tests.integration.nodes import PASSWORD, Node, cluster, free_port, join
from tests.integration.peer import Door, Peer, act, ask, key_of, line, peer, rest
from tests.integration.services import echo, service

SYNC = "/hive/sync/1.0.0"  # which every version still speaks
SHOWN_WITHIN = 5.0
CHANGES = 5
# Of every type, under names that no message has, before and behind those it has.
ADDED: dict[str, Any] = {
    "a_later_text": "…",
    "zz_later_map": {"deep": [1, -1, 1.5, None, True, b"\xff", {"deeper": {}}]},
    "zz_later_number": 2**63,
    "": False,
}
BOUND_FOR_SMALL = {"": False, "zz": [None]}  # for a message that may have 256 bytes only

M = TypeVar("M", bound=Message)


class Opening(Message):
    """As in 1.0.0."""

    network: bytes
    round: bool = False


class Digest(Message):
    """As in 1.0.0."""

    have: dict[str, int] = msgspec.field(default_factory=dict)


class Batch(Message):
    """As in 1.0.0."""

    records: list[bytes] = msgspec.field(default_factory=list)
    want: list[str] = msgspec.field(default_factory=list)
    more: bool = False


def extended(message: Message, added: dict[str, Any] = ADDED) -> bytes:
    """A message with fields of a later version, without its length."""
    known = msgspec.to_builtins(message, builtin_types=(bytes,))
    first, *others = added.items()
    return msgspec.msgpack.encode({first[0]: first[1], **known, **dict(others)})


async def say(stream: MuxedStream, message: Message, added: dict[str, Any] = ADDED) -> None:
    body = extended(message, added)
    await stream.send_all(len(body).to_bytes(4, "big") + body)


@pytest.fixture
def door(pair: tuple[Node, Node]) -> Iterator[Door]:
    """The way to alpha, which must be the same process after each test, without an error in its log."""
    alpha, _ = pair
    assert alpha.process is not None
    before, after = psutil.Process(alpha.process.pid), len(alpha.log.lines)
    yield Door.of(alpha)
    assert before.is_running()
    assert len(alpha.json("nodes")) >= 2
    assert not [entry for entry in alpha.log.lines[after:] if "traceback" in entry or " error " in entry]


async def joined(me: Peer, door: Door) -> Connection:
    """A member's connection, its join with fields of a later version in each of our messages."""
    connection = await me.dial(door)
    stream = await connection.open_stream(JOIN)
    ours = me.handshake(connection, NETWORK, key_of(NETWORK, PASSWORD))
    await say(stream, Hello(network=network_id(NETWORK), share=ours.share))
    ours.finish((await receive(stream, Answer)).share)
    await say(stream, Confirm(proof=ours.confirmation))
    assert ours.verify((await receive(stream, Confirm)).proof)
    await say(stream, Done())
    assert await rest(stream) == b""
    return connection


def record(me: Peer, name: str) -> bytes:
    """The envelope of a record of ours that says more than today's."""
    payload = extended(me.record(NETWORK, name))
    signature = me.identity.key_pair.private_key.sign(make_unsigned(DOMAIN, PAYLOAD_TYPE, payload))
    return Envelope(me.identity.key_pair.public_key, PAYLOAD_TYPE, payload, signature).marshal_envelope()


async def pushed(connection: Connection, envelope: bytes) -> None:
    stream = await connection.open_stream(SYNC)
    await say(stream, Opening(network=network_id(NETWORK)))
    await say(stream, Batch(records=[envelope]))
    await stream.send_eof()
    assert await rest(stream) == b""


def test_added_fields_in_join_and_records(pair: tuple[Node, Node], door: Door) -> None:
    """A join, a push and a round with fields that today's hived does not know are as good as without; a
    record keeps what its author signed on its way through."""
    _, beta = pair

    async def scene() -> str:
        async with peer() as me:
            connection = await joined(me, door)
            envelope = record(me, "later")
            await pushed(connection, envelope)

            stream = await connection.open_stream(SYNC)
            await say(stream, Opening(network=network_id(NETWORK), round=True))
            await say(stream, Digest())
            batch = await receive(stream, Batch, 1024 * 1024)
            assert envelope in batch.records
            assert len(batch.records) >= 3
            await say(stream, Batch())
            await stream.send_eof()
            assert await rest(stream) == b""
            return me.peer_id

    author = act(scene)
    beta.await_row(author, lambda row: bool(row["name"] == "later"), SHOWN_WITHIN)


def test_added_fields_in_proxy_and_api(pair: tuple[Node, Node], door: Door) -> None:
    """The openings of a proxied connection and of the API over the overlay, both with more in them."""
    alpha, _ = pair
    egress = free_port()

    async def scene() -> None:
        async with peer() as me:
            connection = await joined(me, door)
            await pushed(connection, record(me, "proxying"))
            with service(echo) as target:
                ingress = ("proxy", "add", "ingress", f"{me.peer_id}:{egress}", str(target.port))
                await trio.to_thread.run_sync(lambda: alpha.ctl(*ingress))
                stream = await connection.open_stream(PROXY)
                header = Header(network=network_id(NETWORK), egress_port=egress, ingress_port=target.port)
                await say(stream, header, BOUND_FOR_SMALL)
                await stream.send_all(b"hello")
                await stream.send_eof()
                assert await rest(stream) == bytes([Verdict.OPEN]) + b"hello"

            stream = await connection.open_stream(remote.API)
            await say(stream, remote.Open(network=network_id(NETWORK)))
            await stream.send_all(b"GET /v1/info HTTP/1.1\r\nHost: hive\r\nConnection: close\r\n\r\n")
            assert (await stream.receive_some(65536)).startswith(b"HTTP/1.1 200 ")
            stream.reset()

    act(scene)


def test_added_fields_from_whom_we_dial(one: Node) -> None:
    """The same in the answers that hived gets when it is the one that joins."""
    one.create(NETWORK)

    async def scene() -> None:
        async with peer() as me:
            done = trio.Event()

            async def answer(stream: MuxedStream, connection: Connection) -> None:
                hello = await receive(stream, Hello)
                binding = Binding(hello.network, connection.peer_id, me.peer_id, connection.handshake_hash)
                ours = JoinHandshake(key_of(NETWORK, PASSWORD), binding, opener=False)
                ours.finish(hello.share)
                await say(stream, Answer(share=ours.share))
                assert ours.verify((await receive(stream, Confirm)).proof)
                await say(stream, Confirm(proof=ours.confirmation))
                await receive(stream, Done)
                done.set()

            me.host.handlers[JOIN] = answer
            me.host.listen([f"/ip4/127.0.0.1/tcp/{free_port()}"])
            identity = me.identity.string(me.host.listening)
            result = await trio.to_thread.run_sync(lambda: one.ctl("register", identity))
            assert "joined" in result.out
            await done.wait()
            row = await trio.to_thread.run_sync(lambda: one.row(me.peer_id))
            assert row is not None
            assert row["path"] == "direct"

    act(scene)


@pytest.mark.parametrize("protocol", ["sync", "join", "proxy", "api", "of-the-future"])
def test_unknown_versions_are_refused_in_order(door: Door, protocol: str) -> None:
    """A protocol version that hived does not know gets "na", and the stream may ask for another then."""

    async def scene() -> None:
        async with peer() as me:
            for connection in (await me.dial(door), await joined(me, door)):
                answer, stream = await ask(connection, f"/hive/{protocol}/9.0.0")
                assert answer == "na"
                await stream.send_all(line("/ipfs/ping/1.0.0"))
                expected = line("/ipfs/ping/1.0.0") + b"p" * 32
                await stream.send_all(b"p" * 32)
                await stream.send_eof()
                assert await rest(stream) == expected

    act(scene)


def test_a_peer_without_a_version_that_we_know(tmp_path: Path) -> None:
    """A member that offers no version of sync that hived knows: a line says so, and the two stay joined."""
    with cluster(tmp_path, "alpha", "beta") as (alpha, beta):
        join(NETWORK, alpha, beta)

        async def scene() -> None:
            async with peer() as me:
                me.host.listen([f"/ip4/127.0.0.1/tcp/{free_port()}"])
                me.membership.set_network(NETWORK, key_of(NETWORK, PASSWORD))
                identity = me.identity.string(me.host.listening)
                await trio.to_thread.run_sync(lambda: alpha.ctl("register", identity))
                entry = await trio.to_thread.run_sync(
                    lambda: alpha.log.wait_for("speaks no version of", SHOWN_WITHIN)
                )
                assert f"peer={me.peer_id}" in entry
                # Each change is pushed to it, or tried to: that is not a line each.
                for number in range(CHANGES):
                    await trio.to_thread.run_sync(alpha.ctl, "rename", f"alpha-{number}")
                last = f"alpha-{CHANGES - 1}"
                await trio.to_thread.run_sync(
                    lambda: beta.await_row(alpha, lambda row: bool(row["name"] == last), SHOWN_WITHIN)
                )
                row = await trio.to_thread.run_sync(lambda: alpha.row(me.peer_id))
                assert row is not None
                assert row["path"] == "direct"

        act(scene)
        assert len([entry for entry in alpha.log.lines if "speaks no version of" in entry]) <= 2
