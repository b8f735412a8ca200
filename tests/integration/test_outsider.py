"""What somebody who does not know a network's password gets from its nodes: identify, ping, and a "no"."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import trio
from libp2p.identity.identify.pb.identify_pb2 import Identify

import hived
from hived.overlay.connection import Connection, DialError
from hived.overlay.host import MAX_STRANGER_STREAMS
from hived.overlay.identify import IDENTIFY, PING
from hived.overlay.joinhandshake import JOIN
from hived.overlay.membership import Answer, Confirm, Hello, JoinDelayedError, JoinRefusedError
from hived.overlay.networkkeys import network_id
from hived.overlay.wire import encode, receive, send
from hived.transport.muxstream import MuxedStream
from tests.integration.conftest import NETWORK
from tests.integration.nodes import PASSWORD, Node, cluster, connected
from tests.integration.peer import GONE, MULTISTREAM, Door, Peer, act, ask, key_of, line, peer, rest
from tests.integration.rawhttp import await_open_files, open_files

WRONG = "not-the-password-at-all"
FOUND = {
    name
    for path in Path(hived.__file__).parent.rglob("*.py")
    for name in re.findall(r'"(/hive/[a-z0-9-]+/[0-9.]+)"', path.read_text())
}
# Not protocols of streams: how connections are secured.
MEMBERS_ONLY = sorted(name for name in FOUND - {JOIN} if "/noise-" not in name)


@pytest.fixture
def door(pair: tuple[Node, Node]) -> Iterator[Door]:
    """The way to alpha, which must be as well after each test as it was before."""
    alpha, beta = pair
    assert alpha.process is not None
    before, after = psutil.Process(alpha.process.pid), len(alpha.log.lines)
    yield Door.of(alpha)
    row = alpha.row(beta)
    assert row is not None
    assert row["path"] == "direct"
    assert len(alpha.json("nodes")) == 2
    assert before.is_running()
    assert not [entry for entry in alpha.log.lines[after:] if "traceback" in entry or " error " in entry]


def test_wrong_password(tmp_path: Path) -> None:
    """The joining side gets one clear line and stores nothing; the right password then works."""
    with cluster(tmp_path, "alpha", "beta") as (alpha, beta):
        alpha.create(NETWORK)
        beta.create(NETWORK, WRONG)

        refused = beta.register(alpha, check=False)
        assert refused.code == 4
        assert refused.out == ""
        assert re.fullmatch(
            rf"hivectl: registering {alpha.peer_id} failed: the password differs, .*\n", refused.err
        )
        assert beta.row(alpha) is None
        assert alpha.row(beta) is None
        entry = alpha.log.wait_for("join refused", 1)
        assert f"peer={beta.peer_id}" in entry
        assert "next_try_in=0.5s" in entry
        assert WRONG not in alpha.tail() + beta.tail()

        # Nothing of it is left in the store either.
        beta.stop()
        beta.start()
        assert [row["peer_id"] for row in beta.json("nodes")] == [beta.peer_id]

        beta.ctl("networks", "leave", NETWORK)
        beta.create(NETWORK)
        assert "joined" in beta.register(alpha).out
        beta.await_row(alpha, lambda row: bool(row["path"] == "direct" and row["name"] == "alpha"), 5)


def test_delays_grow(pair: tuple[Node, Node], door: Door) -> None:
    """Each wrong password costs its source twice the wait of the one before; other sources wait no longer."""
    alpha, _ = pair

    async def scene() -> None:
        async with peer() as outsider:
            connection = await outsider.dial(door, "127.0.0.10")
            for failures in (1, 2, 3):
                with pytest.raises(JoinRefusedError):
                    await outsider.also_join(connection, NETWORK, WRONG)
                with pytest.raises(JoinDelayedError) as delayed:
                    await outsider.also_join(connection, NETWORK, WRONG)
                assert 0.5 * 2 ** (failures - 1) <= delayed.value.seconds
                if failures < 3:
                    await trio.sleep(delayed.value.seconds)
            # A connection of its own does not help, nor does another identity.
            async with peer() as other:
                with pytest.raises(JoinDelayedError):
                    await other.join(door, NETWORK, "127.0.0.10")

    after = len(alpha.log.lines)
    act(scene)
    entries = [entry for entry in alpha.log.lines[after:] if "join refused" in entry]
    assert [re.findall("next_try_in=([0-9.]+)s", entry) for entry in entries] == [["0.5"], ["1"], ["2"]]


def test_members_protocols_are_refused(door: Door) -> None:
    """Each /hive protocol that the source knows is answered "na", before and after a wrong password."""
    assert {"/hive/sync/1.0.0", "/hive/proxy/1.0.0", "/hive/api/1.0.0"} <= set(MEMBERS_ONLY)

    async def scene() -> None:
        async with peer() as outsider:
            connection = await outsider.dial(door, "127.0.0.11")
            await all_refused(connection)
            with pytest.raises(JoinRefusedError):
                await outsider.also_join(connection, NETWORK, WRONG)
            await all_refused(connection)

    async def all_refused(connection: Connection) -> None:
        for protocol in MEMBERS_ONLY:
            answer, stream = await ask(connection, protocol)
            assert (protocol, answer) == (protocol, "na")
            await stream.send_eof()
            assert await rest(stream) == b""

    act(scene)


@pytest.mark.parametrize("protocol", MEMBERS_ONLY)
def test_right_network_id_before_joining(door: Door, protocol: str) -> None:
    """Who sends the opening at once, with the right network ID, gets no byte of an answer to it."""

    async def scene() -> None:
        async with peer() as outsider:
            connection = await outsider.dial(door, "127.0.0.12")
            stream = await connection.muxer.open()
            opening = encode(Hello(network=network_id(NETWORK), share=bytes(33)))
            request = b"GET /v1/info HTTP/1.1\r\nHost: hive\r\n\r\n"
            await stream.send_all(line(MULTISTREAM) + line(protocol) + opening + request)
            # The node may have answered and reset the stream by now.
            with suppress(*GONE):
                await stream.send_eof()
            assert (line(MULTISTREAM) + line("na")).startswith(await rest(stream))

    act(scene)


def test_identify_and_ping(pair: tuple[Node, Node], door: Door) -> None:
    """Strangers may identify and ping; identify names no network, no member, no protocol of members."""
    beta = pair[1].peer_id

    async def scene() -> bytes:
        async with peer() as outsider:
            connection = await outsider.dial(door, "127.0.0.13")
            ping = await connection.open_stream(PING)
            await ping.send_all(bytes(range(32)))
            assert await ping.receive_some(32) == bytes(range(32))
            return await rest(await connection.open_stream(IDENTIFY))

    told = act(scene)
    length = told[0] & 0x7F | told[1] << 7
    assert len(told) == 2 + length
    identify = Identify.FromString(told[2:])
    assert set(identify.protocols) == {IDENTIFY, PING, JOIN}
    assert identify.listen_addrs
    for secret in (NETWORK.encode(), network_id(NETWORK), b"beta", b"alpha", beta.encode()):
        assert secret not in told


GARBAGE = {
    "zeros": bytes(5000),
    "random": bytes((i * 197 + 13) % 256 for i in range(5000)),
    "huge length": b"\xff\xff\xff\xff" + bytes(1000),
    "http": b"GET / HTTP/1.1\r\n\r\n",
    "no message": b"\x00\x00\x00\x00",
    "wrong types": encode(Answer(share=b"x", wait=5.0)),
    "short share": encode(Hello(network=network_id(NETWORK), share=b"x")),
    "bad share": encode(Hello(network=network_id(NETWORK), share=b"\x42" + bytes([0xFF]) * 32)),
    "own side": encode(Hello(network=network_id(NETWORK), share=b"\x41" + bytes([1] * 32))),
    "no network": encode(Hello(network=b"", share=bytes(33))),
    "deep": b"\x00\x00\x01\x00" + b"\x91" * 256,
}


@pytest.mark.parametrize("what", GARBAGE)
def test_garbage_in_join(door: Door, what: str) -> None:
    """What is no join ends its stream at once, and only that; no share is given out for it."""

    async def scene() -> None:
        async with peer() as outsider:
            # A malformed share counts as a wrong guess of its source.
            connection = await outsider.dial(door, f"127.0.1.{list(GARBAGE).index(what)}")
            stream = await connection.open_stream(JOIN)
            await stream.send_all(GARBAGE[what])
            assert await rest(stream) == b""
            assert (await ask(connection, PING))[0] == PING

    act(scene)


def test_garbage_elsewhere(door: Door) -> None:
    """Garbage in place of a handshake, of a protocol's name, and in identify and ping harms nobody."""

    async def scene() -> None:
        async with peer() as outsider:
            for noise in (*GARBAGE.values(), line(MULTISTREAM) + line("/noise") + b"\xff\xff" + bytes(70000)):
                await over_tcp(noise)
            connection = await outsider.dial(door, "127.0.0.15")
            for noise in (*GARBAGE.values(), b"\xff" * 12, line("/multistream/9.9.9")):
                stream = await connection.muxer.open()
                with suppress(*GONE):
                    await stream.send_all(noise)
                    await stream.send_eof()
                await rest(stream)
            for protocol in (IDENTIFY, PING):
                stream = await connection.open_stream(protocol)
                with suppress(*GONE):
                    await stream.send_all(b"\xff" * 33)
                    await stream.send_eof()
                await rest(stream)
            assert (await ask(connection, PING))[0] == PING

    async def over_tcp(noise: bytes) -> None:
        _, _, host, _, port = door.address.split("/")
        tcp = await trio.open_tcp_stream(host, int(port))
        async with tcp:
            with trio.fail_after(5), suppress(*GONE):
                await tcp.send_all(noise)
                await tcp.send_eof()
                while await tcp.receive_some():
                    pass

    act(scene)


