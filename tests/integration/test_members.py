"""What members cannot do: use one network in another's name, speak for another node, or take a proxy that
was made for somebody else."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
import trio

from hived.api import remote
from hived.api.remote import API
from hived.overlay.connection import Connection
from hived.overlay.exchange import SYNC, SYNC_FIRST, Batch, Digest, Open
from hived.overlay.identity import Identity
from hived.overlay.joinhandshake import JOIN
from hived.overlay.membership import Answer, Confirm, Hello, JoinRefusedError
from hived.overlay.networkkeys import network_id
from hived.overlay.records import NodeRecord, sign, verify
from hived.overlay.wire import encode, receive, send
from hived.proxy.header import PROXY, Header, Verdict
from tests.integration.nodes import Node, cluster, connected, free_port, join
from tests.integration.peer import Door, Peer, act, fetch, key_of, peer, push, rest
from tests.integration.services import connect, echo, receive_exactly, service

RED, BLUE = "red", "blue"


@dataclass(frozen=True)
class Three:
    """alpha is in both networks, beta in red alone, gamma in blue alone."""

    alpha: Node
    beta: Node
    gamma: Node
    door: Door


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Three]:
    with cluster(tmp_path_factory.mktemp("three"), "alpha", "beta", "gamma") as (alpha, beta, gamma):
        join(RED, alpha, beta)
        join(BLUE, alpha, gamma)
        yield Three(alpha, beta, gamma, Door.of(alpha))


def logged(node: Node, text: str, after: int) -> bool:
    return any(text in entry for entry in node.log.lines[after:])


# Two networks on one node


def test_networks_do_not_leak(three: Three) -> None:
    """Each node knows the members of its own networks only, on disk too; the shared one knows both."""
    names = {
        node.name: {(row["name"], row["network"]) for row in node.json("nodes")}
        for node in (three.alpha, three.beta, three.gamma)
    }
    assert names["alpha"] == {("alpha", RED), ("beta", RED), ("alpha", BLUE), ("gamma", BLUE)}
    assert names["beta"] == {("alpha", RED), ("beta", RED)}
    assert names["gamma"] == {("alpha", BLUE), ("gamma", BLUE)}
    for here, there in ((three.beta, three.gamma), (three.gamma, three.beta)):
        foreign = there.peer_id.encode()
        files = [path.read_bytes() for path in here.data.glob("*") if path.is_file()]
        assert files
        assert not any(foreign in content for content in files)
        assert here.ctl("nodes", "show", there.peer_id, check=False).code == 5
        assert here.ctl("nodes", "show", there.name, check=False).code == 5


def test_info_names_shared_networks_only(three: Three) -> None:
    """A member asks ``info`` without a log-in and hears of the networks that it has proved, no others."""

    async def scene() -> None:
        async with peer() as member:
            connection = await member.join(three.door, BLUE, "127.0.0.30")
            status, told = await call(connection, BLUE, "GET", "/v1/info")
            assert (status, told["networks"], told["name"]) == (200, [BLUE], "alpha")
            await member.also_join(connection, RED)
            assert (await call(connection, RED, "GET", "/v1/info"))[1]["networks"] == [BLUE, RED]
            # The rest of the API wants a log-in, and does not tell what exists.
            for method, path in (
                ("GET", "/v1/status"),
                ("GET", "/v1/nodes"),
                ("GET", "/v1/networks"),
                ("GET", "/v1/id"),
                ("GET", "/v1/nodes/gamma"),
                ("GET", "/v1/nodes/nobody"),
                ("DELETE", "/v1/proxies/1"),
            ):
                assert (await call(connection, RED, method, path))[0] == 401

    act(scene)


async def call(connection: Connection, network: str, method: str, path: str) -> tuple[int, Any]:
    """One call of the API over the overlay: the status and the document."""
    stream = await connection.open_stream(API)
    await send(stream, remote.Open(network=network_id(network)))
    await stream.send_all(f"{method} {path} HTTP/1.1\r\nHost: hive\r\nConnection: close\r\n\r\n".encode())
    head, _, body = (await rest(stream)).partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


def test_member_of_another_network(three: Three) -> None:
    """A member of blue opens every members' protocol with red's network ID: no byte comes back."""
    red = network_id(RED)
    http = b"GET /v1/info HTTP/1.1\r\nHost: hive\r\n\r\n"

    async def scene() -> None:
        async with peer() as member:
            connection = await member.join(three.door, BLUE, "127.0.0.31")
            record = member.sign(member.record(RED, "intruder")).envelope
            for protocol, opening in (
                (SYNC_FIRST, encode(Open(network=red, round=True)) + encode(Digest())),
                (SYNC, encode(Open(network=red)) + encode(Batch(records=[record]))),
                (PROXY, encode(Header(network=red, egress_port=1984, ingress_port=8084))),
                (API, encode(remote.Open(network=red)) + http),
                (API, encode(remote.Open(network=network_id("no-such-network"))) + http),
            ):
                stream = await connection.open_stream(protocol)
                await stream.send_all(opening)
                assert await rest(stream) == b"", protocol
            with pytest.raises(JoinRefusedError):
                await member.also_join(connection, RED, "guess-of-the-password")
            # What it is a member of goes on working.
            assert (await call(connection, BLUE, "GET", "/v1/info"))[0] == 200
            await trio.to_thread.run_sync(unchanged, member.peer_id)

    def unchanged(stranger: str) -> None:
        assert three.alpha.row(stranger, RED) is None
        assert three.beta.row(stranger) is None

    after = len(three.alpha.log.lines)
    act(scene)
    refused = [e for e in three.alpha.log.lines[after:] if "a peer that is no member was refused" in e]
    assert len(refused) == 5


def test_joins_do_not_carry_over(three: Three) -> None:
    """The messages of a join of blue are no join of red, on the very same connection."""

    async def scene() -> None:
        async with peer() as member:
            connection = await member.dial(three.door, "127.0.0.32")
            stream = await connection.open_stream(JOIN)
            ours = member.handshake(connection, BLUE, key_of(BLUE, "correct-horse-battery-staple"))
            await send(stream, Hello(network=network_id(RED), share=ours.share))
            ours.finish((await receive(stream, Answer)).share)
            await send(stream, Confirm(proof=ours.confirmation))
            assert (await receive(stream, Confirm)).proof == b""

    act(scene)


# Records that no honest node sends


@dataclass
class Records:
    """What a hostile member of red has to work with: its own record, and beta's as alpha has it."""

    member: Peer
    beta: bytes

    def of_beta(self) -> NodeRecord:
        return verify(self.beta, network_id(RED)).record

    def altered(self) -> bytes:
        return self.beta.replace(b"beta", b"evil")

    def flipped(self) -> bytes:
        return self.beta[:-1] + bytes([self.beta[-1] ^ 1])

    def forged(self) -> bytes:
        return self._changed(name="evil", addresses=["/ip4/127.0.0.1/tcp/1"], seq=self.of_beta().seq + 1)

    def _changed(self, **changes: Any) -> bytes:
        return self.member.sign(msgspec.structs.replace(self.of_beta(), **changes)).envelope

    def of_blue(self) -> bytes:
        return self.member.sign(self.member.record(BLUE, "evil")).envelope

    def endless(self) -> bytes:
        return self.member.sign(self.member.record(RED, "evil", seq=2**53)).envelope

    def oversized(self) -> bytes:
        return self.member.sign(self.member.record(RED, "evil", capabilities=["x" * 9000])).envelope

    def bad_name(self) -> bytes:
        return self.member.sign(self.member.record(RED, "e v\x1b[31mil")).envelope

    def no_time(self) -> bytes:
        return self.member.sign(self.member.record(RED, "evil", issued=float("nan"))).envelope

    def garbage(self) -> bytes:
        return os.urandom(300)


