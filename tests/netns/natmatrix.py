"""How often, and how soon, each pair of NATs gets from a relay to a direct connection: docs/natmatrix.md.

    python -m tests.netns.natmatrix [--tries N] [--out FILE]

All nodes are in one lab: two public members, and nodes behind NATs of each kind. A try is a start of all
those behind NATs at once, with what they knew; the times are out of their logs, from the relayed connection
to the direct one. Then the same with 160 ms of round trip between any two of them.
"""

from __future__ import annotations

import argparse
import itertools
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from bench.machine import machine
from tests.integration.nodes import Node
from tests.netns.lab import Lab
from tests.netns.meshes import await_path, await_state, mesh
from tests.netns.nat import Mode

LANS: dict[str, Mode] = {
    "prc-1": "prc",
    "prc-2": "prc",
    "full-1": "full",
    "remap-1": "remap",
    "remap-2": "remap",
    "sym-1": "sym",
    "sym-2": "sym",
}
# What must become direct; between the others a hole cannot be punched.
DIRECT = ({"prc"}, {"full", "prc"}, {"full", "remap"}, {"remap"}, {"remap", "prc"}, {"full", "sym"})
LIMITS = {0.0: 5.0, 40.0: 10.0}
TRY_SECONDS = 40.0
_JOINED = re.compile(
    r"^(\S+) info overlay.membership: joined network=\S+ peer=(\S+) (?:name=\S+ )?remote=(\S+)"
)


@dataclass
class Pair:
    """Seconds from the relayed connection to the direct one, of each try; None where it stayed relayed."""

    modes: tuple[Mode, Mode]
    times: list[float | None] = field(default_factory=list)
    at_once: int = 0

    @property
    def direct(self) -> list[float]:
        return [seconds for seconds in self.times if seconds is not None]


def joins(lines: list[str]) -> Iterator[tuple[float, str, bool]]:
    """When, with whom, and whether over a relay a node has joined on a connection."""
    for line in lines:
        found = _JOINED.match(line)
        if found:
            when = datetime.fromisoformat(found[1]).timestamp()
            yield when, found[2], "p2p-circuit" in found[3]


def look(pair: Pair, lines: list[str], peer_id: str) -> None:
    """Add one try, out of one node's log of it."""
    mine = [(when, relayed) for when, peer, relayed in joins(lines) if peer == peer_id]
    direct = min((when for when, relayed in mine if not relayed), default=None)
    relayed = min((when for when, relayed in mine if relayed), default=None)
    if direct is None:
        pair.times.append(None)
    elif relayed is None or relayed > direct:
        pair.at_once += 1
        pair.times.append(0.0)
    else:
        pair.times.append(direct - relayed)


def expected(modes: tuple[Mode, Mode]) -> str:
    return "direct" if set(modes) in DIRECT else "relayed"


def measure(delay_ms: float, tries: int) -> list[Pair]:
    """All pairs, with such a delay of each router's line, one way."""
    with tempfile.TemporaryDirectory() as directory, Lab(Path(directory)) as lab:
        publics = [lab.public("pub1"), lab.public("pub2")]
        hosts = [lab.lan(name, mode, delay_ms=delay_ms).host(f"{name}-h") for name, mode in LANS.items()]
        nodes = mesh(lab, *publics, *hosts, first=2)
        behind: dict[str, Node] = dict(zip(LANS, nodes[2:], strict=True))
        pairs = {names: Pair((LANS[names[0]], LANS[names[1]])) for names in itertools.combinations(LANS, 2)}
        for node in behind.values():
            await_state(node, 60, "public", "cone", "symmetric")
        for number in range(tries):
            for node in behind.values():
                node.stop()
            starts = {name: len(node.log.lines) for name, node in behind.items()}
            for node in behind.values():
                node.start(wait=False)
            for node in behind.values():
                node.ready()
            deadline = time.monotonic() + TRY_SECONDS
            for (one, other), pair in pairs.items():
                left = max(0.5, deadline - time.monotonic())
                try:
                    await_path(behind[one], behind[other], left, expected(pair.modes))
                except AssertionError:
                    print(f"natmatrix: try {number}: {one} and {other} are not {expected(pair.modes)}")
            for (one, other), pair in pairs.items():
                look(pair, behind[one].log.lines[starts[one] :], behind[other].peer_id)
            print(f"natmatrix: {delay_ms:g} ms: try {number + 1} of {tries} is done", flush=True)
        return list(pairs.values())


def table(pairs: list[Pair], limit: float) -> list[str]:
    """One row for each pair of kinds."""
    rows = ["| between | tries | direct | in time | median, s | most, s | |", "|---|---|---|---|---|---|---|"]
    kinds: dict[tuple[str, ...], list[Pair]] = {}
    for pair in pairs:
        kinds.setdefault(tuple(sorted(pair.modes)), []).append(pair)
    for modes, of in sorted(kinds.items()):
        times = [seconds for pair in of for seconds in pair.times]
        direct = [seconds for pair in of for seconds in pair.direct]
        soon = sum(seconds <= limit for seconds in direct)
        wanted = expected(of[0].modes)
        if wanted == "direct":
            verdict = "reached" if soon >= 0.95 * len(times) else "NOT reached"
        else:
            verdict = "stays relayed" if not direct else f"direct {len(direct)} times"
        figures = (f"{statistics.median(direct):.1f}", f"{max(direct):.1f}") if direct else ("-", "-")
        cells = [" / ".join(modes), len(times), len(direct), soon, *figures, verdict]
        rows.append(f"| {' | '.join(map(str, cells))} |")
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(prog="make natmatrix", description="hole punching between kinds of NATs")
    parser.add_argument("--tries", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("docs/natmatrix.md"))
    options = parser.parse_args()
    text = [
        "# Hole punching between kinds of NATs",
        "",
        f"`make natmatrix`, commit {machine()['versions']['commit']}: {options.tries} tries.",
        "",
        "Two public members and seven nodes behind NATs in one lab ([natlab.md](natlab.md)), all in one",
        "network; a try is a start of those seven at once. From the relayed connection to the direct one;",
        "0 where the direct one came first.",
    ]
    for delay_ms, limit in LIMITS.items():
        pairs = measure(delay_ms, options.tries)
        title = f"{4 * delay_ms:g} ms of round trip between any two" if delay_ms else "No delay"
        text += ["", f"## {title}", "", f"Asked: at most {limit:g} s, in 19 of 20.", "", *table(pairs, limit)]
    options.out.write_text("\n".join(text) + "\n")
    print(f"natmatrix: {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