def test_join_stopped_at_each_step(pair: tuple[Node, Node], door: Door) -> None:
    """Whoever stops a join half-way is no member; once a share was seen it counts as a wrong guess."""
    alpha, _ = pair

    async def scene() -> None:
        async with peer() as outsider:
            connection = await outsider.dial(door, "127.0.0.16")
            opened = await connection.open_stream(JOIN)
            await opened.aclose()
            half = await connection.open_stream(JOIN)
            await half.send_all(encode(Hello(network=network_id(NETWORK), share=bytes(33)))[:20])
            await half.send_eof()
            assert await rest(half) == b""
            after = len(alpha.log.lines)
            await said_hello(outsider, connection)
            await until(alpha, "join refused", after)
            assert (await ask(connection, MEMBERS_ONLY[0]))[0] == "na"
            # The right password works, once the delay is over.
            with pytest.raises(JoinDelayedError) as delayed:
                await outsider.also_join(connection, NETWORK)
            await trio.sleep(delayed.value.seconds)
            await outsider.also_join(connection, NETWORK)

    async def said_hello(outsider: Peer, connection: Connection) -> None:
        stream = await connection.open_stream(JOIN)
        ours = outsider.handshake(connection, NETWORK, key_of(NETWORK, PASSWORD))
        await send(stream, Hello(network=network_id(NETWORK), share=ours.share))
        assert len((await receive(stream, Answer)).share) == 33
        stream.reset()

    act(scene)


