"""The egress listener's life, and what the other node may answer to an opening that comes with its data."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import cast

import pytest
import trio

from hived.overlay.networkkeys import network_id
from hived.proxy import acceptor
from hived.proxy.egress import EgressProxy, Route, bind
from hived.proxy.egressend import EARLY_BYTES
from hived.proxy.header import ANSWER, OPENING, PROXY, Header, Verdict, opening, receive_header
from hived.transport.multistream import HEADER, line, negotiate
from hived.transport.muxstream import MuxedStream
from tests.unit.proxy.nodes import NETWORK, Link, link
from tests.unit.proxy.tunnels import dial, read_all, read_exactly
from tests.unit.transport.pairs import (
    on_plane,
    settle,
    trio_test,
)

TARGET = 80
OPEN = bytes([Verdict.OPEN])


@asynccontextmanager
async def egress(one: Link, limit: int = 1024) -> AsyncIterator[EgressProxy]:
    """A listener; it ends with the block."""
    sockets = bind("127.0.0.1", 0)
    port = sockets[0].getsockname()[1]
    proxy = EgressProxy(Route(NETWORK, "ingress-peer", port, TARGET), sockets, one.overlay, limit=limit)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(proxy.run)
        yield proxy
        nursery.cancel_scope.cancel()
    assert proxy.counters.connections == 0
    assert sockets[0].fileno() < 0


@asynccontextmanager
async def client_of(proxy: EgressProxy) -> AsyncIterator[trio.SocketStream]:
    async with await dial(proxy.route.port) as client:
        yield client


def said_first(proxy: EgressProxy) -> bytes:
    """What the first stream of a connection begins with."""
    return opening(Header(network=network_id(NETWORK), egress_port=proxy.route.port, ingress_port=TARGET))


async def answered_by_steps(one: Link, proxy: EgressProxy, data: bytes) -> MuxedStream:
    """The next stream negotiates; it has the header, and then ``data``."""
    stream = await one.far.accept()
    assert await negotiate(stream, [PROXY]) == PROXY
    header = await receive_header(stream)
    assert (header.egress_port, header.ingress_port) == (proxy.route.port, TARGET)
    await stream.send_all(OPEN)
    assert await read_exactly(stream, len(data)) == data
    return stream


async def lost(client: trio.SocketStream) -> None:
    with pytest.raises(trio.BrokenResourceError):
        while await client.receive_some():
            pass
        raise AssertionError("an end instead of a reset")


# The answer to all at once


@trio_test
async def test_protocol_header_and_data_go_out_before_any_answer() -> None:
    async with link(serves=False) as one, egress(one) as proxy, client_of(proxy) as client:
        await client.send_all(b"data")
        stream = await one.far.accept()
        assert await read_exactly(stream, len(said_first(proxy)) + 4) == said_first(proxy) + b"data"
        await stream.send_all(ANSWER + OPEN + b"answer")
        assert await read_exactly(client, 6) == b"answer"
        await client.send_all(b"more")
        assert await read_exactly(stream, 4) == b"more"
        assert one.near.tunnel.expects_data


@trio_test
async def test_an_answer_byte_by_byte() -> None:
    async with link(serves=False) as one, egress(one) as proxy, client_of(proxy) as client:
        await client.send_all(b"data")
        stream = await one.far.accept()
        for byte in ANSWER + OPEN + b"answer":
            await stream.send_all(bytes([byte]))
            await settle()
        assert await read_exactly(client, 6) == b"answer"
        assert one.near.stream_count == 1
        assert one.near.tunnel.expects_data


@trio_test
async def test_only_so_much_goes_before_the_answer_as_is_kept() -> None:
    data = bytes(range(256)) * 2000
    async with (
        link(serves=False) as one,
        egress(one) as proxy,
        client_of(proxy) as client,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(client.send_all, data)
        stream = await one.far.accept()
        await read_exactly(stream, len(said_first(proxy)) + EARLY_BYTES)
        await settle()
        assert proxy.counters.bytes_out == EARLY_BYTES
        await stream.send_all(ANSWER + OPEN)
        assert await read_exactly(stream, len(data) - EARLY_BYTES) == data[EARLY_BYTES:]


@trio_test
async def test_a_node_that_is_known_to_expect_data_gets_all_at_once() -> None:
    data = bytes(400_000)
    async with link(serves=False) as one, egress(one) as proxy:
        one.near.tunnel.expects_data = True
        async with client_of(proxy) as client, trio.open_nursery() as nursery:
            nursery.start_soon(client.send_all, data)
            stream = await one.far.accept()
            await read_exactly(stream, len(said_first(proxy)) + 200_000)
            # It would not be asked twice.
            stream.reset()
            await lost(client)
            nursery.cancel_scope.cancel()
        await settle()
        assert proxy.counters.last_error
        assert one.far.stream_count == 0


# Fall back to one step at a time


async def says_na(stream: MuxedStream) -> None:
    await stream.send_all(line(HEADER) + line("na"))


async def says_something_else(stream: MuxedStream) -> None:
    await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")


async def resets(stream: MuxedStream) -> None:
    await read_exactly(stream, len(OPENING))
    stream.reset()


async def resets_at_once(stream: MuxedStream) -> None:
    stream.reset()


async def ends(stream: MuxedStream) -> None:
    await stream.send_eof()


async def answers_in_part_and_resets(stream: MuxedStream) -> None:
    await stream.send_all(ANSWER[:-5])
    await settle()
    stream.reset()


async def answers_in_part_and_ends(stream: MuxedStream) -> None:
    await stream.send_all(ANSWER)
    await stream.aclose()


WAYS: list[Callable[[MuxedStream], Awaitable[None]]] = [
    says_na,
    says_something_else,
    resets,
    resets_at_once,
    ends,
    answers_in_part_and_resets,
    answers_in_part_and_ends,
]


@pytest.mark.parametrize("half_closed", [False, True])
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
@trio_test
async def test_what_was_sent_too_early_is_sent_again_by_steps(
    way: Callable[[MuxedStream], Awaitable[None]], half_closed: bool
) -> None:
    """Exactly once, with the client's end if it had come; the next connection does not try at once."""
    data = bytes(range(256)) * 100
    async with link(serves=False) as one, egress(one) as proxy:
        async with client_of(proxy) as client:
            await client.send_all(data)
            if half_closed:
                await client.send_eof()
            await settle()
            await way(await one.far.accept())
            stream = await answered_by_steps(one, proxy, data)
            if not half_closed:
                await client.send_all(b"more")
                await client.send_eof()
            assert await read_all(stream) == (b"" if half_closed else b"more")
            await stream.send_all(b"answer")
            await stream.send_eof()
            assert await read_all(client) == b"answer"
        await settle()
        assert not one.near.closed.is_set()
        assert one.near.tunnel.expects_data is False
        async with client_of(proxy) as client:
            await client.send_all(b"second")
            await (await answered_by_steps(one, proxy, b"second")).send_all(b"ok")
            assert await read_exactly(client, 2) == b"ok"
        await settle()
        assert proxy.counters.total == 2