# Not newer than what is known, whoever signed them: not worth a proof, and dropped without one.
NO_NEWS: list[Callable[[Records], bytes]] = [Records.altered, Records.flipped]
BAD: list[Callable[[Records], bytes]] = [
    Records.forged,
    Records.of_blue,
    Records.endless,
    Records.oversized,
    Records.bad_name,
    Records.no_time,
    Records.garbage,
]


def facts(node: Node, other: Node) -> tuple[Any, ...]:
    """What a node says of another that only the other may change."""
    row = node.row(other)
    assert row is not None
    return tuple(row[key] for key in ("peer_id", "name", "addresses", "version", "path"))


def test_bad_records(three: Three) -> None:
    """Each is refused and logged, with the rest of its batch; what everybody knows of beta stays."""
    alpha, beta = three.alpha, three.beta
    before = facts(alpha, beta), facts(beta, alpha), len(alpha.json("nodes"))
    after = len(alpha.log.lines)

    async def scene() -> str:
        async with peer() as member:
            connection = await member.join(three.door, RED, "127.0.0.33")
            known = {verify(e, network_id(RED)).record.name: e for e in await fetch(connection, RED)}
            hostile = Records(member, known["beta"])
            good = member.sign(member.record(RED, "good")).envelope
            for make in BAD:
                assert not await push(connection, RED, [good, make(hostile)]), make.__name__
            for make in NO_NEWS:
                assert await push(connection, RED, [make(hostile)])
            return member.peer_id

    author = act(scene)
    entries = [entry for entry in alpha.log.lines[after:] if "a member sent a bad record" in entry]
    assert len(entries) == len(BAD)
    assert all(f"peer={author}" in entry for entry in entries)
    assert (facts(alpha, beta), facts(beta, alpha), len(alpha.json("nodes"))) == before
    assert beta.row(author) is None


