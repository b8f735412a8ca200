"""Egress and ingress together: a TCP connection through both, and each way in which it can be refused."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from hived.errors import HiveError, Kind
from hived.overlay.networkkeys import network_id
from hived.overlay.wire import ProtocolError
from hived.proxy import egress
from hived.proxy.counters import Counters
from hived.proxy.egress import EgressProxy, Route
from hived.proxy.header import PROXY, Header, Verdict, parse_verdict, send_header
from hived.proxy.ingress import IngressProxy, Origin
from tests.unit.proxy.nodes import NETWORK, PEER, Link, link
from tests.unit.proxy.tunnels import dial, echo, free_port, read_all, served
from tests.unit.transport.pairs import (
    settle,
    trio_test,
)


@asynccontextmanager
async def forwarding(
    one: Link,
    target: int,
    host: str | None = None,
    events: list[str] | None = None,
    **options: int,
) -> AsyncIterator[tuple[EgressProxy, IngressProxy]]:
    """An egress listener that leads to ``target`` on the other side."""
    (sock,) = egress.bind("127.0.0.1", free_port())
    port = sock.getsockname()[1]
    ingress = IngressProxy(
        Origin(NETWORK, PEER, port, target),
        host,
        Counters(one.plane),
        limit=options.get("ingress", 1024),
        name=one.name,
    )
    one.ingress.add(ingress)
    proxy = EgressProxy(
        Route(NETWORK, PEER, port, target),
        [sock],
        one.overlay,
        limit=options.get("egress", 1024),
        on_event=events.append if events is not None else None,
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(proxy.run)
        yield proxy, ingress
        nursery.cancel_scope.cancel()


async def connect(proxy: EgressProxy) -> trio.SocketStream:
    return await dial(proxy.route.port)


def trouble(proxy: EgressProxy | IngressProxy) -> str:
    return proxy.counters.trouble.why if proxy.counters.trouble else ""


async def reset_of(proxy: EgressProxy) -> None:
    """A connection that is let in and then reset."""
    client = await connect(proxy)
    with pytest.raises(trio.BrokenResourceError):
        while await client.receive_some():
            pass
        raise AssertionError("an end instead of a reset")
    with trio.fail_after(5):
        await proxy.counters.idle()
    # Why is told on trio's side, behind the reset.
    await settle()


@pytest.mark.parametrize("at_once", [True, False], ids=["at once", "by trio"])
@pytest.mark.parametrize("host", [None, "127.0.0.1", "localhost"])
def test_through_and_back(host: str | None, at_once: bool) -> None:
    async def main() -> None:
        async with (
            link(at_once=at_once) as one,
            served(echo) as target,
            forwarding(one, target, host) as (proxy, ingress),
        ):
            client = await connect(proxy)
            await client.send_all(b"hello" * 20000)
            await client.send_eof()
            assert await read_all(client) == b"hello" * 20000
            await proxy.counters.idle()
            await ingress.counters.idle()
            assert (proxy.counters.total, proxy.counters.bytes_in, proxy.counters.bytes_out) == (
                1,
                100000,
                100000,
            )
            assert ingress.counters.bytes_in == ingress.counters.bytes_out == 100000
            assert proxy.counters.last_error is None
            assert one.near.tunnel.expects_data

    trio.run(main)


@trio_test
async def test_who_speaks_first_may_be_the_target() -> None:
    async def greet(stream: trio.SocketStream) -> None:
        await stream.send_all(b"220 ready")
        await stream.send_eof()
        assert await read_all(stream) == b"quit"

    async with link() as one, served(greet) as target, forwarding(one, target) as (proxy, _):
        client = await connect(proxy)
        assert await read_all(client) == b"220 ready"
        await client.send_all(b"quit")
        await client.send_eof()
        await proxy.counters.idle()


@trio_test
async def test_megabytes_each_way_at_once() -> None:
    async with link() as one, served(echo) as target, forwarding(one, target) as (proxy, _):
        client = await connect(proxy)
        data = os.urandom(10_000_000)
        async with trio.open_nursery() as nursery:

            async def send() -> None:
                await client.send_all(data)
                await client.send_eof()

            nursery.start_soon(send)
            assert await read_all(client) == data
        await proxy.counters.idle()


@trio_test
async def test_a_thousand_connections_leave_nothing() -> None:
    """Ended in order, by the client's reset, and by the target's."""

    async def serve(stream: trio.SocketStream) -> None:
        with contextlib.suppress(trio.BrokenResourceError):
            if (await stream.receive_some()).startswith(b"reset"):
                stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return
            await echo(stream)

    async with link() as one, served(serve) as target, forwarding(one, target) as (proxy, ingress):
        await settle()
        handlers = len(one.plane._handlers)

        async def some(kind: int) -> None:
            for _ in range(50):
                with contextlib.suppress(trio.BrokenResourceError):
                    client = await connect(proxy)
                    await client.send_all(b"reset" if kind % 3 == 1 else b"x")
                    if kind % 3 == 2:
                        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                        await client.aclose()
                        continue
                    await client.send_eof()
                    await read_all(client)

        async with trio.open_nursery() as nursery:
            for kind in range(20):
                nursery.start_soon(some, kind)
        await proxy.counters.idle()
        await ingress.counters.idle()
        await settle()
        assert proxy.counters.total == 1000
        assert (proxy.counters.connections, ingress.counters.connections) == (0, 0)
        assert one.near.stream_count == one.far.stream_count == 0
        assert (one.plane.budget.windows, one.plane.budget.buffered) == (0, 0)
        assert len(one.plane._handlers) == handlers
        assert not ingress._live
        acceptor = proxy._acceptor
        for kept in (acceptor._live, acceptor._waiting, acceptor._queued, acceptor._unanswered):
            assert len(kept) == 0
        assert acceptor._lent == 0
        live = [timer for _, _, timer in one.plane._timers if not timer.cancelled]
        # Two of keep-alive, one of the acceptor's for all its connections, two of the counters'.
        assert len(live) <= 5


@trio_test
async def test_those_who_come_before_there_is_a_connection_wait_for_it() -> None:
    async with link() as one, served(echo) as target, forwarding(one, target) as (proxy, _):
        one.connected = False
        clients = [await connect(proxy) for _ in range(5)]
        for number, client in enumerate(clients):
            await client.send_all(bytes([number]))
        for number, client in enumerate(clients):
            assert await client.receive_some() == bytes([number])
        assert one.connects == 1


@trio_test
async def test_many_at_once() -> None:
    async with link() as one, served(echo) as target, forwarding(one, target) as (proxy, _):

        async def one_client(number: int) -> None:
            client = await connect(proxy)
            await client.send_all(bytes([number]) * 5000)
            await client.send_eof()
            assert await read_all(client) == bytes([number]) * 5000

        async with trio.open_nursery() as nursery:
            for number in range(60):
                nursery.start_soon(one_client, number)
        await proxy.counters.idle()
        assert proxy.counters.total == 60


@pytest.mark.parametrize("at_once", [True, False], ids=["at once", "by trio"])
@trio_test
async def test_nothing_answers_at_the_target(at_once: bool) -> None:
    async with link(at_once=at_once) as one, forwarding(one, free_port()) as (proxy, ingress):
        await reset_of(proxy)
        assert "nothing answers" in (proxy.counters.last_error or "")
        assert "connection refused" in (ingress.counters.last_error or "")


@pytest.mark.parametrize("host", ["foo..bar", "x" * 64, "no-such-host.invalid"])
def test_a_target_whose_name_nobody_knows(host: str) -> None:
    """Also one that no resolver takes: an older hived let it in."""

    async def main() -> None:
        async with link() as one, forwarding(one, free_port(), host) as (proxy, ingress):
            await reset_of(proxy)
            assert "nothing answers" in (proxy.counters.last_error or "")
            assert "the host name is not known" in (ingress.counters.last_error or "")

    trio.run(main)


@trio_test
async def test_no_ingress_for_it() -> None:
    async with link() as one, served(echo) as target, forwarding(one, target) as (proxy, ingress):
        one.ingress.remove(ingress)
        await reset_of(proxy)
        assert "no ingress proxy" in (proxy.counters.last_error or "")
        one.ingress.add(ingress)
        one.ingress.accepting = False
        await reset_of(proxy)


@trio_test
async def test_the_other_node_is_away() -> None:
    events: list[str] = []
    async with link() as one, forwarding(one, 1, events=events) as (proxy, _):
        one.reachable = False
        await reset_of(proxy)
        assert events == [proxy.counters.last_error] == ["connecting failed: no answer"]


@trio_test
async def test_the_ingress_is_full() -> None:
    async with link() as one, served(echo) as target, forwarding(one, target, ingress=1) as (proxy, _):
        first = await connect(proxy)
        await first.send_all(b"x")
        assert await first.receive_some() == b"x"
        second = await connect(proxy)
        with pytest.raises(trio.BrokenResourceError):
            await second.receive_some()
        await settle()
        assert proxy.counters.connections == 1
        assert "no free connection" in (proxy.counters.last_error or "")
        await first.aclose()


@trio_test
async def test_beyond_egress_limit_connections_wait(caplog: pytest.LogCaptureFixture) -> None:
    async with link() as one, served(echo) as target, forwarding(one, target, egress=1) as (proxy, _):
        for _ in range(3):
            first, second = await connect(proxy), await connect(proxy)
            await second.send_all(b"second")
            await first.send_all(b"x")
            assert await first.receive_some() == b"x"
            assert proxy.counters.connections == 1
            assert "1 connections, the most" in trouble(proxy)
            await first.aclose()
            assert await second.receive_some() == b"second"
            await second.aclose()
            await proxy.counters.idle()
            assert proxy.counters.trouble is None
        # However often connections come and go at the limit.
        assert caplog.text.count("a proxy is full") == 1


@trio_test
async def test_a_target_that_is_away_is_logged_once_until_it_answers(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with link() as one, trio.open_nursery() as nursery:
        target = free_port()
        async with forwarding(one, target) as (proxy, ingress):
            for _ in range(3):
                await reset_of(proxy)
            assert caplog.text.count("target of an ingress proxy does not answer") == 1
            assert f"on this machine, port {target}: connection refused" in trouble(ingress)
            listeners = await trio.open_tcp_listeners(target, host="127.0.0.1")
            serving = trio.CancelScope()

            async def serve() -> None:
                with serving:
                    await trio.serve_listeners(echo, listeners)

            nursery.start_soon(serve)
            client = await connect(proxy)
            await client.send_all(b"x")
            assert await client.receive_some() == b"x"
            assert ingress.counters.trouble is None
            await client.aclose()
            serving.cancel()
            for listener in listeners:
                await listener.aclose()
            await reset_of(proxy)
            assert caplog.text.count("target of an ingress proxy does not answer") == 2


@trio_test
async def test_lines_about_connections_name_the_peer(caplog: pytest.LogCaptureFixture) -> None:
    async with link() as one, forwarding(one, free_port(), ingress=0) as (proxy, ingress):
        await reset_of(proxy)
        ingress.limit = 1
        await reset_of(proxy)
        one.ingress.remove(ingress)
        await reset_of(proxy)
    lines = {
        record.getMessage(): getattr(record, "fields", {})
        for record in caplog.records
        if record.name.startswith("hived.proxy")
    }
    assert lines.keys() == {
        "forwarding a connection failed",
        "the target of an ingress proxy does not answer",
        "too many connections on an ingress proxy",
        "a connection was refused: no such ingress proxy",
    }
    for fields in lines.values():
        assert (fields["peer"], fields["name"]) == (PEER, f"name of {PEER}")


@trio_test
async def test_only_the_very_origin_is_let_in() -> None:
    """Network, peer and both ports: one that differs, and the target is not even dialled."""
    accepted: list[bool] = []

    async def count(stream: trio.SocketStream) -> None:
        accepted.append(True)
        await echo(stream)

    async def asked(one: Link, network: str, egress_port: int, ingress_port: int) -> Verdict:
        stream = await one.outgoing.open_stream(PROXY)
        await send_header(
            stream, Header(network=network_id(network), egress_port=egress_port, ingress_port=ingress_port)
        )
        try:
            said = await stream.receive_some(1)
            if not said:
                raise ProtocolError("no verdict")
            return parse_verdict(said[0])
        finally:
            stream.reset()

    async with link() as one, served(count) as target, forwarding(one, target) as (proxy, _):
        port = proxy.route.port
        assert await asked(one, NETWORK, port + 1, target) is Verdict.NO_INGRESS
        assert await asked(one, NETWORK, target, port) is Verdict.NO_INGRESS
        assert await asked(one, NETWORK, port, port) is Verdict.NO_INGRESS
        with pytest.raises((trio.BrokenResourceError, ProtocolError)):
            await asked(one, "another", port, target)
        one.connection.peer_id = "somebody-else"
        assert await asked(one, NETWORK, port, target) is Verdict.NO_INGRESS
        assert accepted == []
        one.connection.peer_id = PEER
        assert await asked(one, NETWORK, port, target) is Verdict.OPEN


@trio_test
async def test_cut_ends_live_connections_with_a_reset() -> None:
    async with link() as one, served(echo) as target, forwarding(one, target) as (proxy, ingress):
        client = await connect(proxy)
        await client.send_all(b"x")
        assert await client.receive_some() == b"x"
        one.ingress.remove(ingress)
        with pytest.raises(trio.BrokenResourceError):
            await client.receive_some()
        await ingress.counters.idle()
        await settle()
        assert ingress._live == set()


@trio_test
async def test_drain_lets_live_connections_end() -> None:
    async with link() as one, served(echo) as target, forwarding(one, target) as (proxy, _):
        client = await connect(proxy)
        await client.send_all(b"x")
        assert await client.receive_some() == b"x"
        proxy.drain()
        await settle()
        with pytest.raises(ConnectionRefusedError):
            await connect(proxy)
        await client.send_all(b"still")
        assert await client.receive_some() == b"still"


# Binding


def test_bind_all_addresses_and_one() -> None:
    port = free_port()
    sockets = egress.bind(None, port)
    assert {sock.getsockname()[0] for sock in sockets} <= {"0.0.0.0", "::"}
    assert {sock.getsockname()[1] for sock in sockets} == {port}
    for kind, bind in ((Kind.CONFLICT, "127.0.0.1"), (Kind.CONFLICT, None)):
        with pytest.raises(HiveError) as caught:
            egress.bind(bind, port)
        assert caught.value.kind is kind
    for sock in sockets:
        sock.close()
    for sock in egress.bind("127.0.0.1", port):
        sock.close()


@pytest.mark.parametrize("host", ["not-an-ip", "192.0.2.1", "localhost", "127.0.0.1/8"])
def test_bind_elsewhere(host: str) -> None:
    with pytest.raises(HiveError) as caught:
        egress.bind(host, free_port())
    assert caught.value.kind is Kind.USAGE


def test_a_taken_ipv6_port_frees_the_ipv4_one() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    try:
        taken = socket.create_server(("::", port), family=socket.AF_INET6)
    except OSError:
        pytest.skip("no IPv6 here")
    with taken:
        with pytest.raises(HiveError) as caught:
            egress.bind(None, port)
        assert caught.value.kind is Kind.CONFLICT
        socket.create_server(("127.0.0.1", port)).close()