@trio_test
async def test_a_node_that_does_not_speak_the_protocol_at_all() -> None:
    async with link(serves=False) as one, egress(one) as proxy, client_of(proxy) as client:
        await client.send_all(b"data")
        for _ in range(2):
            stream = await one.far.accept()
            with contextlib.suppress(trio.BrokenResourceError):
                await says_na(stream)
                await read_all(stream)
        await lost(client)
        await settle()
        assert "not spoken" in (proxy.counters.last_error or "")


@trio_test
async def test_a_client_that_is_lost_meanwhile_is_not_sent_again_for_ever() -> None:
    async with link(serves=False) as one, egress(one) as proxy:
        async with client_of(proxy) as client:
            await client.send_all(b"data")
            first = await one.far.accept()
            await settle()
            await says_na(first)
            second = await one.far.accept()
        await negotiate(second, [PROXY])
        await settle()
        await second.send_all(OPEN)
        await second.send_eof()
        await settle()
        assert proxy.counters.connections == 0


@trio_test
async def test_a_node_that_never_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acceptor, "ANSWER_SECONDS", 0.3)
    async with link(serves=False) as one, egress(one) as proxy, client_of(proxy) as client:
        await client.send_all(b"data")
        stream = await one.far.accept()
        await lost(client)
        await settle()
        assert "does not answer" in (proxy.counters.last_error or "")
        with pytest.raises(trio.BrokenResourceError):
            await read_all(stream)
        assert one.near.stream_count == 0