def test_stale_record(three: Three) -> None:
    """An older record of a node changes nothing, whoever brings it, and nobody passes it on."""
    alpha, beta = three.alpha, three.beta

    async def scene() -> None:
        async with peer() as member:
            connection = await member.join(three.door, RED, "127.0.0.34")
            old = member.sign(member.record(RED, "old-name", seq=5))
            new = member.sign(member.record(RED, "new-name", seq=6))
            same = member.sign(member.record(RED, "same-sequence", seq=6))
            assert await push(connection, RED, [new.envelope])
            await trio.to_thread.run_sync(beta.await_row, member.peer_id, named("new-name"), 5)
            for signed in (old, same):
                assert await push(connection, RED, [signed.envelope])
            await trio.to_thread.run_sync(both_say, member.peer_id)
            # A marker that comes after shows that nothing else is still on its way.
            marker = member.sign(member.record(RED, "marker", seq=7))
            assert await push(connection, RED, [marker.envelope])
            seen = await trio.to_thread.run_sync(names_until_marker, member.peer_id)
            assert "old-name" not in seen
            assert "same-sequence" not in seen

    def both_say(peer_id: str) -> None:
        for node in (alpha, beta):
            row = node.row(peer_id)
            assert row is not None
            assert row["name"] == "new-name"

    def names_until_marker(peer_id: str) -> set[str]:
        seen: set[str] = set()

        def is_marker(row: dict[str, Any]) -> bool:
            seen.add(row["name"])
            return bool(row["name"] == "marker")

        beta.await_row(peer_id, is_marker, 5)
        return seen

    act(scene)


def named(name: str) -> Callable[[dict[str, Any]], bool]:
    return lambda row: bool(row["name"] == name)


