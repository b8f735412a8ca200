"""What the simulation measures, one function a question. All seconds are virtual unless said."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import asdict, dataclass

import trio

from bench.simnodes import SimNode, Watch, World, world

SETTLE_SECONDS = 120.0
MINUTE = 60.0
SPLIT_SECONDS = 60.0
# Nothing that is right takes longer.
PATIENCE_SECONDS = 1200.0


@dataclass(frozen=True)
class Spread:
    """Median, 99th percentile and the worst node's value."""

    median: float
    p99: float
    worst: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        found = sorted(values) or [0.0]
        return cls(
            *(round(v, 3) for v in (statistics.median(found), found[int(0.99 * (len(found) - 1))], found[-1]))
        )


@dataclass(frozen=True)
class Convergence:
    """Until all know: seconds, nodes in between, rounds and pushes that a node opened, bytes both ways.

    ``left``: nodes that did not come to know within the patience.
    """

    seconds: Spread
    hops: Spread
    rounds: Spread
    pushes: Spread
    bytes: Spread
    left: int


@dataclass(frozen=True)
class Quiet:
    """One minute without a change, a node: bytes sent and received, sends, streams opened."""

    bytes: Spread
    sends: Spread
    opens: Spread


async def settle(seconds: float = SETTLE_SECONDS) -> None:
    """Let pass what the start, or the last change, has set going."""
    await trio.sleep(seconds)


async def quiet(net: World) -> Quiet:
    net.reset_traffic()
    await trio.sleep(MINUTE)
    traffic = [node.host.traffic for node in net.nodes]
    return Quiet(
        Spread.of(t.bytes_in + t.bytes_out for t in traffic),
        Spread.of(t.sends for t in traffic),
        Spread.of(t.rounds + t.pushes for t in traffic),
    )


async def _converged(net: World, watch: Watch) -> Convergence:
    """Wait for all; then until the last pushes of it are over, for their cost."""
    with trio.move_on_after(PATIENCE_SECONDS):
        await watch.all.wait()
    rounds = Spread.of(node.host.traffic.rounds for node in net.nodes)
    await trio.sleep(5.0)
    traffic = [node.host.traffic for node in net.nodes]
    return Convergence(
        seconds=Spread.of(watch.seconds.values()),
        hops=Spread.of(watch.hops.values()),
        rounds=rounds,
        pushes=Spread.of(t.pushes for t in traffic),
        bytes=Spread.of(t.bytes_in + t.bytes_out for t in traffic),
        left=watch.left,
    )


async def change(net: World, name: str) -> Convergence:
    """One node takes another name."""
    author = net.rng.choice(net.nodes)
    net.reset_traffic()
    others = [node for node in net.nodes if node is not author]
    with net.watching(others, {author.peer_id: author.ledger.sequence(author.peer_id) + 1}) as watch:
        await author.rename(name)
        return await _converged(net, watch)


@dataclass(frozen=True)
class Join:
    """A newcomer that knows one member. ``known``: the others learn of it; ``knows``: it learns of all."""

    known: Convergence
    knows_seconds: float
    newcomer_bytes: int
    newcomer_rounds: int


async def join(net: World) -> Join:
    before = list(net.nodes)
    everyone = {node.peer_id: node.ledger.sequence(node.peer_id) for node in before}
    net.reset_traffic()
    newcomer = await net.newcomer(net.rng.choice(before))
    own = newcomer.ledger.sequence(newcomer.peer_id)
    with (
        net.watching([newcomer], everyone) as knows,
        net.watching(before, {newcomer.peer_id: own}) as known,
    ):
        with trio.move_on_after(PATIENCE_SECONDS):
            await knows.all.wait()
        told = await _converged(net, known)
    traffic = newcomer.host.traffic
    return Join(
        known=told,
        knows_seconds=round(knows.seconds.get(newcomer.peer_id, float("inf")), 3),
        newcomer_bytes=traffic.bytes_in + traffic.bytes_out,
        newcomer_rounds=traffic.rounds,
    )


async def heal(net: World, *, at_once: bool = False, share: float = 0.1) -> Convergence:
    """The network in two halves; some in each change; then the halves find each other again."""
    left = set(net.rng.sample(range(len(net.nodes)), len(net.nodes) // 2))
    lost = net.split({net.nodes[number].peer_id for number in left})
    await trio.sleep(SPLIT_SECONDS / 2)
    changed: list[SimNode] = []
    for half in (left, set(range(len(net.nodes))) - left):
        changed += [net.nodes[i] for i in net.rng.sample(sorted(half), max(1, int(len(half) * share)))]
    targets = {}
    for node in changed:
        targets[node.peer_id] = await node.rename(f"healed{node.number}-{len(net.nodes)}-{at_once}")
    await trio.sleep(SPLIT_SECONDS / 2)
    net.reset_traffic()
    with net.watching(net.nodes, targets) as watch:
        net.mend(lost, at_once=at_once)
        return await _converged(net, watch)


@dataclass(frozen=True)
class Measured:
    """All of one size."""

    nodes: int
    links: Spread
    quiet: Quiet
    change: Convergence
    join: Join
    heal: Convergence
    heal_at_once: Convergence
    by_rounds: Convergence

    def plain(self) -> dict[str, object]:
        return asdict(self)


async def everything(count: int, seed: int) -> Measured:
    """One network of ``count`` nodes through all of it, one after the other."""
    async with world(count, seed) as net:
        links = Spread.of(len(node.host.links) for node in net.nodes)
        await settle()
        still = await quiet(net)
        one = await change(net, "changed")
        await settle()
        entered = await join(net)
        await settle()
        mended = await heal(net)
        await settle()
        at_once = await heal(net, at_once=True)
        await settle()
        for node in net.nodes:
            node.mute()
        alone = await change(net, "muted")
        return Measured(count, links, still, one, entered, mended, at_once, alone)
