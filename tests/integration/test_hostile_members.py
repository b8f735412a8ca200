"""A member that floods, lies, drips or says nothing: two others exchange a change within 5 s meanwhile."""

from __future__ import annotations

import itertools
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

import pytest
import trio

from hived.overlay.connection import STREAM_ERRORS, Connection
from hived.overlay.exchange import SYNC, SYNC_FIRST, Batch, Open, receive_open
from hived.overlay.gossip import MAX_EXCHANGES
from hived.overlay.identity import Identity
from hived.overlay.networkkeys import network_id
from hived.overlay.ranges import Compare
from hived.overlay.records import sign
from hived.overlay.wire import encode, receive, send
from hived.transport.muxstream import MuxedStream
from tests.integration.nodes import Node, cluster, join
from tests.integration.peer import Door, Peer, act, peer, push

NETWORK = "red"
ID = network_id(NETWORK)
CHANGE_SECONDS = 5.0
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Node, Node]]:
    with cluster(tmp_path_factory.mktemp("hostile"), "alpha", "beta") as (alpha, beta):
        join(NETWORK, alpha, beta)
        yield alpha, beta


@dataclass
class Mallory:
    """A member with a connection to alpha, and what it does without end until it is stopped."""

    peer: Peer
    connection: Connection
    done: int = 0

    async def open(self, *, round: bool = False) -> MuxedStream:
        stream = await self.connection.open_stream(SYNC)
        await send(stream, Open(network=ID, round=round))
        return stream

    async def push(self, envelopes: list[bytes]) -> None:
        with suppress(*STREAM_ERRORS):
            await push(self.connection, NETWORK, envelopes)
        self.done += 1


async def polite(stream: MuxedStream, connection: Connection) -> None:
    """What alpha says to it is taken as it should be: that is not what these tests are about."""
    if (await receive_open(stream)).round:
        await receive(stream, Compare, 1024 * 1024)
        await send(stream, Compare())
    while await stream.receive_some(65536):
        pass


Deed = Callable[[Mallory], Awaitable[None]]


async def flood_of_changes(mallory: Mallory) -> None:
    """Its own record, each time with a higher sequence."""
    for number in range(1000):
        record = mallory.peer.record(NETWORK, f"m{number}", seq=10 + number)
        await mallory.push([mallory.peer.sign(record).envelope])
    await trio.sleep_forever()


async def flood_of_authors(mallory: Mallory) -> None:
    while True:
        envelopes = []
        for _ in range(64):
            author = Identity.from_seed(os.urandom(32))
            record = mallory.peer.record(NETWORK, "invented", peer_id=author.peer_id)
            envelopes.append(sign(record, author.key_pair).envelope)
            await trio.lowlevel.checkpoint()
        await mallory.push(envelopes)


async def flood_of_stale_records(mallory: Mallory) -> None:
    stale = mallory.peer.sign(mallory.peer.record(NETWORK, "stale", seq=1)).envelope
    while True:
        await mallory.push([stale] * 640)


async def flood_of_bad_signatures(mallory: Mallory) -> None:
    good = mallory.peer.sign(mallory.peer.record(NETWORK, "spoiled")).envelope
    while True:
        await mallory.push([good.replace(b"spoiled", b"spoiler")] * 64)


async def endless_comparisons(mallory: Mallory) -> None:
    """Always other fingerprints."""
    while True:
        with suppress(*STREAM_ERRORS):
            stream = await mallory.open(round=True)
            while True:
                await send(stream, Compare(splits={"": os.urandom(16)}))
                await receive(stream, Compare, 1024 * 1024)
        mallory.done += 1


async def a_thousand_silent_exchanges(mallory: Mallory) -> None:
    for _ in range(1000):
        with suppress(*STREAM_ERRORS):
            await mallory.open(round=True)
        mallory.done += 1
    await trio.sleep_forever()


async def a_byte_a_second(mallory: Mallory) -> None:
    async def drip() -> None:
        with suppress(*STREAM_ERRORS):
            stream = await mallory.open()
            mallory.done += 1
            record = mallory.peer.sign(mallory.peer.record(NETWORK, "drip"))
            for byte in encode(Batch(records=[record.envelope])):
                await stream.send_all(bytes([byte]))
                await trio.sleep(1)

    async with trio.open_nursery() as nursery:
        for _ in range(40):
            nursery.start_soon(drip)


async def silence(mallory: Mallory) -> None:
    """It takes the streams that alpha opens, and says and reads nothing."""

    async def sit(stream: MuxedStream, connection: Connection) -> None:
        mallory.done += 1
        await trio.sleep_forever()

    mallory.peer.host.member_handlers |= {SYNC: sit, SYNC_FIRST: sit}
    await trio.sleep_forever()


@pytest.mark.parametrize(
    ("deed", "at_least", "lines"),
    [
        (flood_of_changes, 100, 2),
        (flood_of_authors, 5, 2),
        (flood_of_stale_records, 10, 2),
        (flood_of_bad_signatures, 30, 22),
        (endless_comparisons, 20, 2),
        (a_thousand_silent_exchanges, 500, 2),
        (a_byte_a_second, MAX_EXCHANGES, 2),
        (silence, 1, 2),
    ],
)
def test_others_go_on(pair: tuple[Node, Node], deed: Deed, at_least: int, lines: int) -> None:
    alpha, beta = pair
    after = len(alpha.log.lines)

    async def scene() -> str:
        async with peer() as member, trio.open_nursery() as nursery:
            # Each deed from an address of its own: guessing budgets are not the matter here.
            connection = await member.join(Door.of(alpha), NETWORK, f"127.0.0.{next(_numbers) + 100}")
            mallory = Mallory(member, connection)
            member.host.member_handlers[SYNC] = polite
            nursery.start_soon(deed, mallory)
            # It is well under way at the end of the change, so it was during it.
            while mallory.done < at_least:
                await trio.to_thread.run_sync(change, alpha, beta, f"{deed.__name__[:20]}-{next(_numbers)}")
            assert connection.is_open
            nursery.cancel_scope.cancel()
        return member.peer_id

    mallory_id = act(scene, 60.0)
    said = [line for line in alpha.log.lines[after:] if mallory_id in line and loud(line)]
    assert len(said) <= lines, "".join(said)
    assert alpha.is_alive()
    assert not any("Traceback" in line for line in alpha.log.lines[after:])


def loud(line: str) -> bool:
    return line.split()[1] in {"warning", "error"}


def change(alpha: Node, beta: Node, name: str) -> None:
    """A change on each of the two shows on the other in time."""
    name = name.replace("_", "-")
    for one, other in ((alpha, beta), (beta, alpha)):
        one.ctl("rename", f"{one.name}-{name}")
        other.await_row(one, lambda row: row["name"] == f"{one.name}-{name}", CHANGE_SECONDS)  # noqa: B023
