"""Egress listeners over a restart, and those that a socket unit opened."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from trio.testing import trio_test

from hived.errors import HiveError, Kind
from hived.system.notify import Notifier
from hived.system.sockets import WEB, Sockets
from tests.unit.proxy.nodes import link
from tests.unit.proxy.test_reconciler import answers, reconciled, row
from tests.unit.proxy.tunnels import echo, free_port, served
from tests.unit.system.manager import ServiceManager, service_manager


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ServiceManager]:
    with service_manager(tmp_path, monkeypatch) as made:
        yield made


def refused(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 5).close()
    except ConnectionRefusedError:
        return True
    return False


async def reset(client: trio.SocketStream) -> None:
    """Raises unless it is reset, soon."""
    async with client:
        with trio.fail_after(10), pytest.raises(trio.BrokenResourceError):
            await client.receive_some()


@trio_test
async def test_nobody_is_refused_while_the_proxies_start_anew(
    tmp_path: Path, manager: ServiceManager
) -> None:
    port, sockets = free_port(), Sockets(Notifier())
    async with link() as one, served(echo) as target:
        async with reconciled(tmp_path, one, sockets) as (proxies, _):
            await proxies.add(row("egress", port, target))
            await proxies.add(row("ingress", target, port))
            assert await answers(port)
            assert manager.hears()[0] == f"FDSTORE=1\nFDNAME=egress-1_127.0.0.1_{port}"
        async with await trio.open_tcp_stream("127.0.0.1", port) as waiting:
            await waiting.send_all(b"x")
            sockets.begin()
            async with reconciled(tmp_path, one, sockets) as (proxies, _):
                sockets.sweep()
                with trio.fail_after(10):
                    assert await waiting.receive_some() == b"x"
                assert await answers(port)
                assert manager.heard_nothing()


@pytest.mark.parametrize("how", ["disabled", "removed"])
def test_what_is_to_listen_no_more_is_refused(tmp_path: Path, manager: ServiceManager, how: str) -> None:
    @trio_test
    async def main() -> None:
        port = free_port()
        async with link() as one, reconciled(tmp_path, one, Sockets(Notifier())) as (proxies, _):
            item = await proxies.add(row("egress", port, 1))
            manager.hears()
            if how == "disabled":
                await proxies.enable(item.row.id, False)
            else:
                await proxies.remove(item.row.id)
            assert refused(port)
            assert manager.hears()[0] == f"FDSTOREREMOVE=1\nFDNAME=egress-1_127.0.0.1_{port}"
            if how == "disabled":
                await proxies.enable(item.row.id, True)
                assert not refused(port)

    main()


@trio_test
async def test_a_kept_listener_is_nobody_elses(tmp_path: Path, manager: ServiceManager) -> None:
    """A second proxy, or a forward, on the port of one that runs is a conflict as ever."""
    port = free_port()
    async with link() as one, reconciled(tmp_path, one, Sockets(Notifier())) as (proxies, _):
        item = await proxies.add(row("egress", port, 1))
        with pytest.raises(HiveError, match=f"proxy {item.row.id} listens") as caught:
            proxies.bind("127.0.0.1", port)
        assert caught.value.kind is Kind.CONFLICT
        assert not refused(port)


@trio_test
async def test_no_proxy_takes_the_listener_of_another(tmp_path: Path, manager: ServiceManager) -> None:
    """Also not one that was off while the other took its port."""
    port = free_port()
    async with link() as one, reconciled(tmp_path, one, Sockets(Notifier())) as (proxies, _):
        first = await proxies.add(row("egress", port, 1))
        await proxies.enable(first.row.id, False)
        second = await proxies.add(row("egress", port, 2))
        assert proxies._listeners.before(first.row.id, "127.0.0.1", port) == []
        (again,) = proxies._listeners.before(second.row.id, "127.0.0.1", port)
        again.close()


@trio_test
async def test_a_port_of_a_socket_unit_is_used_and_left(tmp_path: Path, manager: ServiceManager) -> None:
    """It is systemd's: it listens also when no proxy of hived's uses it any more."""
    listener = socket.create_server(("0.0.0.0", 0))
    port, sockets = listener.getsockname()[1], Sockets(Notifier(), [(WEB, listener)])
    early = await trio.open_tcp_stream("127.0.0.1", port)
    async with link() as one, served(echo) as target, reconciled(tmp_path, one, sockets) as (proxies, _):
        # Whoever comes before there is a proxy is nobody's client.
        await reset(early)
        assert proxies.idle_ports() == [port]
        item = await proxies.add(replace(row("egress", port, target), bind=None))
        await proxies.add(row("ingress", target, port))
        assert item.state == "listening"
        assert proxies.idle_ports() == []
        assert await answers(port)
        with pytest.raises(HiveError) as caught:
            proxies.bind(None, port)
        assert caught.value.kind is Kind.CONFLICT
        await proxies.remove(item.row.id)
        # So has a forward, which is no proxy.
        (forward,) = proxies.bind(None, port)
        with forward, pytest.raises(HiveError) as caught:
            proxies.bind(None, port)
        assert caught.value.kind is Kind.CONFLICT
        assert not refused(port)
        await reset(await trio.open_tcp_stream("127.0.0.1", port))
        item = await proxies.add(replace(row("egress", port, target), bind=None))
        # A copy of the socket may get the number of one that was closed.
        for _ in range(5):
            assert await answers(port)
            await proxies.enable(item.row.id, False)
            await proxies.enable(item.row.id, True)
        assert manager.heard_nothing()


@trio_test
async def test_who_waits_at_a_socket_units_port_over_a_restart_is_served(
    tmp_path: Path, manager: ServiceManager
) -> None:
    listener = socket.create_server(("0.0.0.0", 0))
    port, sockets = listener.getsockname()[1], Sockets(Notifier(), [(WEB, listener)])
    async with link() as one, served(echo) as target:
        async with reconciled(tmp_path, one, sockets) as (proxies, _):
            await proxies.add(replace(row("egress", port, target), bind=None))
            await proxies.add(row("ingress", target, port))
            assert await answers(port)
            await proxies.drain(1)
            waiting = await trio.open_tcp_stream("127.0.0.1", port)
            await waiting.send_all(b"x")
            # A reset would come within this time.
            with trio.move_on_after(0.5):
                await waiting.receive_some()
        # The next hived has one of its own.
        one.ingress.accepting = True
        async with waiting, reconciled(tmp_path, one, sockets):
            with trio.fail_after(10):
                assert await waiting.receive_some() == b"x"
