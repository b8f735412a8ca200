"""Keep-alive: who is pinged, who is given up, and who is not."""

from __future__ import annotations

import random
import time

import pytest
import trio

from tests.unit.transport.pairs import (
    ACK,
    PING,
    SYN,
    WINDOW,
    ends,
    muxers,
    on_plane,
    plane,
    receive_all,
    settle,
    streams,
    trio_test,
)
from tests.unit.transport.rawpeer import raw, raw_peer


@trio_test
async def test_an_idle_connection_lives() -> None:
    async with muxers(keep_alive=0.05, keep_alive_timeout=1.0, rtt_interval=0.2) as (a, b):
        await trio.sleep(3)
        assert not a.closed.is_set()
        assert not b.closed.is_set()


@trio_test
async def test_a_silent_peer_is_pinged_and_then_given_up() -> None:
    async with raw_peer(keep_alive=0.3, keep_alive_timeout=0.6) as (muxer, peer):
        await peer.settled()  # Answers the first ping.
        start = time.monotonic()
        ping = await peer.any_frame()
        assert ping.told[:3] == (PING, SYN, 0)
        assert time.monotonic() - start >= 0.25, "not before the silence"
        start = time.monotonic()
        await muxer.closed.wait()
        assert time.monotonic() - start >= 0.55, "an answer has so long"
        assert muxer.close_reason.startswith("nothing heard for ")


@trio_test
async def test_of_who_is_given_up_nothing_is_left() -> None:
    """Reset: no port waits for an answer, so that the same two can be connected anew."""
    async with raw_peer(kind="tcp", keep_alive=0.1, keep_alive_timeout=0.2) as (muxer, peer):
        await muxer.closed.wait()
        with pytest.raises(trio.BrokenResourceError, match="reset by peer"):
            while await peer.pipe.receive_some(65536):
                pass


@trio_test
async def test_who_owes_an_answer_is_said_to_be_silent_until_it_comes() -> None:
    async with raw_peer(keep_alive=0.3, keep_alive_timeout=5.0) as (muxer, peer):
        await peer.settled()  # Answers the first ping.
        assert muxer.silent is None
        ping = await peer.any_frame()
        while muxer.silent is None:  # noqa: ASYNC110 - no event tells
            await trio.sleep(0.02)
        assert 0.3 < muxer.silent <= muxer.age
        await peer.send(raw(PING, ACK, 0, ping.length))
        await settle()
        assert muxer.silent is None
        assert muxer.age < 0.3


@trio_test
async def test_silence_is_not_borne_for_longer_than_was_said() -> None:
    async with raw_peer(keep_alive=0.3, keep_alive_timeout=3.0) as (_, peer):
        await peer.settled()  # Answers the first ping.
        with trio.fail_after(2):
            assert (await peer.any_frame()).told[:3] == (PING, SYN, 0)


@trio_test
async def test_a_peer_that_never_answers_the_first_ping() -> None:
    before = time.monotonic()
    async with raw_peer(keep_alive_timeout=0.5) as (muxer, _):
        stream = await muxer.open()
        await ends(muxer, stream, here=False)
        assert 0.45 <= time.monotonic() - before < 5


@trio_test
async def test_a_process_that_was_stopped_does_not_blame_the_peer() -> None:
    """The timer comes a second late: what has come meanwhile is read first."""
    async with raw_peer(keep_alive_timeout=1.0) as (muxer, peer):
        running = muxer.tunnel.plane
        ping = await peer.any_frame()
        running.call(time.sleep, 2.5)
        await peer.send(raw(PING, ACK, 0, ping.length))
        await on_plane(running, lambda: None)
        await settle()
        assert not muxer.closed.is_set()
        assert muxer.rtt is not None