def test_replayed_record(three: Three) -> None:
    """A member that keeps another's record cannot bring its old name back."""
    alpha, beta = three.alpha, three.beta

    async def scene() -> None:
        async with peer() as member:
            connection = await member.join(three.door, RED, "127.0.0.35")
            known = {verify(e, network_id(RED)).record.name: e for e in await fetch(connection, RED)}
            await trio.to_thread.run_sync(lambda: beta.ctl("rename", "beta2"))
            await trio.to_thread.run_sync(alpha.await_row, beta.peer_id, named("beta2"), 5)
            assert await push(connection, RED, [known["beta"]])
            row = await trio.to_thread.run_sync(alpha.row, beta)
            assert row is not None
            assert row["name"] == "beta2"

    try:
        act(scene)
    finally:
        beta.ctl("rename", "beta")
        alpha.await_row(beta, named("beta"), 5)


def test_invented_authors(tmp_path_factory: pytest.TempPathFactory) -> None:
    """1,000 records of authors that one member invents, in the first hour of a network: they are taken, but
    members keep their connections, and not all is pushed on (later it is 100 an hour: test_quota.py)."""

    async def scene(door: Door) -> None:
        async with peer() as member:
            connection = await member.join(door, RED)
            record = member.record(RED, "invented")
            envelopes = []
            for number in range(1000):
                author = Identity.from_seed(number.to_bytes(32, "big"))
                one = msgspec.structs.replace(record, peer_id=author.peer_id, name=f"invented-{number}")
                envelopes.append(sign(one, author.key_pair).envelope)
            assert await push(connection, RED, envelopes)

    def invented(node: Node) -> int:
        return sum(row["name"].startswith("invented-") for row in node.json("nodes"))

    with cluster(tmp_path_factory.mktemp("authors"), "alpha", "beta") as (alpha, beta):
        join(RED, alpha, beta)
        act(lambda: scene(Door.of(alpha)), 60)
        assert connected(alpha.row(beta) or {})
        assert connected(beta.row(alpha) or {})
        assert invented(alpha) == 1000
        assert invented(beta) <= 1000


# Proxies of others


@dataclass
class Counted:
    """A target that counts what reaches it."""

    accepted: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def serve(self, connection: socket.socket) -> None:
        with self._lock:
            self.accepted += 1
        echo(connection)


@contextlib.contextmanager
def ingress(node: Node, origin: str, egress_port: int, target: int, network: str) -> Iterator[None]:
    """An ingress proxy for the time of a test."""
    added = node.json("proxy", "add", "ingress", f"{origin}:{egress_port}", str(target), "--network", network)
    try:
        yield
    finally:
        node.ctl("proxy", "rm", str(added["id"]))


def test_ingress_for_others(three: Three) -> None:
    """Network, peer and both ports must fit: else the verdict says no, and the target sees no connection."""
    target = Counted()
    egress_port = free_port()

    async def verdict(connection: Connection, network: str, out_port: int, in_port: int) -> Verdict:
        stream = await connection.open_stream(PROXY)
        header = Header(network=network_id(network), egress_port=out_port, ingress_port=in_port)
        await send(stream, header)
        await stream.send_all(b"hello")
        byte = await stream.receive_some(1)
        if byte == b"\x00":
            assert await stream.receive_some(5) == b"hello"
        stream.reset()
        return Verdict(byte[0])

    async def scene(owner: bytes, port: int) -> None:
        async with peer(owner) as right, peer() as wrong:
            connection = await right.join(three.door, RED, "127.0.0.36")
            await right.also_join(connection, BLUE)
            stranger = await wrong.join(three.door, RED, "127.0.0.36")
            no = Verdict.NO_INGRESS
            assert await verdict(stranger, RED, egress_port, port) is no
            assert await verdict(connection, BLUE, egress_port, port) is no
            assert await verdict(connection, RED, port, egress_port) is no
            assert await verdict(connection, RED, egress_port + 1, port) is no
            assert await verdict(connection, RED, egress_port, egress_port) is no
            assert target.accepted == 0
            assert await verdict(connection, RED, egress_port, port) is Verdict.OPEN
            assert target.accepted == 1

    seed = os.urandom(32)
    owner = Identity.from_seed(seed).peer_id
    with service(target.serve) as listener, ingress(three.alpha, owner, egress_port, listener.port, RED):
        after = len(three.alpha.log.lines)
        act(lambda: scene(seed, listener.port))
    refused = [e for e in three.alpha.log.lines[after:] if "a connection was refused: no such ingress" in e]
    assert len(refused) == 5


