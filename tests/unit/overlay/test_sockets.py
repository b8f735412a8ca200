"""Listeners and dials share a port, and nobody else's port is taken."""

from __future__ import annotations

import pytest
import trio
from trio.testing import trio_test

from hived.errors import HiveError, Kind
from hived.overlay.addresses import of_socket, parse
from hived.overlay.sockets import bind, connect
from hived.transport.listeners import NothingKept


def place(listener: trio.SocketListener) -> tuple[str, int]:
    host, port = listener.socket.getsockname()[:2]
    return str(host), int(port)


@trio_test
async def test_a_port_with_a_listener_is_taken() -> None:
    with bind(parse("/ip4/127.0.0.1/tcp/0"), NothingKept()).socket as first:
        port = first.getsockname()[1]
        with pytest.raises(HiveError) as raised:
            bind(parse(f"/ip4/127.0.0.1/tcp/{port}"), NothingKept())
        assert raised.value.kind is Kind.CONFLICT


@trio_test
async def test_on_this_machine_dials_leave_from_any_port() -> None:
    here, there = (
        bind(parse("/ip4/127.0.0.1/tcp/0"), NothingKept()),
        bind(parse("/ip4/127.0.0.1/tcp/0"), NothingKept()),
    )
    with here.socket, there.socket:
        stream, from_listener = await connect(parse(of_socket(place(there))), [place(here)])
        assert not from_listener
        assert stream.socket.getsockname()[1] != place(here)[1]
        await stream.aclose()
