"""The small sizes of ``make simulate``: hived's own records code, in virtual time."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import trio

from bench import filling, scenarios, simulate
from bench.hostile import KINDS
from bench.scenarios import Measured, Quiet, Spread, everything
from bench.simnodes import run, shared_proofs, world
from hived.overlay.gossip import ROUND_SECONDS

SEED = 7


class Warned(logging.Handler):
    """How often hived warned, by text and peer."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.counts: Counter[tuple[str, Any]] = Counter()

    def emit(self, record: logging.LogRecord) -> None:
        self.counts[record.getMessage(), getattr(record, "fields", {}).get("peer")] += 1


@pytest.fixture(scope="module")
def warned_in_all() -> Iterator[Warned]:
    handler = Warned()
    logging.getLogger("hived").addHandler(handler)
    yield handler
    logging.getLogger("hived").removeHandler(handler)


@pytest.fixture
def warned(warned_in_all: Warned) -> Warned:
    warned_in_all.counts.clear()
    return warned_in_all


@pytest.mark.parametrize("count", [10, 100])
def test_all_come_to_know_within_bounds(count: int, warned: Warned) -> None:
    with shared_proofs():
        found: Measured = run(everything, count, SEED)
    several = (found.change, found.join.known, found.heal, found.heal_at_once, found.by_rounds)
    assert [one.left for one in several] == [0] * 5
    assert found.change.seconds.worst < 2
    assert found.change.hops.worst <= 4
    assert found.join.known.seconds.worst < 5
    assert found.join.knows_seconds < 5
    assert found.heal.seconds.worst < 60
    assert found.heal_at_once.seconds.worst < 10
    # Each round tells two nodes: what doubles takes some log2(100) = 7 of them, and a few for bad luck.
    assert found.by_rounds.rounds.worst <= 12
    assert found.by_rounds.seconds.worst < 12 * 1.25 * ROUND_SECONDS
    assert found.by_rounds.pushes.worst == 0
    # Nobody is accused who is honest.
    assert not warned.counts


def test_a_quiet_minute_does_not_grow_with_the_nodes() -> None:
    async def still(count: int) -> Quiet:
        async with world(count, SEED) as net:
            await scenarios.settle()
            return await scenarios.quiet(net)

    fifty, hundred = run(still, 50), run(still, 100)
    assert hundred.bytes.median <= 1.25 * fifty.bytes.median
    assert hundred.opens.median <= fifty.opens.median
    # Two rounds of its own, and those that others chance to open with it: one fingerprint each.
    assert hundred.bytes.worst < 8192


def test_the_same_seed_gives_the_same() -> None:
    with shared_proofs():
        first, again, other = (run(everything, 10, seed).plain() for seed in (SEED, SEED, SEED + 1))
    assert first == again
    assert first != other


UNFAIR, MEMBERS = 4, 20


@dataclass(frozen=True)
class Held:
    """What the honest ones of :func:`among` had to bear."""

    pushed: Spread
    repaired: Spread
    quiet: Quiet
    unfair: set[str]
    streams: int


async def among(kind: str) -> Held:
    """Unfair members among honest ones; two changes, of which the second goes by rounds alone."""
    async with world(MEMBERS, SEED) as net:
        unfair, honest = net.nodes[:UNFAIR], net.nodes[UNFAIR:]
        for node in unfair:
            KINDS[kind](node)
        await trio.sleep(300)
        seconds = []
        for author, name in zip(honest, ("pushed", "repaired"), strict=False):
            newest = author.ledger.sequence(author.peer_id) + 1
            others = [node for node in honest if node is not author]
            with net.watching(others, {author.peer_id: newest}) as watch:
                await author.rename(name)
                with trio.fail_after(scenarios.PATIENCE_SECONDS):
                    await watch.all.wait()
            seconds.append(Spread.of(watch.seconds.values()))
            for node in net.nodes if name == "pushed" else ():
                node.mute()
        await trio.sleep(60)
        quiet = await scenarios.quiet(net)
        streams = max(end.open_streams for node in honest for end in node.host.links.values())
        return Held(seconds[0], seconds[1], quiet, {node.peer_id for node in unfair}, streams)


@pytest.mark.parametrize("kind", KINDS)
def test_unfair_members_hold_nobody_else_up(kind: str) -> None:
    held = run(among, kind)
    assert held.pushed.worst < 5
    assert held.repaired.worst < 12 * 1.25 * ROUND_SECONDS
    assert held.streams <= 4
    assert held.quiet.bytes.worst < 64 * 1024


@pytest.mark.parametrize("kind", KINDS)
def test_unfair_members_are_named(kind: str, warned: Warned) -> None:
    """They are, and nobody else is; not with a line for each message."""
    held = run(among, kind)
    assert {peer for _, peer in warned.counts} == held.unfair
    assert max(warned.counts.values()) <= 3 * (MEMBERS - UNFAIR)


def test_what_many_records_cost_is_measured() -> None:
    """On a small scale: the figures are there and of the right order."""
    held = filling.memory(200)
    assert held.envelope_bytes < held.bytes_each < 8192
    compared = filling.comparing(500)
    assert compared.turns > 2
    pair, alone, many = filling.pairs(200)
    assert [one.left for one in (pair, alone, many)] == [0, 0, 0]
    assert pair.missing == 1
    assert alone.missing == many.missing == 200
    # Little more than what is missing is sent.
    assert pair.bytes < 20_000
    assert alone.bytes < 2 * alone.record_bytes


def test_the_tables_hold_what_was_found() -> None:
    sizes = [simulate.one_size(count, SEED) for count in (3, 5)]
    node = {
        "memory": [vars(filling.memory(50))],
        "comparing": vars(filling.comparing(50)),
        "pairs": [vars(pair) for pair in filling.pairs(100)],
    }
    text = simulate.tables({"seed": SEED, "python": "3", "sources": "0", "sizes": sizes, **node})
    rows = {line.split("|")[1].strip(): line for line in text.splitlines() if line.startswith("|")}
    assert rows[""] == "|  | 3 nodes | 5 nodes |"
    assert rows["connections"] == "| connections | 2 / 2 / 2 | 4 / 4 / 4 |"
    assert rows["one change: hops"] == "| one change: hops | 1 / 1 / 1 | 1 / 1 / 1 |"
    assert rows["a newcomer and 16 members"].startswith("| a newcomer and 16 members | 100 |")
    assert {size["nodes"] for size in sizes} == {3, 5}
