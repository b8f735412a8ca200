"""What many records cost one node: memory, CPU, and the bytes of a comparison. Nothing is cached here."""

from __future__ import annotations

import gc
import random
import time
import tracemalloc
from dataclasses import dataclass

import trio

from bench.overlaynet import NETWORK, MemoryStore, connect
from bench.scenarios import PATIENCE_SECONDS
from bench.simnodes import EPOCH, LATENCY, SimNode, World, addresses, identity, run
from hived.overlay.networkkeys import network_id
from hived.overlay.ranges import Comparison, Ranges
from hived.overlay.records import NodeRecord, SignedRecord, sign, verify

MANY = 10_000
# Authors that are no simulated nodes.
FIRST_AUTHOR = 1_000_000


class NoStore(MemoryStore):
    """Forgets rows, so that only what Sync itself holds is counted."""

    async def _commit(self, what: str) -> None:
        await super()._commit(what)
        self.rows.clear()


def signed(number: int, seq: int = int(EPOCH * 1000)) -> SignedRecord:
    """A record as a real author's."""
    author = identity(FIRST_AUTHOR + number)
    record = NodeRecord(
        network=network_id(NETWORK),
        peer_id=author.peer_id,
        name=f"machine{number}",
        addresses=addresses(number),
        version="1.0.0",
        nonce=number.to_bytes(8, "big"),
        seq=seq,
        issued=seq / 1000,
    )
    return sign(record, author.key_pair)


@dataclass(frozen=True)
class Memory:
    """Bytes that Sync holds for each known node; of them the envelope. CPU to verify and keep one, in ms."""

    records: int
    bytes_each: float
    envelope_bytes: float
    keep_cpu_ms: float


def memory(count: int) -> Memory:
    """Fill a real Sync with ``count`` records that it verified itself."""
    envelopes = [signed(number).envelope for number in range(count)]

    async def fill(*, traced: bool) -> tuple[float, float]:
        async with trio.open_nursery() as nursery:
            node = SimNode(0, random.Random(0), nursery, LATENCY, NoStore(0.0))
            gc.collect()
            if traced:
                tracemalloc.start()
            began, before = time.process_time(), tracemalloc.get_traced_memory()[0]
            for start in range(0, count, 64):
                batch = [bytes(bytearray(e)) for e in envelopes[start : start + 64]]
                taken = [(verify(envelope, network_id(NETWORK)), 0.0) for envelope in batch]
                await node.sync.keep(NETWORK, taken, None)
            node.ledger.ranges.fingerprint()
            spent = time.process_time() - began
            gc.collect()
            held = tracemalloc.get_traced_memory()[0] - before
            tracemalloc.stop()
            assert len(node.ledger) == count
            return held, spent

    async def traced() -> tuple[float, float]:
        return await fill(traced=True)

    async def timed() -> tuple[float, float]:
        return await fill(traced=False)

    # The first fill also pays for what is loaded once.
    run(timed)
    held, spent = run(traced)[0], run(timed)[1]
    mean = sum(map(len, envelopes)) / count
    return Memory(count, round(held / count), round(mean), round(spent / count * 1000, 3))


@dataclass(frozen=True)
class Pairing:
    """Two or more nodes, one of which lacks records. ``cpu_seconds`` are real, of all of them together."""

    what: str
    missing: int
    seconds: float
    rounds: int
    bytes: int
    record_bytes: int
    cpu_seconds: float
    left: int


def _stock(node: SimNode, records: list[SignedRecord]) -> None:
    for record in records:
        node.ledger.put(record, 0.0)


