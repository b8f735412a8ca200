"""Relays: what goes over them, what becomes of it when one dies, and what they tell nobody."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.integration.nodes import Node, proxy
from tests.integration.postgres import postgres
from tests.needs import program
from tests.netns.host import Host
from tests.netns.lab import Lab
from tests.netns.meshes import NETWORK, await_path, await_relays, await_state, mesh
from tests.netns.test_hived import fetch, web

pytestmark = pytest.mark.requires("natlab")

MIB = 1 << 20
SECONDS = 60
# What the issue promises of a lost relay.
REPLACED = 15


def pair(lab: Lab, relays: int) -> tuple[list[Node], Node, Node, Host, Host]:
    """Relays on the internet, and two nodes behind symmetric NATs that reach each other over one of them."""
    publics = [lab.public(f"pub{number}") for number in range(relays)]
    near, far = lab.lan("home", "sym").host("near"), lab.lan("office", "sym").host("far")
    *nodes, a, b = mesh(lab, *publics, near, far, first=relays)
    await_path(a, b, SECONDS, "relayed")
    await_path(b, a, SECONDS, "relayed")
    return list(nodes), a, b, near, far


@contextlib.contextmanager
def sink(host: Host) -> Iterator[tuple[int, list[str]]]:
    """A server that reads each connection to its end and answers with the SHA-256; its port, what it read."""
    listener = host.call(lambda: socket.create_server(("127.0.0.1", 0)))
    told: list[str] = []

    def serve(connection: socket.socket) -> None:
        digest = hashlib.sha256()
        with connection:
            try:
                while data := connection.recv(1 << 18):
                    digest.update(data)
                told.append(digest.hexdigest())
                connection.sendall(told[-1].encode())
            except ConnectionResetError:
                told.append("reset")

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=listener.accept()[:1], daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1], told
    finally:
        # A close does not wake who accepts.
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)


def dial(host: Host, port: int) -> socket.socket:
    return host.call(lambda: socket.create_connection(("127.0.0.1", port), timeout=120))


def upload(host: Host, port: int, size: int) -> tuple[str, str]:
    """Send so many bytes and end; the SHA-256 of what was sent, and what the other side answers."""
    piece, digest = bytes(range(256)) * 4096, hashlib.sha256()
    with dial(host, port) as sock:
        for _ in range(size // len(piece)):
            sock.sendall(piece)
            digest.update(piece)
        sock.shutdown(socket.SHUT_WR)
        answer = b""
        while part := sock.recv(4096):
            answer += part
    return digest.hexdigest(), answer.decode()


@pytest.mark.timeout(200)
def test_a_relay_dies_in_the_middle_of_a_transfer(lab: Lab) -> None:
    """It fails with a reset, not half of it as a whole; the next connection works within 15 s."""
    relays, a, b, near, far = pair(lab, 3)
    with sink(far) as (port, told):
        door = proxy(a, b, port)
        # Whole first: more than all buffers on the way.
        sent, got = upload(near, door, 64 * MIB)
        assert sent == got
        row = a.row(b)
        assert row is not None
        relay = next(node for node in relays if node.peer_id == row["relay"])
        with dial(near, door) as sock:
            for _ in range(32):
                sock.sendall(bytes(MIB))
            relay.kill()
            with pytest.raises(OSError):
                for _ in range(256):
                    sock.sendall(bytes(MIB))
                sock.recv(1)
        began = time.monotonic()
        while True:
            with contextlib.suppress(OSError):
                sent, got = upload(near, door, MIB)
                if sent == got:
                    break
            assert time.monotonic() - began < REPLACED, a.ctl("proxy").out
            time.sleep(0.2)
        assert "reset" in told
        # And the two that are left are what others know of it.
        left = {node.peer_id for node in relays} - {relay.peer_id}
        await_relays(b, a, REPLACED, lambda found: found == left)
        # It comes back, and is used again: nothing is typed.
        relay.start()
        await_relays(b, a, SECONDS, lambda found: found == left | {relay.peer_id})


@pytest.mark.timeout(200)
def test_a_relay_vanishes_and_comes_back_with_another_address(lab: Lab) -> None:
    """No packet from it, and no word: it is replaced within 15 s, and used again once it is back."""
    relays, a, b, _, _ = pair(lab, 4)
    held = await_relays(b, a, SECONDS, lambda found: len(found) == 3)
    gone = next(node for node in relays[1:] if node.peer_id in held)
    host = lab.publics[gone.name]
    host.cut()
    began = time.monotonic()
    replaced = await_relays(b, a, SECONDS, lambda found: len(found) == 3 and gone.peer_id not in found)
    # And the news of it, which goes from member to member.
    assert time.monotonic() - began < REPLACED + 5
    assert gone.peer_id not in replaced
    host.mend()
    host.readdress()
    b.await_row(gone, lambda row: row["path"] == "direct", SECONDS)
    a.await_row(gone, lambda row: row["path"] == "direct", SECONDS)


@pytest.mark.full
@pytest.mark.timeout(300)
def test_a_gibibyte_over_a_relay(lab: Lab) -> None:
    """Each way, and nothing of it is lost."""
    _, a, b, near, far = pair(lab, 2)
    with sink(far) as (there, _), sink(near) as (here, _):
        for host, door in ((near, proxy(a, b, there)), (far, proxy(b, a, here))):
            sent, got = upload(host, door, 1024 * MIB)
            assert sent == got
    row = a.row(b)
    assert row is not None
    assert row["path"] == "relayed"


@pytest.mark.parametrize("seconds", [10, pytest.param(60, marks=pytest.mark.full)])
@pytest.mark.timeout(200)
def test_stalls_and_half_closes_over_a_relay(lab: Lab, seconds: int) -> None:
    """A reader that sleeps stalls its writer and nobody else; each end may end its side first."""
    _, a, b, near, far = pair(lab, 2)
    listener = far.call(lambda: socket.create_server(("127.0.0.1", 0)))
    listener.settimeout(30)
    with listener, web(far) as page:
        door, other = proxy(a, b, listener.getsockname()[1]), proxy(a, b, page)
        with dial(near, door) as client:
            server, _ = listener.accept()
            server.settimeout(seconds + 60)
            with server:
                client.sendall(b"hello")
                client.shutdown(socket.SHUT_WR)
                assert server.recv(100) == b"hello"
                assert server.recv(100) == b"", "a half-close is one, through both connections and the relay"
                done = threading.Event()
                sent = 16 * MIB

                def write() -> None:
                    server.sendall(bytes(sent))
                    server.shutdown(socket.SHUT_WR)
                    done.set()

                threading.Thread(target=write, daemon=True).start()
                assert not done.wait(seconds), "its reader sleeps"
                assert fetch(near, f"http://127.0.0.1:{other}/beside") == "you asked for /beside"
                received = 0
                while data := client.recv(1 << 18):
                    received += len(data)
                assert received == sent
                assert done.wait(5)


def test_two_networks_on_one_relay_learn_nothing_of_each_other(lab: Lab) -> None:
    """The relays are in both; a member of one never hears of the other's members."""
    pub1, pub2 = lab.public("pub1"), lab.public("pub2")
    ours, theirs = lab.lan("home", "sym").host("ours"), lab.lan("office", "sym").host("theirs")
    one, two, a, b = lab.nodes(pub1, pub2, ours, theirs)
    for node, networks in ((one, "ab"), (two, "ab"), (a, "a"), (b, "b")):
        for network in networks:
            node.create(network)
    for relay in (one, two):
        a.register(relay, "a")
        b.register(relay, "b")
    two.register(one, "a")
    for node in (a, b):
        await_state(node, SECONDS, "symmetric")
    # A node does not count itself among another's relays.
    for relay, other in ((one, two), (two, one)):
        for node in (a, b):
            await_relays(relay, node, SECONDS, {other.peer_id}.__eq__)
    assert {row["name"] for row in a.json("nodes")} == {a.name, one.name, two.name}
    assert {row["name"] for row in b.json("nodes")} == {b.name, one.name, two.name}