@trio_test
async def test_a_target_may_take_longer_than_the_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acceptor, "ANSWER_SECONDS", 0.3)
    async with link(serves=False) as one, egress(one) as proxy, client_of(proxy) as client:
        stream = await one.far.accept()
        await stream.send_all(ANSWER)
        await trio.sleep(1)
        await stream.send_all(OPEN + b"late")
        assert await read_exactly(client, 4) == b"late"


# Verdicts


@pytest.mark.parametrize("known", [True, False], ids=["known", "new"])
@pytest.mark.parametrize("verdict", [verdict for verdict in Verdict if verdict is not Verdict.OPEN])
@trio_test
async def test_a_refusal_is_a_reset_with_a_reason(verdict: Verdict, known: bool) -> None:
    async with link(serves=False) as one, egress(one) as proxy, client_of(proxy) as client:
        one.near.tunnel.expects_data = True if known else None
        stream = await one.far.accept()
        await stream.send_all(ANSWER + bytes([verdict]))
        await lost(client)
        await settle()
        assert proxy.counters.last_error == verdict.explain(proxy.route.port, TARGET)


@pytest.mark.parametrize("half_closed", [False, True])
@trio_test
async def test_garbage_for_a_verdict(half_closed: bool) -> None:
    async with link(serves=False) as one, egress(one) as proxy, client_of(proxy) as client:
        if half_closed:
            await client.send_eof()
        stream = await one.far.accept()
        await stream.send_all(ANSWER + b"\xee")
        await lost(client)
        await settle()
        assert "238" in (proxy.counters.last_error or "")
        assert not one.near.closed.is_set()


@trio_test
async def test_an_end_in_place_of_a_verdict_where_data_is_expected() -> None:
    """The client had ended its side already: the connection between the nodes outlives it."""
    async with link(serves=False) as one, egress(one) as proxy, client_of(proxy) as client:
        one.near.tunnel.expects_data = True
        await client.send_eof()
        stream = await one.far.accept()
        await settle()
        await stream.send_all(ANSWER)
        await stream.send_eof()
        await lost(client)
        await settle()
        assert not one.near.closed.is_set()
        assert proxy.counters.last_error


# The listener's life


@trio_test
async def test_the_port_is_free_before_a_connection_is_cut() -> None:
    """Whoever sees the reset and connects again is refused, not accepted by a listener about to end."""
    async with link(serves=False) as one, trio.open_nursery() as nursery:
        sockets = bind("127.0.0.1", 0)
        port = sockets[0].getsockname()[1]
        proxy = EgressProxy(Route(NETWORK, "ingress-peer", port, TARGET), sockets, one.overlay)
        nursery.start_soon(proxy.run)
        client = await dial(port)
        await client.send_all(b"x")
        await one.far.accept()

        async def refused() -> None:
            await lost(client)
            with pytest.raises(ConnectionRefusedError):
                await dial(port)

        async with trio.open_nursery() as watching:
            watching.start_soon(refused)
            await settle()
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                await settle()


@trio_test
async def test_who_waits_for_a_connection_is_cut_with_the_proxy() -> None:
    async with link(serves=False) as one:
        one.connected = False
        never = trio.Event()

        async def connect(peer_id: str, network: str) -> None:
            await never.wait()

        object.__setattr__(one.overlay, "connect", connect)
        async with egress(one) as proxy:
            client = await dial(proxy.route.port)
            await settle()
            assert proxy.counters.connections == 1
        await lost(client)
        await client.aclose()