async def until(node: Node, text: str, after: int) -> str:
    """The node's log line with this text, without making the test's own peer wait for it."""
    return await trio.to_thread.run_sync(node.log.wait_for, text, 5.0, after)


def test_replayed_join(door: Door) -> None:
    """The messages of a join that went well prove nothing on another connection, nor on the same."""
    sent: list[bytes] = []

    async def scene() -> None:
        async with peer() as member:
            connection = await member.dial(door, "127.0.0.17")
            stream = await connection.open_stream(JOIN)
            ours = member.handshake(connection, NETWORK, key_of(NETWORK, PASSWORD))
            sent.append(encode(Hello(network=network_id(NETWORK), share=ours.share)))
            await stream.send_all(sent[0])
            ours.finish((await receive(stream, Answer)).share)
            sent.append(encode(Confirm(proof=ours.confirmation)))
            await stream.send_all(sent[1])
            assert ours.verify((await receive(stream, Confirm)).proof)
            await stream.aclose()
            await replay(await member.dial(door, "127.0.0.18"))
            assert await replay(connection) == b""
        async with peer() as other:
            await replay(await other.dial(door, "127.0.0.19"))

    async def replay(connection: Connection) -> bytes:
        stream = await connection.open_stream(JOIN)
        await stream.send_all(sent[0])
        answer = await receive(stream, Answer)
        if answer.wait:  # the total of failures has a delay too
            await stream.aclose()
            await trio.sleep(answer.wait)
            return await replay(connection)
        await stream.send_all(sent[1])
        proof = (await receive(stream, Confirm)).proof
        if not connection.memberships:
            assert (await ask(connection, MEMBERS_ONLY[0]))[0] in ("na", MEMBERS_ONLY[0])
        return proof

    act(scene)