def test_malformed_headers(three: Three) -> None:
    """A header with ports out of range, of the wrong types or without end ends its stream alone."""

    async def scene() -> None:
        async with peer() as member:
            connection = await member.join(three.door, RED, "127.0.0.37")
            red = network_id(RED)
            for opening in (
                encode(Header(network=red, egress_port=0, ingress_port=80)),
                encode(Header(network=red, egress_port=80, ingress_port=65536)),
                encode(Header(network=red, egress_port=-1, ingress_port=80)),
                encode(Open(network=red)),
                b"\xff\xff\xff\xff" + bytes(100),
                bytes(4),
            ):
                stream = await connection.open_stream(PROXY)
                await stream.send_all(opening)
                assert await rest(stream) == b""
            assert (await call(connection, RED, "GET", "/v1/info"))[0] == 200

    act(scene)


def test_real_node_with_wrong_ports(three: Three) -> None:
    """A real egress to a port pair that is not its own: its clients get a reset, and both sides say why."""
    alpha, beta, target = three.alpha, three.beta, Counted()
    right, wrong = free_port(), free_port()
    with service(target.serve) as listener, ingress(alpha, beta.peer_id, right, listener.port, RED):
        made = [
            beta.json("proxy", "add", "egress", str(port), f"alpha:{listener.port}", "--bind", "127.0.0.1")
            for port in (wrong, right)
        ]
        try:
            with pytest.raises(ConnectionResetError), connect(wrong) as client:
                client.sendall(b"hello")
                client.recv(1)
            assert target.accepted == 0
            states = {row["port"]: row["error"] for row in beta.json("proxy")}
            assert "no ingress proxy" in states[wrong]
            with connect(right) as client:
                client.sendall(b"hello")
                assert receive_exactly(client, 5) == b"hello"
            assert target.accepted == 1
        finally:
            for row in made:
                beta.ctl("proxy", "rm", str(row["id"]))


def shows_connected(peer_id: str) -> Callable[[list[dict[str, Any]]], bool]:
    return lambda rows: any(row["peer_id"] == peer_id and connected(row) for row in rows)


@pytest.mark.full
def test_leaving_one_network(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A network with proxies is not left; without, its rows and memberships go, and the other goes on."""
    with cluster(tmp_path_factory.mktemp("leave"), "alpha", "beta") as (alpha, beta):
        join(RED, alpha, beta)
        join(BLUE, alpha, beta)
        for network in (RED, BLUE):
            alpha.ctl("proxy", "add", "ingress", f"beta:{free_port()}", "9", "--network", network)
        refused = alpha.ctl("networks", "leave", RED, check=False)
        assert (refused.code, "proxy rm" in refused.err) == (6, True)
        alpha.ctl("proxy", "rm", next(str(row["id"]) for row in alpha.json("proxy") if row["network"] == RED))
        alpha.ctl("networks", "leave", RED)
        assert [row["network"] for row in alpha.json("proxy")] == [BLUE]
        assert {row["network"] for row in alpha.json("nodes")} == {BLUE}
        for node, other in ((alpha, beta), (beta, alpha)):
            node.watch(
                ["nodes", "--network", BLUE, "--watch", "--json"],
                shows_connected(other.peer_id),
                10,
            )
        # beta learns no more of alpha in red.
        row = beta.row(alpha, RED)
        assert row is not None
        assert row["path"] == "none"
