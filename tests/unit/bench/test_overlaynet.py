"""The simulated streams behave as MuxedStream does, in what the records code relies on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio

from bench.overlaynet import FRAME_BYTES, NETWORK, SELECT_BYTES, WINDOW, SimHost, SimLink, SimStream, connect
from bench.simnodes import run
from hived.overlay.exchange import SYNC, Open
from hived.overlay.networkkeys import network_id
from hived.overlay.wire import ProtocolError, encode
from hived.transport.multistream import NotSpokenError

LATENCY = 0.04
OPEN = encode(Open(network=network_id(NETWORK), round=True))
Serve = Callable[[SimStream, SimLink], Awaitable[None]]


def between(serve: Serve, talk: Callable[[SimLink], Awaitable[None]]) -> tuple[SimHost, SimHost]:
    """Two linked hosts, of which ``b`` serves and ``a`` talks."""

    async def both() -> tuple[SimHost, SimHost]:
        async with trio.open_nursery() as nursery:
            a, b = SimHost("a", nursery, LATENCY), SimHost("b", nursery, LATENCY)
            b.handlers[SYNC] = serve
            connect(a, b)
            with trio.fail_after(3600):
                await talk(a.links["b"])
            nursery.cancel_scope.cancel()
        assert not b.defects
        return a, b

    return run(both)


async def echo(stream: SimStream, link: SimLink) -> None:
    while data := await stream.receive_some(5):
        await stream.send_all(data)


async def wait(stream: SimStream, link: SimLink) -> None:
    await trio.sleep_forever()


def test_bytes_come_after_the_latency_and_end_after_them() -> None:
    async def talk(link: SimLink) -> None:
        stream, protocol = await link.open_any("/other/1", SYNC)
        assert protocol == SYNC
        began = trio.current_time()
        await stream.send_all(OPEN)
        await stream.send_eof()
        got = b""
        while data := await stream.receive_some(7):
            got += data
        assert got == OPEN
        assert trio.current_time() - began == pytest.approx(2 * LATENCY)

    a, b = between(echo, talk)
    assert (a.traffic.rounds, a.traffic.pushes) == (1, 0)
    assert a.traffic.bytes_out == b.traffic.bytes_in == SELECT_BYTES + len(OPEN) + 2 * FRAME_BYTES
    assert a.traffic.bytes_in == b.traffic.bytes_out


def test_a_reader_that_stops_holds_the_sender_up() -> None:
    async def talk(link: SimLink) -> None:
        stream, _ = await link.open_any(SYNC)
        await stream.send_all(OPEN)
        with trio.move_on_after(60) as scope:
            await stream.send_all(bytes(WINDOW))
        assert scope.cancelled_caught

    a, _ = between(wait, talk)
    assert a.traffic.bytes_out < WINDOW + 1000


def test_a_reset_reaches_the_other_side() -> None:
    ended: list[type[BaseException]] = []

    async def serve(stream: SimStream, link: SimLink) -> None:
        try:
            await stream.receive_some(1)
        except BaseException as error:
            ended.append(type(error))
            raise

    async def talk(link: SimLink) -> None:
        stream, _ = await link.open_any(SYNC)
        stream.reset()
        await trio.sleep(1)
        with pytest.raises(trio.ClosedResourceError):
            await stream.send_all(b"x")

    between(serve, talk)
    assert ended == [trio.BrokenResourceError]


def test_a_lost_connection_breaks_its_streams_and_is_no_membership() -> None:
    async def talk(link: SimLink) -> None:
        stream, _ = await link.open_any(SYNC)
        link.cut()
        with pytest.raises(trio.BrokenResourceError):
            await stream.receive_some(1)
        with pytest.raises(trio.ClosedResourceError):
            await link.open_any(SYNC)
        with pytest.raises(ProtocolError):
            link.node.require(link, network_id(NETWORK), SYNC)
        assert not link.node.members(NETWORK)
        assert not link.peer.members(NETWORK)

    between(wait, talk)


def test_a_protocol_that_nobody_serves() -> None:
    async def talk(link: SimLink) -> None:
        with pytest.raises(NotSpokenError):
            await link.open_any("/other/1")

    between(wait, talk)