def test_reflected_and_relayed_join(tmp_path: Path) -> None:
    """A node that joins through an impostor believes neither its own messages sent back to it, nor those
    that the impostor passes on, byte by byte, from another node of the network."""
    with cluster(tmp_path, "alpha", "beta") as (alpha, beta):
        for node in (alpha, beta):
            node.create(NETWORK)
        door = Door.of(alpha)

        async def reflect(stream: MuxedStream, connection: Connection) -> None:
            await pipe(stream, await connection.open_stream(JOIN))

        async def scene() -> None:
            async with peer() as impostor:
                impostor.host.handlers[JOIN] = reflect
                await refused_registration(beta, impostor)
            beta.log.wait_for("join refused", 5)
            async with peer() as middle:

                async def relay(stream: MuxedStream, connection: Connection) -> None:
                    onward = await middle.dial(door, "127.0.0.20")
                    await pipe(stream, await onward.open_stream(JOIN))

                middle.host.handlers[JOIN] = relay
                await refused_registration(beta, middle)

        act(scene)
        alpha.log.wait_for("join refused", 5)
        assert len(alpha.json("nodes")) == len(beta.json("nodes")) == 1


def test_relayed_join_with_stolen_identities() -> None:
    """Even with both nodes' keys, so that all peer IDs fit: the two connections' handshakes differ."""
    seeds = [bytes([1]) * 32, bytes([2]) * 32]

    async def scene() -> None:
        async with peer(seeds[0]) as opener, peer(seeds[1]) as answerer:
            async with peer(seeds[1]) as towards_opener, peer(seeds[0]) as towards_answerer:
                for one in (opener, answerer):
                    one.membership.set_network(NETWORK, key_of(NETWORK, PASSWORD))

                async def relay(stream: MuxedStream, connection: Connection) -> None:
                    onward = await towards_answerer.dial(listening(answerer))
                    await pipe(stream, await onward.open_stream(JOIN))

                towards_opener.host.handlers[JOIN] = relay
                connection = await opener.dial(listening(towards_opener))
                with pytest.raises(JoinRefusedError):
                    await opener.membership.join(connection, NETWORK)
                assert not connection.memberships
                assert not any(c.memberships for c in answerer.host.all_connections())
            # The same without anybody in the middle does work.
            direct = await opener.dial(listening(answerer), "127.0.0.2")
            await opener.membership.join(direct, NETWORK)

    def listening(one: Peer) -> Door:
        if not one.host.listening:
            one.host.listen(["/ip4/127.0.0.1/tcp/0"])
        return Door(one.host.listening[0], one.peer_id)

    act(scene)


async def refused_registration(node: Node, impostor: Peer) -> None:
    """Have the node join its network through the impostor, which must fail and leave nothing."""
    impostor.host.listen(["/ip4/127.0.0.1/tcp/0"])
    identity = impostor.identity.string(impostor.host.listening)
    result = await trio.to_thread.run_sync(lambda: node.ctl("register", identity, check=False))
    assert result.code == 4, result
    assert "the password differs" in result.err
    assert not any(c.memberships for c in impostor.host.all_connections())
    assert await trio.to_thread.run_sync(node.row, impostor.peer_id) is None


async def pipe(one: MuxedStream, other: MuxedStream) -> None:
    """Pass bytes both ways until both sides have ended."""

    async def pass_on(source: MuxedStream, sink: MuxedStream) -> None:
        try:
            while data := await source.receive_some(65536):
                await sink.send_all(data)
            await sink.send_eof()
        except GONE:
            sink.reset()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(pass_on, one, other)
        nursery.start_soon(pass_on, other, one)