async def _pairing(what: str, stocks: list[list[SignedRecord]], patience: float) -> Pairing:
    """Connect the first node to all others; until it, and they, know the newest of all."""
    async with trio.open_nursery() as nursery:
        net = World(random.Random(1), nursery, LATENCY)
        nodes = [net.add() for _ in stocks]
        for node, stock in zip(nodes, stocks, strict=True):
            _stock(node, stock)
            node.ledger.ranges.fingerprint()
            node.ledger.touch = 7200.0 if stock else 0.0
            await node.start()
        newest: dict[str, SignedRecord] = {}
        for record in (r for stock in stocks for r in stock):
            author = record.record.peer_id
            if author not in newest or record.record.seq > newest[author].record.seq:
                newest[author] = record
        targets = {author: r.record.seq for author, r in newest.items()}
        lacking = [r for a, r in newest.items() if nodes[0].ledger.sequence(a) < r.record.seq]
        began, first = time.process_time(), trio.current_time()
        with net.watching(nodes, targets) as watch:
            for other in nodes[1:]:
                connect(nodes[0].host, other.host)
            with trio.move_on_after(patience):
                await watch.all.wait()
        seconds = trio.current_time() - first
        spent = time.process_time() - began
        traffic = [node.host.traffic for node in nodes]
        result = Pairing(
            what=what,
            missing=len(lacking),
            seconds=round(seconds, 2),
            rounds=sum(t.rounds for t in traffic),
            bytes=traffic[0].bytes_in + traffic[0].bytes_out,
            record_bytes=sum(len(r.envelope) for r in lacking),
            cpu_seconds=round(spent, 2),
            left=len(targets) - sum(nodes[0].ledger.sequence(a) >= s for a, s in targets.items()),
        )
        nursery.cancel_scope.cancel()
    return result


def pairs(count: int = MANY) -> list[Pairing]:
    """One per cent differing; a newcomer that one member fills, and one that sixteen fill."""
    records = [signed(number) for number in range(count)]
    newer = [signed(number, int(EPOCH * 1000) + 1) for number in range(count // 100)]
    ours = newer[::2] + [signed(n) for n in range(1, count // 100, 2)] + records[count // 100 :]
    theirs = newer[1::2] + [signed(n) for n in range(0, count // 100, 2)] + records[count // 100 :]
    cases: list[tuple[str, list[list[SignedRecord]], float]] = [
        ("a pair, 1 % of the records differ", [ours, theirs], PATIENCE_SECONDS),
        ("a newcomer and one member", [[], records], PATIENCE_SECONDS),
        ("a newcomer and 16 members", [[], *[records] * 16], PATIENCE_SECONDS),
    ]
    return [run(_pairing, what, stocks, patience) for what, stocks, patience in cases]


@dataclass(frozen=True)
class Comparing:
    """CPU of the comparison alone, in ms: putting one record in, all fingerprints, and one run."""

    records: int
    differing: int
    put_ms_each: float
    fingerprints_ms: float
    comparison_ms: float
    turns: int


def comparing(count: int = MANY) -> Comparing:
    """Two sets of which 1 % differs, compared without I/O."""
    authors = [identity(FIRST_AUTHOR + number).peer_id for number in range(count)]
    one, other = Ranges(), Ranges()
    began = time.process_time()
    for author in authors:
        one.put(author, 1)
    put = time.process_time() - began
    for author in authors:
        other.put(author, 1)
    began = time.process_time()
    one.fingerprint()
    hashed = time.process_time() - began
    other.fingerprint()
    for number in range(0, count, 100):
        (one if number % 200 else other).put(authors[number], 2)
    began = time.process_time()
    opener, answerer = Comparison(one), Comparison(other)
    turn, sides, turns = opener.open(), [answerer, opener], 1
    while turn.splits or turn.lists:
        turn = sides[0].answer(turn)
        sides.reverse()
        turns += 1
    spent = time.process_time() - began
    differing = len(range(0, count, 100))
    found = {*opener.give, *answerer.give}, {*opener.want, *answerer.want}
    assert max(map(len, found)) > 0
    return Comparing(
        records=count,
        differing=differing,
        put_ms_each=round(put / count * 1000, 4),
        fingerprints_ms=round(hashed * 1000, 1),
        comparison_ms=round(spent * 1000, 1),
        turns=turns,
    )
