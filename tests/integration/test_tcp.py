"""The data path: what TCP promises holds from one end of a proxy pair to the other."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import random
import resource
import select
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterator

import psutil
import pytest
import trio

from tests.integration.nodes import Node, connected
from tests.integration.services import connect, echo, receive_all, receive_exactly, service
from tests.integration.tunnels import Ends, digest_of, ending, ending_of, ends, reset, tunnel

MIB = 1024 * 1024
# Of the kernel's six socket buffers on the way (a few MiB each at most), hived's windows (4 MiB) and queues.
IN_FLIGHT = 48 * MIB
# What each hived may hold of one stalled connection: a window, a queue, and slack for the allocator.
HELD = 16 * MIB


@pytest.fixture(scope="module")
def link(pair: tuple[Node, Node]) -> Iterator[Ends]:
    """One tunnel for all tests that leave it alone."""
    with ends(*pair) as link:
        yield link


def _start(function: Callable[..., None], *arguments: object) -> threading.Thread:
    thread = threading.Thread(target=function, args=arguments)
    thread.start()
    return thread


def _send_and_end(connection: socket.socket, data: bytes) -> None:
    connection.sendall(data)
    connection.shutdown(socket.SHUT_WR)


# Ends


def test_a_client_may_end_first(link: Ends) -> None:
    """After the client's half-close the server still answers: `nc`, `ssh` and HTTP/1.0 need it."""
    answer = os.urandom(3 * MIB)
    with link.connection() as (client, server):
        client.sendall(b"question")
        client.shutdown(socket.SHUT_WR)
        assert receive_all(server) == b"question"
        sender = _start(_send_and_end, server, answer)
        assert receive_all(client) == answer
        sender.join()


def test_a_server_may_end_first(link: Ends) -> None:
    """After the server's half-close the client still talks."""
    rest = os.urandom(3 * MIB)
    with link.connection() as (client, server):
        server.sendall(b"greeting")
        server.shutdown(socket.SHUT_WR)
        assert receive_all(client) == b"greeting"
        sender = _start(_send_and_end, client, rest)
        assert receive_all(server) == rest
        sender.join()


@pytest.mark.parametrize("who", ["client", "server"])
@pytest.mark.parametrize("when", ["idle", "after data", "after the other's end", "after its own end"])
def test_a_reset_stays_a_reset(link: Ends, who: str, when: str) -> None:
    """RST at one end is RST at the other, never an orderly end: half a file must not look whole."""
    with link.connection() as (client, server):
        breaking, watching = (client, server) if who == "client" else (server, client)
        if when == "after data":
            breaking.sendall(b"half a f")
            assert receive_exactly(watching, 8) == b"half a f"
            watching.sendall(b"more, please")
            assert receive_exactly(breaking, 12)
        elif when == "after the other's end":
            watching.shutdown(socket.SHUT_WR)
            assert breaking.recv(1) == b""
        elif when == "after its own end":
            breaking.shutdown(socket.SHUT_WR)
            assert watching.recv(1) == b""
        reset(breaking)
        if when == "after its own end":
            # TCP has told this reader that all is well; a writer learns the truth.
            with pytest.raises((ConnectionResetError, BrokenPipeError)):
                _write_for_ever(watching)
        else:
            assert ending(watching) == "reset"
    _nothing_lives(link)


@pytest.mark.parametrize("who", ["client", "server"])
def test_a_reset_is_noticed_by_a_silent_other_end(link: Ends, who: str) -> None:
    """Who ended its half and then died is noticed though nobody writes: no connection stays behind."""
    with link.connection() as (client, server):
        breaking, watching = (client, server) if who == "client" else (server, client)
        breaking.shutdown(socket.SHUT_WR)
        assert watching.recv(1) == b""
        with contextlib.closing(select.epoll()) as poll:
            # Errors only, told unasked: neither a read nor a write may be what finds out.
            poll.register(watching, 0)
            reset(breaking)
            assert poll.poll(10), "nobody told"
    _nothing_lives(link)