def test_two_thousand_streams(pair: tuple[Node, Node], door: Door) -> None:
    """A stranger that opens 2,000 streams holds 16; the node answers meanwhile, and takes all back."""
    alpha, _ = pair
    before = open_files(alpha)

    async def scene() -> None:
        async with peer() as outsider:
            connection = await outsider.dial(door, "127.0.0.21")
            held: list[MuxedStream] = []
            with trio.fail_after(20):
                for _ in range(2000):
                    held.append(await connection.muxer.open())
            # The refused ones are reset; the others answer our greeting and wait for our choice.
            open_ones: list[MuxedStream] = []
            async with trio.open_nursery() as nursery:
                for stream in held:
                    nursery.start_soon(look, stream, open_ones)
            assert 0 < len(open_ones) <= MAX_STRANGER_STREAMS
            started = time.monotonic()
            await trio.to_thread.run_sync(lambda: alpha.ctl("status"))
            assert time.monotonic() - started < 5
            other = await outsider.dial(door, "127.0.0.22")
            assert (await ask(other, PING))[0] == PING

    async def look(stream: MuxedStream, open_ones: list[MuxedStream]) -> None:
        with suppress(*GONE):
            await stream.send_all(line(MULTISTREAM))
            if await stream.receive_some(1):
                open_ones.append(stream)

    act(scene, 60)
    await_open_files(alpha, before)


@pytest.mark.full
def test_silence_is_bounded(pair: tuple[Node, Node], door: Door) -> None:
    """Half a message and then nothing: TCP, Noise, a protocol's name and a join are dropped within 20 s."""

    async def scene() -> None:
        _, _, host, _, port = door.address.split("/")
        async with peer() as outsider, trio.open_nursery() as nursery:
            connection = await outsider.dial(door, "127.0.0.23")
            for start in (b"", line(MULTISTREAM)[:5], line(MULTISTREAM) + line("/noise") + b"\x00"):
                nursery.start_soon(dropped_tcp, host, int(port), start)
            for start in (b"", line(MULTISTREAM)[:5]):
                nursery.start_soon(dropped, await connection.muxer.open(), start)
            for message in (
                b"",
                b"\x00\x00",
                encode(Hello(network=network_id(NETWORK), share=bytes(33)))[:9],
            ):
                nursery.start_soon(dropped, await connection.open_stream(JOIN), message)

    async def dropped_tcp(host: str, port: int, start: bytes) -> None:
        tcp = await trio.open_tcp_stream(host, port)
        async with tcp:
            await tcp.send_all(start)
            with trio.fail_after(20), suppress(*GONE):
                while await tcp.receive_some():
                    pass

    async def dropped(stream: MuxedStream, start: bytes) -> None:
        if start:
            await stream.send_all(start)
        await rest(stream, 20)

    act(scene, 60)


@pytest.mark.full
def test_many_strangers(pair: tuple[Node, Node], door: Door) -> None:
    """A flood of connections: most are turned away before a handshake, of the others the oldest are let go.

    From the address of a member, whose share is the largest: the members keep their connections.
    """
    alpha, beta = pair
    after = len(alpha.log.lines)

    async def scene() -> None:
        async with peer() as outsider:
            connections: list[Connection] = []
            turned_away = 0

            async def knock() -> None:
                nonlocal turned_away
                while len(connections) < 300:
                    try:
                        connections.append(await outsider.dial(door))
                    except (DialError, ConnectionResetError):
                        turned_away += 1
                        await trio.sleep(0.01)

            async with trio.open_nursery() as nursery:
                # Several at once: a slow machine, too, is to knock faster than is let in.
                for _ in range(8):
                    nursery.start_soon(knock)
            assert turned_away > 0
            with trio.fail_after(5):
                for connection in connections[:30]:
                    await connection.muxer.closed.wait()
            assert (await ask(connections[-1], PING))[0] == PING

    act(scene, 90)
    assert [line for line in alpha.log.lines[after:] if "more connections than are worth" in line]
    row = alpha.row(beta)
    assert row is not None
    assert connected(row)
