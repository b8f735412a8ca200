"""Egress and ingress together: a TCP connection through both, and each way in which it can be refused."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import trio_test

from hived.errors import HiveError, Kind
from hived.overlay.networkkeys import network_id
from hived.overlay.wire import ProtocolError
from hived.proxy import egress
from hived.proxy.egress import EgressProxy, Route
from hived.proxy.header import Header, Verdict, receive_verdict, send_header
from hived.proxy.ingress import IngressProxy, Origin
from tests.unit.proxy.nodes import NETWORK, PEER, Link, link
from tests.unit.proxy.tunnels import echo, free_port, read_all, served


@asynccontextmanager
async def forwarding(
    one: Link, target: int, host: str | None = None, **options: int
) -> AsyncIterator[tuple[EgressProxy, IngressProxy]]:
    """An egress listener that leads to ``target`` on the other side."""
    (sock,) = egress.bind("127.0.0.1", free_port())
    port = sock.getsockname()[1]
    ingress = IngressProxy(Origin(NETWORK, PEER, port, target), host, limit=options.get("ingress", 1024))
    one.ingress.add(ingress)
    proxy = EgressProxy(
        Route(NETWORK, PEER, port, target), [sock], one.open_stream, limit=options.get("egress", 1024)
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(proxy.run)
        yield proxy, ingress
        nursery.cancel_scope.cancel()


async def connect(proxy: EgressProxy) -> trio.SocketStream:
    return await trio.open_tcp_stream("127.0.0.1", proxy.route.port)


async def reset_of(proxy: EgressProxy) -> None:
    """A connection that is let in and then reset."""
    client = await connect(proxy)
    with pytest.raises(trio.BrokenResourceError):
        while await client.receive_some():
            pass
        raise AssertionError("an end instead of a reset")
    with trio.fail_after(5):
        await proxy.counters.idle()


@pytest.mark.parametrize("host", [None, "127.0.0.1", "localhost"])
def test_through_and_back(host: str | None) -> None:
    async def main() -> None:
        async with link() as one, served(echo) as target, forwarding(one, target, host) as (proxy, ingress):
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

    trio.run(main)


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


@trio_test
async def test_nothing_answers_at_the_target() -> None:
    async with link() as one, forwarding(one, free_port()) as (proxy, ingress):
        await reset_of(proxy)
        assert "nothing answers" in (proxy.counters.last_error or "")
        assert "connection refused" in (ingress.counters.last_error or "")


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
    async with link() as one, forwarding(one, 1) as (proxy, _):
        events: list[str] = []
        proxy.on_event = events.append
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
        with trio.fail_after(5):
            while proxy.counters.connections > 1:  # noqa: ASYNC110 - no event tells
                await trio.sleep(0.005)
        assert "no free connection" in (proxy.counters.last_error or "")
        await first.aclose()


@trio_test
async def test_beyond_egress_limit_connections_wait() -> None:
    async with link() as one, served(echo) as target, forwarding(one, target, egress=1) as (proxy, _):
        first, second = await connect(proxy), await connect(proxy)
        await second.send_all(b"second")
        await first.send_all(b"x")
        assert await first.receive_some() == b"x"
        assert proxy.counters.connections == 1
        await first.aclose()
        assert await second.receive_some() == b"second"


@trio_test
async def test_only_the_very_origin_is_let_in() -> None:
    """Network, peer and both ports: one that differs, and the target is not even dialled."""
    accepted: list[bool] = []

    async def count(stream: trio.SocketStream) -> None:
        accepted.append(True)
        await echo(stream)

    async def asked(one: Link, network: str, egress_port: int, ingress_port: int) -> Verdict:
        stream = await one.near.open()
        await send_header(
            stream, Header(network=network_id(network), egress_port=egress_port, ingress_port=ingress_port)
        )
        try:
            return await receive_verdict(stream)
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
        assert ingress.live == set()


@trio_test
async def test_drain_lets_live_connections_end() -> None:
    async with link() as one, served(echo) as target, forwarding(one, target) as (proxy, _):
        client = await connect(proxy)
        await client.send_all(b"x")
        assert await client.receive_some() == b"x"
        proxy.drain()
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(OSError, match="connect"):
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
    try:
        taken = socket.create_server(("::", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("no IPv6 here")
    with taken:
        port = taken.getsockname()[1]
        with pytest.raises(HiveError) as caught:
            egress.bind(None, port)
        assert caught.value.kind is Kind.CONFLICT
        socket.create_server(("127.0.0.1", port)).close()
