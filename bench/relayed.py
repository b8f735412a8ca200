"""What a relay costs: the same transfers between members directly and through a relay, in turns.

    python -m bench.relayed [--rounds N] [--gib N] [--out FILE]

In a NAT lab (docs/natlab.md), as root: a public member, two nodes behind port-restricted NATs with a hole
punched between them, and two behind symmetric NATs, which stay on the relay.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench import loads, usage
from bench.loads import BUILT, GIB
from bench.machine import machine
from tests.integration.nodes import Node, proxy
from tests.netns.host import Host
from tests.netns.lab import Lab
from tests.netns.meshes import await_path, mesh

PORT = 8000
SECONDS = 60.0
PATHS = ("direct", "relayed")
WAYS = ("up", "down")


class Way:
    """A door on one machine to the target on another, and the nodes that what goes through it is work for."""

    def __init__(self, near: Host, a: Node, far: Host, b: Node, others: list[Node]) -> None:
        self.near = near
        self.nodes = [a, b, *others]
        target = far.popen([str(BUILT / "target"), "127.0.0.1", str(PORT)], stdout=-1)
        assert target.stdout is not None
        target.stdout.readline()
        self.door = proxy(a, b, PORT)

    def bulk(self, way: str, size: float) -> dict[str, float]:
        pids = [node.process.pid for node in self.nodes if node.process is not None]
        before = usage.cpu_seconds(pids)
        command = [str(BUILT / "load"), way, "127.0.0.1", str(self.door), "1", f"{size:.0f}"]
        done: dict[str, float] = json.loads(self.near.run(*command))
        return {"mb_s": done["mb_s"], "cpu_s_gib": (usage.cpu_seconds(pids) - before) * GIB / done["bytes"]}


def offload(lab: Lab) -> None:
    """Let TCP hand much at once to the lab's lines, as to network cards: they are not what is measured."""
    for namespace in lab.namespaces.values():
        names = [
            line.split(": ")[1].partition("@")[0] for line in namespace.run(["ip", "-o", "link"]).splitlines()
        ]
        namespace.ip(*(f"link set dev {name} gso_max_segs 65535" for name in names if name != "lo"))


def measure(rounds: int, size: float) -> dict[str, dict[str, list[dict[str, float]]]]:
    """By path and way, one sample a round."""
    loads.build()
    with ExitStack() as stack:
        lab = stack.enter_context(Lab(Path(stack.enter_context(tempfile.TemporaryDirectory()))))
        pub = lab.public("pub")
        places = [(name, "prc" if name[0] == "p" else "sym") for name in ("p1", "p2", "s1", "s2")]
        hosts = [lab.lan(name, mode).host(f"{name}-h") for name, mode in places]  # type: ignore[arg-type]
        other = lab.public("pub2")
        # Before anything connects: a connection keeps what its device had then.
        offload(lab)
        relay, second, *nodes = mesh(lab, pub, other, *hosts, first=2)
        for (a, b), path in zip((nodes[:2], nodes[2:]), PATHS, strict=True):
            await_path(a, b, SECONDS, path)
            await_path(b, a, SECONDS, path)
        ways = {
            path: Way(hosts[at], nodes[at], hosts[at + 1], nodes[at + 1], [relay, second] if at else [])
            for path, at in zip(PATHS, (0, 2), strict=True)
        }
        found: dict[str, dict[str, list[dict[str, float]]]] = {p: {w: [] for w in WAYS} for p in PATHS}
        for path in PATHS:
            ways[path].bulk("up", size / 16)
        for number in range(rounds):
            for way in WAYS:
                for path in PATHS:
                    found[path][way].append(ways[path].bulk(way, size))
            print(f"relayed: round {number + 1} of {rounds} is done", flush=True)
        return found


def report(found: dict[str, dict[str, list[dict[str, float]]]], gib: float, about: dict[str, Any]) -> str:
    rounds = len(found["direct"]["up"])
    text = [
        "# Relayed and direct, side by side",
        "",
        f"`make bench-relayed`, commit {about['versions']['commit']}, {about['machine']['cores']} cores",
        f"({about['machine']['processor']}), {rounds} rounds of {gib:g} GiB in turns, medians.",
        "",
        "All of it runs on the one machine: over the relay three nodes share the cores, directly two.",
        "Lines that take 64 KiB at once, as network cards do.",
        "",
        "| way | direct, MB/s | relayed, MB/s | ratio | CPU s a GiB, direct | relayed |",
        "|---|---|---|---|---|---|",
    ]
    for way in WAYS:
        speeds = {path: statistics.median(s["mb_s"] for s in found[path][way]) for path in PATHS}
        costs = {path: statistics.median(s["cpu_s_gib"] for s in found[path][way]) for path in PATHS}
        ratio = speeds["relayed"] / speeds["direct"]
        cells = (speeds["direct"], speeds["relayed"], costs["direct"], costs["relayed"])
        text.append(
            f"| {way} | {cells[0]:.0f} | {cells[1]:.0f} | {ratio:.2f} | {cells[2]:.1f} | {cells[3]:.1f} |"
        )
    return "\n".join([*text, ""])


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="make bench-relayed", description="relayed and direct, side by side"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--gib", type=float, default=1.0, help="size of each transfer")
    parser.add_argument("--out", type=Path, default=Path("bench/results/relayed.md"))
    options = parser.parse_args()
    text = report(measure(options.rounds, options.gib * GIB), options.gib, machine())
    options.out.write_text(text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