def test_a_relay_that_is_switched_off_serves_nobody(lab: Lab) -> None:
    """Its members are told, and use another."""
    publics = [lab.public("pub0"), lab.public("pub1")]
    near, far = lab.lan("home", "sym").host("near"), lab.lan("office", "sym").host("far")
    off = lab.node(publics[0], "--no-relay")
    others = [lab.node(host) for host in (publics[1], near, far)]
    for node in (off, *others):
        node.start(wait=False)
    for node in (off, *others):
        node.ready()
        node.create(NETWORK)
    for node in others:
        node.register(off, NETWORK)
    on, a, b = others
    await_path(a, b, SECONDS, "relayed")
    row = a.row(b)
    assert row is not None
    assert row["relay"] == on.peer_id
    assert off.json("netcheck")["relaying"] == "off"
    await_relays(off, a, 5, lambda found: found == {on.peer_id})


@pytest.mark.requires("postgres")
@pytest.mark.timeout(180)
def test_postgresql_from_nat_to_nat(lab: Lab) -> None:
    """A database in one LAN used from another, over a relay: psql, a bulk load with its checksum, a wait."""
    _, a, b, near, far = pair(lab, 2)
    with postgres(far.inside) as server:
        door = proxy(a, b, server.port)

        def sql(statement: str) -> str:
            where = ["--host", "127.0.0.1", "--port", str(door), "--username", "hive", "--dbname", "postgres"]
            quiet = ["--no-psqlrc", "--no-password", "--quiet", "--tuples-only", "--no-align"]
            return near.run(program("psql") or "psql", *where, *quiet, "--command", statement).strip()

        sql("CREATE TABLE t AS SELECT n, md5(n::text) AS hash FROM generate_series(1, 200000) AS n")
        assert sql("SELECT count(*), md5(string_agg(hash, '' ORDER BY n)) FROM t").startswith("200000|")
        rows = sql("SELECT hash FROM t ORDER BY n").split()
        assert hashlib.md5("".join(rows).encode()).hexdigest() == sql(
            "SELECT md5(string_agg(hash, '' ORDER BY n)) FROM t"
        )
        assert sql("SELECT 'waited' FROM pg_sleep(15)") == "waited"