def _write_for_ever(connection: socket.socket) -> None:
    """Write small pieces until it fails; TimeoutError when it does not."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        connection.sendall(b"x" * 1024)
        time.sleep(0.01)
    raise TimeoutError("writing did not fail")


def _nothing_lives(link: Ends) -> None:
    for node in (link.tunnel.client, link.tunnel.server):
        link.tunnel.await_idle(node)


# Flow


def test_back_pressure(pair: tuple[Node, Node], link: Ends) -> None:
    """A reader that does not read stops its writer and nobody else; nothing is lost, no memory is filled."""
    blob = os.urandom(MIB)
    sent = hashlib.sha256()
    processes = [psutil.Process(node.process.pid) for node in pair if node.process]
    with link.connection() as (client, server):
        before = [process.memory_info().rss for process in processes]
        count = _fill(client, blob, sent, limit=256 * MIB)
        assert count < IN_FLIGHT
        for process, rss in zip(processes, before, strict=True):
            assert process.memory_info().rss - rss < HELD
        with link.connection() as (other_client, other_server):
            sender = _start(other_client.sendall, blob)
            assert receive_exactly(other_server, len(blob)) == blob
            sender.join()
        # Still stalled: the neighbour did not make room for it.
        assert _fill(client, blob, sent, limit=MIB, start=count) < MIB
        reader: list[str] = []
        draining = _start(lambda: reader.append(digest_of(server)))
        client.settimeout(20)
        for _ in range(4):
            client.sendall(blob)
            sent.update(blob)
        client.shutdown(socket.SHUT_WR)
        draining.join(60)
        assert reader == [sent.hexdigest()]


def _fill(connection: socket.socket, blob: bytes, sent: hashlib._Hash, limit: int, start: int = 0) -> int:
    """Write until it has been impossible for a second, or ``limit`` bytes have gone; how many have.

    ``start``: how many bytes of repeated ``blob`` went before.
    """
    connection.setblocking(False)
    count = 0
    with selectors.DefaultSelector() as selector:
        selector.register(connection, selectors.EVENT_WRITE)
        while count < limit and selector.select(1.0):
            at = (start + count) % len(blob)
            with contextlib.suppress(BlockingIOError):
                done = connection.send(blob[at : at + 262144])
                sent.update(blob[at : at + done])
                count += done
    return count


@pytest.mark.parametrize("seconds", [4, pytest.param(100, marks=pytest.mark.full)])
def test_an_idle_connection_lives(link: Ends, seconds: int) -> None:
    """Silence is no error, whole or half closed."""
    with link.connection() as (client, server), link.connection() as (half_client, half_server):
        half_client.shutdown(socket.SHUT_WR)
        assert half_server.recv(1) == b""
        time.sleep(seconds)
        client.sendall(b"still here")
        assert receive_exactly(server, 10) == b"still here"
        server.sendall(b"so am I")
        assert receive_exactly(client, 7) == b"so am I"
        half_server.sendall(b"late answer")
        assert receive_exactly(half_client, 11) == b"late answer"


def test_two_hundred_connections_at_once(pair: tuple[Node, Node]) -> None:
    """200 open connections, then 200 transfers of random sizes at the same time; every checksum is right."""
    rng = random.Random(200)
    blob = rng.randbytes(300_000)
    with service(echo) as target, tunnel(*pair, target.port) as made:
        trio.run(_many, made.port, [rng.randrange(1, len(blob)) for _ in range(200)], blob)
        row = made.await_idle(pair[0])
        assert row["connections_total"] == 200
        assert row["error"] is None


async def _many(port: int, sizes: list[int], blob: bytes) -> None:
    opened, all_open = trio.open_memory_channel[None](len(sizes))

    async def one(size: int, start: trio.Event) -> None:
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        await stream.send_all(b"!")
        assert await stream.receive_some(1) == b"!"
        opened.send_nowait(None)
        await start.wait()
        received = hashlib.sha256()
        async with stream, trio.open_nursery() as nursery:
            nursery.start_soon(_send, stream, blob[:size])
            async for data in stream:
                received.update(data)
        assert received.digest() == hashlib.sha256(blob[:size]).digest()

    with trio.fail_after(60):
        start = trio.Event()
        async with trio.open_nursery() as nursery:
            for size in sizes:
                nursery.start_soon(one, size, start)
            for _ in sizes:
                await all_open.receive()
            start.set()


async def _send(stream: trio.SocketStream, data: bytes) -> None:
    await stream.send_all(data)
    await stream.send_eof()


@pytest.mark.full
def test_connections_are_bounded(pair: tuple[Node, Node]) -> None:
    """The 1,025th connection waits, and is served when one of the 1,024 before it ends."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    with contextlib.ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        link = stack.enter_context(ends(*pair))
        live = [link.dial() for _ in range(1024)]
        for connection in itertools.chain(*live):
            stack.enter_context(connection)
        late = stack.enter_context(connect(link.tunnel.port))
        link.listener.settimeout(2)
        with pytest.raises(TimeoutError):
            link.listener.accept()
        for connection in live[0]:
            connection.close()
        link.listener.settimeout(20)
        server = stack.enter_context(link.listener.accept()[0])
        late.sendall(b"at last")
        assert receive_exactly(server, 7) == b"at last"


