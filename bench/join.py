"""A flood of strangers against a member that works: what an echo through its proxy, and joins, notice of it.

    python -m bench.join [--rounds N] [--seconds N] [--out DIR]

Real hived processes: alpha forwards a 64-byte echo to beta over the overlay; gamma is a third that has
nothing to do with them. Each round starts them anew and runs all phases in turn. In a flood 200 strangers
a second connect and guess a password, a member makes 1,000 records known, and two new members join, one
from an address of its own and one from an address of the flood's; the flood goes on until both are in, or
have tried for 30 s. In the phase "elsewhere" all of that goes to gamma: what alpha's echo loses there, it
loses because one machine plays all parties, and not because alpha is attacked.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import joinreport
from bench.joinparties import NETWORK, Party
from tests.integration.nodes import Node, join, proxy
from tests.integration.services import echo, service

RATE = 200
RECORDS = 1000
# So late the flood has used up what it may have at once, and newcomers meet it as it goes on.
NEWCOMERS_AFTER = 2.0
PATIENCE = 30.0
ORDER = ("idle", "many", "elsewhere", "one", "idle", "members")


@dataclass(frozen=True)
class Scene:
    """The nodes, and the port of alpha behind which beta's echo answers."""

    alpha: Node
    beta: Node
    gamma: Node
    port: int


@contextmanager
def scene(directory: Path) -> Iterator[Scene]:
    """Nodes that run, with one line of log for an event that matters, as installed ones do."""
    nodes = [Node(directory, name, "--log-level", "info") for name in ("alpha", "beta", "gamma")]
    alpha, beta, gamma = nodes
    try:
        for node in nodes:
            node.start(wait=False)
        for node in nodes:
            node.ready()
        join(NETWORK, alpha, beta)
        gamma.create(NETWORK)
        with service(echo) as target:
            yield Scene(alpha, beta, gamma, proxy(alpha, beta, target.port))
    finally:
        for node in nodes:
            node.close()


def cpu_of(node: Node) -> dict[str, float]:
    """CPU seconds of a node so far: of its event loop, and of its other threads."""
    assert node.process is not None
    pid = node.process.pid
    whole, loop = (_ticks(Path(f"/proc/{path}/stat")) for path in (pid, f"{pid}/task/{pid}"))
    return {"loop": loop, "threads": max(0.0, whole - loop)}


def _ticks(stat: Path) -> float:
    fields = stat.read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def busy() -> float:
    """CPU seconds of everything on this machine so far."""
    fields = [int(field) for field in Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
    # All but "idle" and "iowait" (proc(5)).
    return (sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")


def usage(nodes: Scene) -> dict[str, float]:
    """CPU seconds so far of the nodes, of this process and of the whole machine."""
    found = {
        f"{node.name} {part}": seconds
        for node in (nodes.alpha, nodes.beta, nodes.gamma)
        for part, seconds in cpu_of(node).items()
    }
    return {**found, "bench": time.process_time(), "machine": busy()}


def known(node: Node) -> int:
    """How many nodes a node knows."""
    return len(node.json("nodes", "ls"))


def parties_of(
    kind: str, nodes: Scene, seconds: float, records: int, label: str, patience: float
) -> dict[str, Party]:
    """The parties of a phase besides the echo."""
    if kind == "idle":
        return {}
    target = nodes.gamma if kind == "elsewhere" else nodes.alpha
    flood = "many" if kind == "elsewhere" else kind
    door = (target.listen[0], target.peer_id)
    late = (NEWCOMERS_AFTER, patience)
    shared = {"many": "127.1.7.7", "one": "127.1.8.8", "members": "127.0.0.1"}[flood]
    return {
        "flood": Party("flood", door[0], flood, RATE),
        "records": Party("records", *door, label, records, seconds),
        "new_at_own_address": Party("newcomer", *door, f"127.0.2.{10 + ORDER.index(kind)}", *late),
        "new_at_the_floods": Party("newcomer", *door, shared, *late),
    }


def phase(
    kind: str, nodes: Scene, seconds: float, records: int, label: str, patience: float = PATIENCE
) -> dict[str, Any]:
    """One phase: what the echo saw, and in a flood what its parties did; newcomers try for ``patience`` s."""
    target = nodes.gamma if kind == "elsewhere" else nodes.alpha
    before = known(target)
    parties = parties_of(kind, nodes, seconds, records, label, patience)
    listener = Party("echo", nodes.port, seconds)
    everyone = [listener, *parties.values()]
    try:
        for party in everyone:
            party.ready()
        began, used = time.monotonic(), usage(nodes)
        for party in everyone:
            party.begin()
        heard = listener.result()
        took, spent = time.monotonic() - began, usage(nodes)
        # The flood goes on until the newcomers are in: the others are asked for their results first.
        order = sorted(parties, key=lambda name: name == "flood")
        results = {name: parties[name].result() for name in order}
    finally:
        for party in everyone:
            party.kill()
    latencies = sorted(heard.pop("latencies"))
    return {
        "kind": kind,
        "seconds": took,
        "echoes": len(latencies),
        "p50_ms": latencies[len(latencies) // 2] * 1000,
        "p99_ms": latencies[int(len(latencies) * 0.99)] * 1000,
        "max_ms": latencies[-1] * 1000,
        "cores": {name: max(0.0, spent[name] - used[name]) / took for name in used},
        "records_known": known(target) - before if parties else 0,
        "parties": {"echo": heard, **results},
    }


def run(
    rounds: int,
    seconds: float,
    order: tuple[str, ...] = ORDER,
    records: int = RECORDS,
    patience: float = PATIENCE,
) -> list[dict[str, Any]]:
    """All phases of all rounds, in the order they ran."""
    phases: list[dict[str, Any]] = []
    for number in range(rounds):
        with tempfile.TemporaryDirectory() as directory, scene(Path(directory)) as nodes:
            phase("idle", nodes, min(seconds, 2.0), 0, "warm")
            for place, kind in enumerate(order):
                label = f"{kind}{place}"
                found = {"round": number, **phase(kind, nodes, seconds, records, label, patience)}
                print(json.dumps(found), file=sys.stderr, flush=True)
                phases.append(found)
    return phases


def main() -> None:
    parser = argparse.ArgumentParser(description="the echo of a member under a flood of strangers")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each phase")
    parser.add_argument("--out", type=Path, help="where join.json, join.md and join.png go")
    settings = parser.parse_args()
    phases = run(settings.rounds, settings.seconds)
    command = f"make bench-join ARGS='--rounds {settings.rounds} --seconds {settings.seconds:g}'"
    text = joinreport.table(phases, command)
    print(text)
    if settings.out:
        settings.out.mkdir(parents=True, exist_ok=True)
        document = {"command": command, "summary": joinreport.summary(phases), "phases": phases}
        (settings.out / "join.json").write_text(json.dumps(document, indent=1) + "\n")
        (settings.out / "join.md").write_text(text)
        joinreport.chart(phases, settings.out / "join.png")


if __name__ == "__main__":
    main()
