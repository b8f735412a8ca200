"""Two connections joined: every byte, each end, each reset, in both directions."""

from __future__ import annotations

import hashlib
import os

import pytest
import trio
from trio.testing import trio_test

from hived.proxy import pump
from hived.proxy.header import Verdict, send_verdict
from hived.proxy.pump import Counters, RefusedError
from tests.unit.proxy.tunnels import read_all, tcp_pair, tunnel


@trio_test
async def test_bytes_and_half_closes_pass_both_ways() -> None:
    """The client ends its side first and still gets the whole answer; the counters count."""
    counters = Counters()
    async with tunnel() as (near, far), trio.open_nursery() as nursery:
        client, local = await tcp_pair()
        nursery.start_soon(pump.join, local, near, counters)
        await client.send_all(b"question")
        await client.send_eof()
        assert await read_all(far) == b"question"
        await far.send_all(b"answer" * 1000)
        await far.send_eof()
        assert await read_all(client) == b"answer" * 1000
    assert (counters.bytes_out, counters.bytes_in) == (8, 6000)


@trio_test
async def test_the_tunnels_end_may_come_first() -> None:
    async with tunnel() as (near, far), trio.open_nursery() as nursery:
        client, local = await tcp_pair()
        nursery.start_soon(pump.join, local, near, Counters())
        await far.send_eof()
        assert await client.receive_some() == b""
        await client.send_all(b"late")
        await client.send_eof()
        assert await read_all(far) == b"late"


@trio_test
async def test_a_megabyte_each_way_at_once() -> None:
    data = os.urandom(3_000_000)
    digest = hashlib.sha256(data).digest()
    async with tunnel() as (near, far), trio.open_nursery() as nursery:
        client, local = await tcp_pair()
        nursery.start_soon(pump.join, local, near, Counters())
        got: dict[str, bytes] = {}

        async def write(stream: trio.abc.HalfCloseableStream) -> None:
            await stream.send_all(data)
            await stream.send_eof()

        async def read(name: str, stream: trio.abc.ReceiveStream) -> None:
            got[name] = hashlib.sha256(await read_all(stream)).digest()

        nursery.start_soon(write, client)
        nursery.start_soon(write, far)
        nursery.start_soon(read, "client", client)
        nursery.start_soon(read, "far", far)
    assert got == {"client": digest, "far": digest}


@trio_test
async def test_a_reset_of_the_client_is_a_reset_of_the_tunnel() -> None:
    async with tunnel() as (near, far), trio.open_nursery() as nursery:
        client, local = await tcp_pair()
        nursery.start_soon(pump.join, local, near, Counters())
        await client.send_all(b"x")
        assert await far.receive_some() == b"x"
        pump.abort(client)
        with pytest.raises(trio.BrokenResourceError):
            await far.receive_some()


@trio_test
async def test_a_reset_of_the_tunnel_is_a_reset_of_the_client() -> None:
    async with tunnel() as (near, far), trio.open_nursery() as nursery:
        client, local = await tcp_pair()
        nursery.start_soon(pump.join, local, near, Counters())
        far.reset()
        with pytest.raises(trio.BrokenResourceError):
            await client.receive_some()


@trio_test
async def test_a_cut_is_a_reset_of_both() -> None:
    async with tunnel() as (near, far), trio.open_nursery() as nursery:
        client, local = await tcp_pair()
        nursery.start_soon(pump.join, local, near, Counters())
        await client.send_all(b"x")
        assert await far.receive_some() == b"x"
        nursery.cancel_scope.cancel()
        await trio.lowlevel.cancel_shielded_checkpoint()
        with trio.CancelScope(shield=True):
            with pytest.raises(trio.BrokenResourceError):
                await far.receive_some()
            with pytest.raises(trio.BrokenResourceError):
                await client.receive_some()


@trio_test
async def test_a_reader_that_does_not_read_stops_the_writer() -> None:
    """Back-pressure: what is under way is bounded, and drains in the end."""
    async with tunnel() as (near, far), trio.open_nursery() as nursery:
        client, local = await tcp_pair()
        counters = Counters()
        nursery.start_soon(pump.join, local, near, counters)
        sent = 0
        with trio.move_on_after(1):
            while True:
                await client.send_all(bytes(65536))
                sent += 65536
        assert counters.bytes_out < 32_000_000
        assert sent < 64_000_000
        taken = 0
        while taken < sent:
            taken += len(await far.receive_some())
        nursery.cancel_scope.cancel()


@trio_test
async def test_the_verdict_comes_first() -> None:
    async with tunnel() as (near, far), trio.open_nursery() as nursery:
        client, local = await tcp_pair()
        await send_verdict(far, Verdict.OPEN)
        await far.send_all(b"data")
        await far.send_eof()

        async def join() -> None:
            await pump.join(local, near, Counters(), await_verdict=True)

        nursery.start_soon(join)
        assert await read_all(client) == b"data"
        await client.send_eof()


@pytest.mark.parametrize("verdict", [v for v in Verdict if v is not Verdict.OPEN])
def test_a_refusal_is_a_reset_with_a_reason(verdict: Verdict) -> None:
    async def main() -> None:
        async with tunnel() as (near, far):
            client, local = await tcp_pair()
            await send_verdict(far, verdict)
            with pytest.raises(RefusedError) as caught:
                await pump.join(local, near, Counters(), await_verdict=True)
            assert caught.value.verdict is verdict
            with pytest.raises(trio.BrokenResourceError):
                await client.receive_some()

    trio.run(main)


@trio_test
async def test_garbage_for_a_verdict() -> None:
    async with tunnel() as (near, far):
        client, local = await tcp_pair()
        await far.send_all(b"\xee")
        await pump.join(local, near, Counters(), await_verdict=True)
        with pytest.raises(trio.BrokenResourceError):
            await client.receive_some()


@trio_test
async def test_counters_say_when_all_have_ended() -> None:
    counters = Counters()
    await counters.idle()
    counters.begin()
    counters.begin()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(counters.idle)
        await trio.testing.wait_all_tasks_blocked()
        counters.end()
        await trio.testing.wait_all_tasks_blocked()
        assert len(nursery.child_tasks) == 1
        counters.end()
    assert (counters.connections, counters.total) == (0, 2)