# What is not there


def test_a_target_that_is_not_there(pair: tuple[Node, Node]) -> None:
    """The client gets a reset, both nodes say why, and the proxy works as soon as the target does."""
    alpha, beta = pair
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with tunnel(alpha, beta, port) as made:
        assert ending_of(made.port) == "reset"
        assert f"nothing answers there on port {port}" in made.row(alpha)["error"]
        assert "connection refused" in made.row(beta)["error"]
        with socket.create_server(("127.0.0.1", port)) as listener, connect(made.port) as client:
            listener.settimeout(10)
            server, _ = listener.accept()
            with server:
                server.sendall(b"back")
            assert receive_all(client) == b"back"
        for node in pair:
            assert made.await_idle(node)["error"] is None


def test_an_ingress_that_is_not_there(pair: tuple[Node, Node]) -> None:
    """The client gets a reset; egress says why, and the other node logs who wanted what."""
    alpha, beta = pair
    with ends(alpha, beta) as link:
        beta.ctl("proxy", "rm", str(link.tunnel.ingress))
        before = len(beta.log.lines)
        assert ending_of(link.tunnel.port) == "reset"
        assert "no ingress proxy" in link.tunnel.row(alpha)["error"]
        line = beta.log.wait_for("no such ingress proxy", 5, before)
        assert f"egress_port={link.tunnel.port}" in line
        assert f"ingress_port={link.tunnel.target}" in line
        assert alpha.peer_id in line


def test_the_other_node_is_down(pair: tuple[Node, Node]) -> None:
    """The client gets a reset within 10 s, egress says why, and all works again when the node is back."""
    alpha, beta = pair
    with ends(alpha, beta) as link:
        with link.connection() as (client, _):
            beta.kill()
            try:
                assert ending(client) == "reset"
                start = time.monotonic()
                assert ending_of(link.tunnel.port) == "reset"
                assert time.monotonic() - start < 10 + 1
                assert "connection refused" in link.tunnel.row(alpha)["error"]
            finally:
                beta.start()
        alpha.await_row(beta, connected, 10)
        with link.connection() as (client, server):
            server.sendall(b"back")
            assert receive_exactly(client, 4) == b"back"


