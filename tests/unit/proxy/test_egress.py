"""The egress listener's life, where it can be seen from within only."""

from __future__ import annotations

import trio
from trio.testing import trio_test

from hived.proxy.egress import EgressProxy, Route, bind
from hived.transport.muxstream import MuxedStream


@trio_test
async def test_the_port_is_free_before_a_connection_is_cut() -> None:
    """Whoever sees the reset and connects again is refused, not accepted by a listener about to end."""
    sockets = bind("127.0.0.1", 0)
    port = sockets[0].getsockname()[1]
    opening = trio.Event()
    still_listening: list[bool] = []

    async def never_opens(peer_id: str, network: str, protocol: str) -> MuxedStream:
        opening.set()
        try:
            await trio.sleep_forever()
        finally:
            still_listening.append(sockets[0].fileno() >= 0)
        raise AssertionError

    proxy = EgressProxy(Route("net", "peer", port, 80), sockets, never_opens)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(proxy.run)
        async with await trio.open_tcp_stream("127.0.0.1", port):
            await opening.wait()
            nursery.cancel_scope.cancel()
    assert still_listening == [False]
