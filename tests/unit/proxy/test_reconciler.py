"""What runs equals what the store says: at start, after each change, and when a listener cannot be."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from trio.testing import trio_test

from hived.errors import HiveError, Kind
from hived.proxy import reconciler as module
from hived.proxy.reconciler import Reconciler
from hived.store.networks import Networks
from hived.store.proxies import Proxies, ProxyRow
from hived.transport.listeners import Kept
from tests.unit.proxy.nodes import NETWORK, PEER, Link, link
from tests.unit.proxy.tunnels import echo, free_port, served
from tests.unit.store.stores import KEY, opened


def row(direction: str, port: int, peer_port: int) -> ProxyRow:
    bind = "127.0.0.1" if direction == "egress" else None
    return ProxyRow(0, direction, "tcp", NETWORK, PEER, port, peer_port, bind, None, True)


@asynccontextmanager
async def reconciled(
    directory: Path, one: Link, kept: Kept | None = None
) -> AsyncIterator[tuple[Reconciler, Proxies]]:
    async with opened(directory) as database, trio.open_nursery() as nursery:
        if not await Networks(database, KEY).all():
            await Networks(database, KEY).add(NETWORK, b"k" * 32)
        store = Proxies(database)
        proxies = Reconciler(store, one.ingress, one.overlay, lambda: None, kept)
        await nursery.start(proxies.run)
        yield proxies, store
        nursery.cancel_scope.cancel()


async def answers(port: int) -> bool:
    try:
        client = await trio.open_tcp_stream("127.0.0.1", port)
    except OSError:
        return False
    async with client:
        try:
            await client.send_all(b"x")
            return await client.receive_some() == b"x"
        except trio.BrokenResourceError:
            return False


@trio_test
async def test_add_disable_enable_remove(tmp_path: Path) -> None:
    async with link() as one, served(echo) as target, reconciled(tmp_path, one) as (proxies, store):
        port = free_port()
        out = await proxies.add(row("egress", port, target))
        into = await proxies.add(row("ingress", target, port))
        assert (out.state, into.state) == ("listening", "ready")
        assert await answers(port)
        for item, gone in ((out, True), (into, False)):
            item = await proxies.enable(item.row.id, False)
            assert item.state == "disabled"
            assert not await answers(port)
            if gone:
                socket.create_server(("127.0.0.1", port)).close()  # the port is free
            await proxies.enable(item.row.id, True)
            assert await answers(port)
        await proxies.enable(out.row.id, True)  # a second time is nothing new
        assert await answers(port)
        await proxies.remove(out.row.id)
        await proxies.remove(into.row.id)
        assert proxies.running == {}
        assert await store.all() == []
        assert not await answers(port)


@trio_test
async def test_they_come_back_at_start(tmp_path: Path) -> None:
    port = free_port()
    async with link() as one, served(echo) as target:
        async with reconciled(tmp_path, one) as (proxies, _):
            await proxies.add(row("egress", port, target))
            into = await proxies.add(row("ingress", target, port))
            await proxies.enable(into.row.id, False)
        async with reconciled(tmp_path, one) as (proxies, _):
            assert [item.state for item in proxies.running.values()] == ["listening", "disabled"]
            await proxies.enable(into.row.id, True)
            assert await answers(port)


@trio_test
async def test_disabling_cuts_live_connections(tmp_path: Path) -> None:
    async with link() as one, served(echo) as target, reconciled(tmp_path, one) as (proxies, _):
        port = free_port()
        out = await proxies.add(row("egress", port, target))
        into = await proxies.add(row("ingress", target, port))
        for item in (into, out):
            client = await trio.open_tcp_stream("127.0.0.1", port)
            await client.send_all(b"x")
            assert await client.receive_some() == b"x"
            await proxies.enable(item.row.id, False)
            with pytest.raises(trio.BrokenResourceError):
                await client.receive_some()
            await proxies.enable(item.row.id, True)


@trio_test
async def test_a_taken_port_leaves_nothing_behind(tmp_path: Path) -> None:
    async with link() as one, reconciled(tmp_path, one) as (proxies, store):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            with pytest.raises(HiveError) as caught:
                await proxies.add(row("egress", port, 80))
            assert caught.value.kind is Kind.CONFLICT
            assert proxies.running == {}
            assert await store.all() == []
        item = await proxies.add(row("egress", port, 80))
        await proxies.enable(item.row.id, False)
        with socket.create_server(("127.0.0.1", port)):
            with pytest.raises(HiveError) as caught:
                await proxies.enable(item.row.id, True)
            assert caught.value.kind is Kind.CONFLICT
        assert [r.enabled for r in await store.all()] == [False]


@trio_test
async def test_what_the_store_refuses_leaves_no_listener(tmp_path: Path) -> None:
    async with link() as one, reconciled(tmp_path, one) as (proxies, _):
        port = free_port()
        with pytest.raises(HiveError) as caught:
            await proxies.add(replace(row("egress", port, 80), network="none"))
        assert (
            caught.value.kind is Kind.CONFLICT
        )  # and its frames are still alive: nothing is closed by chance
        assert proxies.running == {}
        socket.create_server(("127.0.0.1", port)).close()


@trio_test
async def test_a_port_taken_at_start_is_said_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.05)
    async with link() as one:
        port = free_port()
        async with reconciled(tmp_path, one) as (proxies, _):
            await proxies.add(row("egress", port, 80))
        with socket.create_server(("127.0.0.1", port)):
            async with reconciled(tmp_path, one) as (proxies, _):
                (item,) = proxies.running.values()
                assert (item.state, item.error) == ("error", f"port {port} is taken")
                first = item.trouble
                assert first is not None
                assert first.why == item.error
                # Tried again and again, it counts from when it was first so.
                await trio.sleep(0.2)
                assert item.trouble == first
        async with reconciled(tmp_path, one) as (proxies, _):
            (item,) = proxies.running.values()
            with trio.fail_after(10):
                while item.state != "listening":  # noqa: ASYNC110 - no event tells
                    await trio.sleep(0.01)
            assert item.error is None
            assert item.trouble is None
            item.counters.failed("it broke")
            assert item.trouble == item.counters.trouble


@trio_test
async def test_a_twin_is_a_conflict(tmp_path: Path) -> None:
    async with link() as one, reconciled(tmp_path, one) as (proxies, store):
        wanted = [row("egress", free_port(), 80), row("ingress", 80, 8084)]
        for item in wanted:
            kept = await proxies.add(item)
            with pytest.raises(HiveError, match=f"proxy {kept.row.id} does the same"):
                await proxies.add(replace(item, target=None))
        # The same target for another port of the peer is another proxy.
        await proxies.add(row("ingress", 80, 8085))
        assert len(await store.all()) == 3


@trio_test
async def test_what_is_not_there(tmp_path: Path) -> None:
    async with link() as one, reconciled(tmp_path, one) as (proxies, _):
        for call in (proxies.remove(7), proxies.enable(7, True)):
            with pytest.raises(HiveError) as caught:
                await call
            assert caught.value.kind is Kind.NOT_FOUND


@trio_test
async def test_a_listener_that_died_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.05)
    async with link() as one, served(echo) as target, reconciled(tmp_path, one) as (proxies, _):
        port = free_port()
        item = await proxies.add(row("egress", port, target))
        await proxies.add(row("ingress", target, port))
        assert item.egress is not None
        first = item.egress
        first.drain()  # as if its accept loops had ended
        with trio.fail_after(10):
            while item.egress in (None, first) or item.state != "listening":  # noqa: ASYNC110
                await trio.sleep(0.01)
        assert await answers(port)


@trio_test
async def test_drain_ends_when_the_connections_do(tmp_path: Path) -> None:
    async with link() as one, served(echo) as target, reconciled(tmp_path, one) as (proxies, _):
        port = free_port()
        await proxies.add(row("egress", port, target))
        await proxies.add(row("ingress", target, port))
        client = await trio.open_tcp_stream("127.0.0.1", port)
        await client.send_all(b"x")
        assert await client.receive_some() == b"x"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(proxies.drain, 30.0)
            await trio.testing.wait_all_tasks_blocked()
            assert not await answers(port)
            await client.send_all(b"last words")
            assert await client.receive_some() == b"last words"
            await client.aclose()
        await proxies.drain(0.0)
