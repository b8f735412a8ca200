"""The data plane's promises over two real hived: gigabytes, stalls, many connections, a dead far side.

``make soak`` runs the transfers with SOAK_GIB=10.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import socket
import threading
import time
from collections.abc import Iterator

import psutil
import pytest

from tests.integration.nodes import Node
from tests.integration.rawhttp import await_open_files, open_files
from tests.integration.services import connect, echo, receive_all, receive_exactly, service
from tests.integration.tunnels import Ends, digest_of, ending, ends, tunnel

MIB = 1024 * 1024
GIB = int(os.environ.get("SOAK_GIB", "1"))
# Of the kernel's socket buffers on the way (some MiB each) and hived's windows.
IN_FLIGHT = 48 * MIB
# What one hived may keep of it all: buffers of its own, and slack of the allocator.
HELD = 24 * MIB


@pytest.fixture(scope="module")
def link(pair: tuple[Node, Node]) -> Iterator[Ends]:
    with ends(*pair) as link:
        yield link


def memory(nodes: tuple[Node, ...]) -> list[int]:
    """Resident bytes of each node's hived."""
    return [psutil.Process(node.process.pid).memory_info().rss for node in nodes if node.process]


def send_noise(connection: socket.socket, total: int, seed: int, digests: list[str]) -> None:
    """Send ``total`` bytes that do not repeat within 64 MiB, then the end; their SHA-256 to ``digests``."""
    blob = memoryview(random.Random(seed).randbytes(64 * MIB))
    found, sent = hashlib.sha256(), 0
    while sent < total:
        part = blob[sent % len(blob) :][: min(MIB, total - sent)]
        connection.sendall(part)
        found.update(part)
        sent += len(part)
    connection.shutdown(socket.SHUT_WR)
    digests.append(found.hexdigest())


@pytest.mark.timeout(120 + 120 * GIB)
@pytest.mark.parametrize("direction", ["up", "down"])
def test_gigabytes_arrive_whole(pair: tuple[Node, Node], link: Ends, direction: str) -> None:
    """SOAK_GIB (1) through one proxied connection: equal SHA-256, and memory as it was."""
    before = memory(pair)
    digests: list[str] = []
    with link.connection() as (client, server):
        writer, reader = (client, server) if direction == "up" else (server, client)
        sender = threading.Thread(target=send_noise, args=(writer, GIB * 1024 * MIB, 7, digests))
        sender.start()
        received = digest_of(reader)
        sender.join()
    assert digests == [received]
    for rss, was in zip(memory(pair), before, strict=True):
        assert rss - was < HELD


@pytest.mark.timeout(200)
@pytest.mark.parametrize("seconds", [3, pytest.param(60, marks=pytest.mark.full)])
def test_a_reader_that_sleeps_and_then_drains(pair: tuple[Node, Node], link: Ends, seconds: int) -> None:
    """A fast writer meets a reader that sleeps: memory stays flat, others go on, and all of it comes."""
    before = memory(pair)
    digests: list[str] = []
    with link.connection() as (client, server):
        client.settimeout(seconds + 60)
        sender = threading.Thread(target=send_noise, args=(client, 4 * IN_FLIGHT, 8, digests))
        sender.start()
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with link.connection() as (other, other_server):
                other.sendall(b"meanwhile")
                assert receive_exactly(other_server, 9) == b"meanwhile"
            time.sleep(0.2)
        assert not digests, "nothing stopped the writer"
        for rss, was in zip(memory(pair), before, strict=True):
            assert rss - was < HELD
        received = digest_of(server)
        sender.join()
    assert digests == [received]


def test_a_thousand_connections_leave_nothing(pair: tuple[Node, Node]) -> None:
    """1,000 connects and ends of every kind: no slot, no file, no thread, no memory stays."""
    noise = random.Random(4)
    with service(echo) as target, tunnel(*pair, target.port) as made:
        for _ in range(100):
            _come_and_go(made.port, noise)
        made.await_idle(pair[0])
        made.await_idle(pair[1])
        files, rss = [open_files(node) for node in pair], memory(pair)
        threads = [psutil.Process(node.process.pid).num_threads() for node in pair if node.process]
        for _ in range(1000):
            _come_and_go(made.port, noise)
        for node, were in zip(pair, files, strict=True):
            assert made.await_idle(node)["connections"] == 0
            await_open_files(node, were)
        for were_running, node in zip(threads, pair, strict=True):
            assert node.process is not None
            # A connection that kept one would make it 1,000; trio's own come and go with the idle work.
            assert psutil.Process(node.process.pid).num_threads() <= were_running + 3
        for now, was in zip(memory(pair), rss, strict=True):
            # 1,000 Streams would be 1 MiB; the allocator keeps some of what it once had.
            assert now - was < 4 * MIB
        assert made.row(pair[0])["error"] is None


def _come_and_go(port: int, noise: random.Random) -> None:
    with connect(port) as client:
        how = noise.randrange(4)
        if how == 0:
            return  # Without a word.
        client.sendall(b"x" * noise.randrange(1, 3000))
        if how == 1:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        elif how == 2:
            client.recv(1)
        else:
            client.shutdown(socket.SHUT_WR)
            receive_all(client)


@pytest.mark.full
def test_a_far_side_that_died_is_noticed(two: tuple[Node, Node]) -> None:
    """An idle path to a node that is gone without a word ends within 30 s, and so do its connections."""
    alpha, beta = two
    with service(echo) as target, tunnel(alpha, beta, target.port) as made, connect(made.port, 40) as idle:
        idle.sendall(b"hello")
        assert receive_exactly(idle, 5) == b"hello"
        with beta.frozen():
            start = time.monotonic()
            with pytest.raises(ConnectionResetError):
                idle.recv(1)
            assert time.monotonic() - start <= 30
            assert (alpha.row(beta) or {})["path"] == "none"


@pytest.mark.parametrize("which", ["egress", "ingress"])
def test_kill_9_is_a_reset_for_who_is_connected(two: tuple[Node, Node], which: str) -> None:
    """Not an orderly end, at either end: half of what was to come would look like all of it."""
    alpha, beta = two
    with ends(alpha, beta) as made, made.connection() as (client, server):
        client.sendall(b"half of it")
        assert receive_exactly(server, 10) == b"half of it"
        server.sendall(b"and")
        assert receive_exactly(client, 3) == b"and"
        (alpha if which == "egress" else beta).kill()
        assert (ending(client), ending(server)) == ("reset", "reset")


def test_kill_9_of_the_far_side_is_noticed(two: tuple[Node, Node]) -> None:
    """Its kernel says so: at once. What lived is reset, and what comes is refused in time."""
    alpha, beta = two
    with service(echo) as target, tunnel(alpha, beta, target.port) as made, connect(made.port, 30) as idle:
        idle.sendall(b"hello")
        assert receive_exactly(idle, 5) == b"hello"
        beta.kill()
        with pytest.raises(ConnectionResetError):
            idle.recv(1)
        with contextlib.suppress(ConnectionResetError), connect(made.port, 20) as client:
            assert client.recv(1) == b""