@pytest.mark.full
def test_the_other_node_does_not_answer(pair: tuple[Node, Node]) -> None:
    """A node that hangs (SIGSTOP) costs a client 10 s, and is the same as before when it goes on."""
    alpha, beta = pair
    with ends(alpha, beta) as link:
        with beta.frozen():
            start = time.monotonic()
            assert ending_of(link.tunnel.port) == "reset"
            assert time.monotonic() - start < 10 + 1
            assert link.tunnel.row(alpha)["error"]
        # The one that was given up may still arrive; the next is another.
        with contextlib.suppress(OSError):
            link.listener.settimeout(2)
            link.listener.accept()[0].close()
        link.listener.settimeout(20)
        with link.connection() as (client, server):
            server.sendall(b"back")
            assert receive_exactly(client, 4) == b"back"


# Changes while connections live


@pytest.mark.parametrize("end", ["egress", "ingress"])
@pytest.mark.parametrize("verb", ["disable", "rm"])
def test_disabled_and_removed_proxies_cut_connections(pair: tuple[Node, Node], end: str, verb: str) -> None:
    """Both ends of a live connection get a reset; an egress's port is free; enabled, it works again."""
    alpha, beta = pair
    with ends(alpha, beta) as link:
        node, proxy_id = (alpha, link.tunnel.egress) if end == "egress" else (beta, link.tunnel.ingress)
        with link.connection() as (client, server):
            client.sendall(b"live")
            assert receive_exactly(server, 4) == b"live"
            node.ctl("proxy", verb, str(proxy_id))
            assert ending(client) == "reset"
            assert ending(server) == "reset"
        if end == "egress":
            with pytest.raises(ConnectionRefusedError):
                connect(link.tunnel.port)
            with socket.create_server(("127.0.0.1", link.tunnel.port)):
                pass
        else:
            assert ending_of(link.tunnel.port) == "reset"
        if verb == "rm":
            assert node.ctl("proxy", "show", str(proxy_id), check=False).code == 5
            return
        assert link.tunnel.row(node)["state"] == "disabled"
        node.ctl("proxy", "enable", str(proxy_id))
        with link.connection() as (client, server):
            server.sendall(b"again")
            assert receive_exactly(client, 5) == b"again"


def test_a_taken_port_leaves_nothing_behind(pair: tuple[Node, Node]) -> None:
    """Exit code 6 and one line; no row is kept, also not over a restart; nothing enabled half-way."""
    alpha, beta = pair
    before = {row["id"] for row in alpha.json("proxy", "ls")}
    with ends(alpha, beta) as link:
        alpha.ctl("proxy", "disable", str(link.tunnel.egress))
        with socket.create_server(("127.0.0.1", link.tunnel.port)) as taken:
            port = taken.getsockname()[1]
            for arguments in (
                ("add", "egress", str(port), f"{beta.peer_id}:1", "--bind", "127.0.0.1"),
                ("enable", str(link.tunnel.egress)),
            ):
                result = alpha.ctl("proxy", *arguments, check=False)
                assert result.code == 6
                assert result.err.count("\n") == 1
                assert f"port {port} is taken" in result.err
                assert result.out == ""
            assert alpha.stop() == 0
            alpha.start()
            rows = [row for row in alpha.json("proxy", "ls") if row["id"] not in before]
            assert [(row["id"], row["state"]) for row in rows] == [(link.tunnel.egress, "disabled")]
    alpha.await_row(beta, connected, 10)


def test_a_port_taken_at_start_is_used_when_it_is_free(pair: tuple[Node, Node]) -> None:
    """hived starts without it and says so, keeps trying, and forwards as soon as it can."""
    alpha, beta = pair
    with ends(alpha, beta) as link:
        alpha.stop()
        with socket.create_server(("127.0.0.1", link.tunnel.port)):
            alpha.start()
            row = link.tunnel.row(alpha)
            assert row["state"] == "error"
            assert "taken" in row["error"]
        assert link.tunnel.watch(alpha, state="listening", error=None)
        with link.connection() as (client, server):
            server.sendall(b"free")
            assert receive_exactly(client, 4) == b"free"