@trio_test
async def test_who_waits_for_a_stream_is_cut_with_the_proxy() -> None:
    """The other node acknowledges nothing: one connection has the stream, the next waits for its own."""
    async with link(serves=False, ack_backlog=1) as one:
        async with egress(one) as proxy:
            first = await dial(proxy.route.port)
            await settle()
            second = await dial(proxy.route.port)
            await settle()
            assert proxy.counters.connections == 2
            assert one.near.stream_count == 1
        await lost(first)
        await lost(second)
        await first.aclose()
        await second.aclose()


@trio_test
async def test_draining_waits_for_who_waits_for_a_stream() -> None:
    """Another stream is not acknowledged yet, and the only connection of the proxy waits behind it."""
    async with link(serves=False, ack_backlog=1) as one:
        before = await one.near.open()
        async with egress(one) as proxy:
            client = await dial(proxy.route.port)
            await client.send_all(b"x")
            await settle()
            assert one.near.stream_count == 1
            proxy.drain()
            await settle()
            assert proxy.counters.connections == 1
            assert (await one.far.accept()).id == before.id
            stream = await one.far.accept()
            await stream.send_all(ANSWER + OPEN + b"ok")
            assert await read_exactly(client, 2) == b"ok"
            await client.aclose()
            await stream.aclose()


@trio_test
async def test_run_ends_with_the_last_connection_of_a_drained_proxy() -> None:
    async with link(serves=False) as one:
        sockets = bind("127.0.0.1", 0)
        port = sockets[0].getsockname()[1]
        proxy = EgressProxy(Route(NETWORK, "ingress-peer", port, TARGET), sockets, one.overlay)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(proxy.run)
            client = await dial(port)
            stream = await one.far.accept()
            await stream.send_all(ANSWER + OPEN)
            proxy.drain()
            await settle()
            assert proxy.counters.connections == 1
            await client.send_eof()
            await stream.send_eof()
        await client.aclose()


@trio_test
async def test_a_connection_that_is_gone_whenever_it_is_to_be_used() -> None:
    """Connecting succeeds each time; who waits must not wait for ever."""
    async with link() as one, egress(one) as proxy:
        one.lasts = False
        async with client_of(proxy) as client:
            with trio.fail_after(5), pytest.raises(trio.BrokenResourceError):
                await client.receive_some()
        await settle()
        assert "ends as soon as it is made" in (proxy.counters.last_error or "")


@trio_test
async def test_clients_that_come_while_there_are_no_descriptors(caplog: pytest.LogCaptureFixture) -> None:
    """However many: accepting is tried again once in a while, and said once."""

    class Bare:
        """A listener of a process that has no descriptors left."""

        def accept(self) -> None:
            raise OSError(errno.EMFILE, "Too many open files")

    async with link() as one, egress(one) as proxy:
        bare = cast("socket.socket", Bare())
        await settle()
        before = await on_plane(one.plane, lambda: len(one.plane._timers))
        for _ in range(50):
            one.plane.call(proxy._acceptor._accept, bare)
        assert await on_plane(one.plane, lambda: len(one.plane._timers)) == before + 1
        await settle()
        assert caplog.text.count("accepting connections failed") == 1


@trio_test
async def test_a_connection_that_is_tried_once_more_keeps_what_its_client_has_sent() -> None:
    """Its first stream is gone; whatever that one's connection still sends is not the client's."""
    async with link(serves=False) as one, egress(one) as proxy, client_of(proxy) as client:
        stream = await one.far.accept()
        (end,) = proxy._acceptor._live
        stream.reset()
        await settle()
        await client.send_all(b"precious")
        assert await on_plane(one.plane, lambda: end.pull(memoryview(bytearray(100)))) == 0
        await answered_by_steps(one, proxy, b"precious")