@trio_test
async def test_a_process_that_was_stopped_gives_the_peer_another_chance() -> None:
    """Nothing had come, but perhaps only because nobody could have sent it."""
    async with raw_peer(keep_alive=0.2, keep_alive_timeout=1.0) as (muxer, peer):
        running = muxer.tunnel.plane
        ping = await peer.any_frame()
        running.call(time.sleep, 2.5)
        await on_plane(running, lambda: None)
        await settle()
        assert not muxer.closed.is_set()
        await peer.send(raw(PING, ACK, 0, ping.length))
        await settle()
        assert muxer.rtt is not None
        # And no more than one.
        await muxer.closed.wait()
        assert muxer.close_reason.startswith("nothing heard for ")


@trio_test
async def test_who_talks_is_alive_although_the_answer_is_late() -> None:
    async with raw_peer(keep_alive=0.1, keep_alive_timeout=1.0) as (muxer, peer):
        await peer.send(raw(WINDOW, SYN, 1, 0))
        for _ in range(40):
            await trio.sleep(0.1)
            await peer.send(raw(WINDOW, 0, 1, 0))
        assert not muxer.closed.is_set()


@trio_test
async def test_traffic_puts_the_ping_off_but_the_round_trip_is_measured() -> None:
    async with raw_peer(keep_alive=1.0, keep_alive_timeout=1.0, rtt_interval=4.0) as (muxer, peer):
        await peer.settled()
        await peer.send(raw(WINDOW, SYN, 1, 0))
        sent, started = muxer.bytes_out, time.monotonic()
        while muxer.bytes_out == sent:
            await trio.sleep(0.2)
            await peer.send(raw(WINDOW, 0, 1, 0))
            assert time.monotonic() - muxer.tunnel.last_received < 1
        assert 2.5 < time.monotonic() - started < 8, "after rtt_interval, for the round trip"
        assert (await peer.any_frame()).told[:2] == (PING, SYN)


@trio_test
async def test_a_window_that_stays_empty_is_no_error() -> None:
    """Longer than any limit of the connection."""
    async with streams(keep_alive=0.05, keep_alive_timeout=0.5) as (ours, theirs, _, _):
        data = random.Random(1).randbytes(600_000)

        async def send() -> None:
            await ours.send_all(data)
            await ours.send_eof()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            await trio.sleep(2)
            assert await receive_all(theirs) == data


@trio_test
async def test_a_dead_path_is_found_however_late_the_loop_is() -> None:
    """Each turn of it takes longer than what counts as one stop of the whole process."""
    async with raw_peer(keep_alive=0.3, keep_alive_timeout=0.6) as (muxer, peer), plane() as running:
        await peer.settled()  # Answers the first ping.

        def hold_up() -> None:
            time.sleep(1.05)
            if not muxer.tunnel._closed:
                running.call(hold_up)

        running.call(hold_up)
        with trio.fail_after(12):
            await muxer.closed.wait()
    assert muxer.close_reason.startswith("nothing heard for ")


@trio_test
async def test_who_is_probed_has_so_long_to_be_heard_and_three_times_to_answer() -> None:
    async with raw_peer() as (muxer, peer):
        await peer.settled()  # Answers the first ping.
        muxer.probe(0.3)
        ping = await peer.any_frame()
        await peer.send(raw(PING, ACK, 0, ping.length))
        await settle()
        await trio.sleep(1)
        assert not muxer.closed.is_set(), "it has answered"
        start = time.monotonic()
        muxer.probe(0.3)
        # As often as it is asked: each time is not one more chance.
        with trio.move_on_after(5):
            while not muxer.closed.is_set():
                muxer.probe(0.3)
                await trio.sleep(0.1)
        assert muxer.close_reason.startswith("nothing heard for ")
        assert time.monotonic() - start < 3
    async with raw_peer() as (muxer, peer):
        await peer.settled()
        await peer.send(raw(WINDOW, SYN, 1, 0))
        muxer.probe(0.3)
        start = time.monotonic()
        while not muxer.closed.is_set():
            # It is heard, and does not answer: what we send may not reach it.
            with trio.move_on_after(0.1):
                await peer.send(raw(WINDOW, 0, 1, 1))
                await muxer.closed.wait()
        assert muxer.close_reason == "it does not answer on the network as it is now"
        assert 0.8 < time.monotonic() - start < 5
