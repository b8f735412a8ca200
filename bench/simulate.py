"""``make simulate``: how the records of 10 to 2,000 nodes come together, in docs/simulation.md and a chart.

    python -m bench.simulate [--sizes 10,100,500,2000] [--seed 1] [--only-docs]

Each size runs in a process of its own, one after the other.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import platform
import resource
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

from bench import filling
from bench.scenarios import everything
from bench.simnodes import run, shared_proofs

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results" / "simulation.json"
DOCUMENT = ROOT / "docs" / "simulation.md"
CHART = ROOT / "docs" / "simulation.png"
BEGIN, END = "<!-- made by make simulate -->", "<!-- end -->"
SIZES = (10, 100, 500, 2000)


class Lines(logging.Handler):
    """Counts what hived warns of: honest members give no reason for a line."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.counts: Counter[str] = Counter()

    def emit(self, record: logging.LogRecord) -> None:
        self.counts[record.getMessage()] += 1


@contextmanager
def logged_to(handler: logging.Handler) -> Iterator[None]:
    """What hived logs goes there alone."""
    log = logging.getLogger("hived")
    before = log.propagate
    log.addHandler(handler)
    log.propagate = False
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.propagate = before


def one_size(count: int, seed: int) -> dict[str, Any]:
    """All that is measured of one size, with what it took here."""
    lines, began = Lines(), time.monotonic()
    with logged_to(lines), shared_proofs():
        measured = run(everything, count, seed).plain()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        **measured,
        "wall_seconds": round(time.monotonic() - began),
        "peak_mib": round(peak),
        "warnings": dict(lines.counts),
    }


def one_node() -> dict[str, Any]:
    """What many records cost one node."""
    with logged_to(logging.NullHandler()):
        return {
            "memory": [asdict(filling.memory(count)) for count in (1_000, filling.MANY)],
            "comparing": asdict(filling.comparing()),
            "pairs": [asdict(pair) for pair in filling.pairs()],
        }


def sources() -> str:
    """Stands for the code that was measured: equal for equal files of hived/overlay."""
    found = hashlib.sha256()
    for path in sorted((ROOT / "hived" / "overlay").glob("*.py")):
        found.update(path.name.encode() + b"\0" + path.read_bytes())
    return found.hexdigest()[:12]


def _child(*arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "bench.simulate", *arguments]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def measure(sizes: list[int], seed: int) -> dict[str, Any]:
    found: dict[str, Any] = {
        "seed": seed,
        "python": platform.python_version(),
        "sources": sources(),
        "sizes": [],
    }
    print("simulate: one node with 10,000 records (about a minute)", flush=True)
    found |= _child("--one-node")
    for count in sizes:
        print(f"simulate: {count} nodes", flush=True)
        size = _child("--one-size", str(count), "--seed", str(seed))
        print(f"simulate: {count} nodes took {size['wall_seconds']} s and {size['peak_mib']} MiB", flush=True)
        found["sizes"].append(size)
    return found


# The document


def _spread(value: dict[str, float], digits: int = 0) -> str:
    return " / ".join(f"{value[key]:,.{digits}f}" for key in ("median", "p99", "worst"))


def _kib(value: dict[str, float]) -> str:
    return " / ".join(f"{value[key] / 1024:,.1f}" for key in ("median", "p99", "worst"))


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    return ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows)] + [""]


def tables(found: dict[str, Any]) -> str:
    """The results as Markdown; every triple is median / 99th percentile / worst node."""
    sizes = found["sizes"]
    head = ["", *(f"{size['nodes']:,} nodes" for size in sizes)]

    def row(name: str, value: Any) -> list[str]:
        return [name, *(value(size) for size in sizes)]

    def convergence(key: str, name: str) -> list[list[str]]:
        def of(size: dict[str, Any]) -> dict[str, Any]:
            found: dict[str, Any] = size["join"]["known"] if key == "join" else size[key]
            return found

        return [
            row(f"{name}: seconds", lambda s: _spread(of(s)["seconds"], 2)),
            row(f"{name}: hops", lambda s: _spread(of(s)["hops"])),
            row(f"{name}: rounds opened", lambda s: _spread(of(s)["rounds"])),
            row(f"{name}: pushes opened", lambda s: _spread(of(s)["pushes"])),
            row(f"{name}: KiB", lambda s: _kib(of(s)["bytes"])),
            row(f"{name}: nodes left behind", lambda s: str(of(s)["left"])),
        ]

    rows = [
        row("connections", lambda s: _spread(s["links"])),
        row("quiet minute: bytes", lambda s: _spread(s["quiet"]["bytes"])),
        row("quiet minute: messages sent", lambda s: _spread(s["quiet"]["sends"])),
        row("quiet minute: streams opened", lambda s: _spread(s["quiet"]["opens"])),
        *convergence("change", "one change"),
        *convergence("by_rounds", "one change, all pushes lost"),
        *convergence("join", "a join, known to all"),
        row("a join: the newcomer knows all, seconds", lambda s: f"{s['join']['knows_seconds']:.2f}"),
        row("a join: KiB of the newcomer", lambda s: f"{s['join']['newcomer_bytes'] / 1024:,.1f}"),
        *convergence("heal", "a heal"),
        *convergence("heal_at_once", "a heal, all links at once"),
        row("warnings logged in all", lambda s: str(sum(s["warnings"].values()))),
        row("here: wall seconds / peak MiB", lambda s: f"{s['wall_seconds']} / {s['peak_mib']:,}"),
    ]
    out = _table(head, rows)
    pairs = [
        [
            p["what"],
            f"{p['missing']:,}",
            f"{p['seconds']:.2f}",
            str(p["rounds"]),
            f"{p['bytes'] / 1024:,.0f}",
            f"{p['record_bytes'] / 1024:,.0f}",
            f"{p['cpu_seconds']:.2f}",
            f"{p['left']:,}",
        ]
        for p in found["pairs"]
    ]
    out += _table(
        [
            "10,000 records",
            "the first lacks",
            "seconds",
            "rounds",
            "KiB",
            "KiB of the records it lacks",
            "CPU s of all",
            "never came",
        ],
        pairs,
    )
    memory = [
        [
            f"{m['records']:,}",
            f"{m['bytes_each']:,.0f}",
            f"{m['envelope_bytes']:.0f}",
            f"{m['keep_cpu_ms']:.3f}",
        ]
        for m in found["memory"]
    ]
    out += _table(
        ["known nodes", "bytes of memory each", "of these the envelope", "CPU ms to verify and keep one"],
        memory,
    )
    c = found["comparing"]
    out += [
        f"Comparing {c['records']:,} with {c['records']:,} records, {c['differing']} differing, takes"
        f" {c['comparison_ms']:.1f} ms of CPU (both sides, {c['turns']} turns); all fingerprints from nothing"
        f" {c['fingerprints_ms']:.1f} ms; to put one more record in {c['put_ms_each'] * 1000:.1f} µs.",
        "",
        f"Seed {found['seed']}, Python {found['python']}, sources of `hived/overlay` {found['sources']}.",
    ]
    return "\n".join(out)


def chart(found: dict[str, Any], path: Path) -> bool:
    """Draw it; False when matplotlib is not installed."""
    try:
        # Not in .venv: nothing else needs it, and it has no place in what mypy looks at.
        import_module("matplotlib").use("Agg")
        pyplot = import_module("matplotlib.pyplot")
    except ImportError:
        return False
    sizes = found["sizes"]
    nodes = [size["nodes"] for size in sizes]
    figure, axes = pyplot.subplots(1, 3, figsize=(15, 4.5))
    series: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
        "one change": lambda s: s["change"],
        "a join": lambda s: s["join"]["known"],
        "a heal": lambda s: s["heal"],
        "one change, all pushes lost": lambda s: s["by_rounds"],
    }
    for name, of in series.items():
        axes[0].plot(nodes, [of(s)["seconds"]["worst"] for s in sizes], marker="o", label=name)
        axes[2].plot(nodes, [of(s)["bytes"]["median"] / 1024 for s in sizes], marker="o", label=name)
    axes[0].set(title="until the last node knows", ylabel="seconds", yscale="log")
    for key in ("median", "worst"):
        axes[1].plot(nodes, [s["quiet"]["bytes"][key] / 1024 for s in sizes], marker="o", label=key)
    axes[1].set(title="a quiet minute, a node", ylabel="KiB sent and received", ylim=(0, None))
    axes[2].set(title="cost, the median node", ylabel="KiB sent and received", yscale="log")
    for one in axes:
        one.set(xlabel="nodes", xscale="log", xticks=nodes, xticklabels=[f"{n:,}" for n in nodes])
        one.minorticks_off()
        one.grid(alpha=0.3)
        one.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    return True


def write(found: dict[str, Any]) -> None:
    """Put tables and chart into docs/."""
    text = DOCUMENT.read_text()
    before, rest = text.split(BEGIN, 1)
    after = rest.split(END, 1)[1]
    DOCUMENT.write_text(f"{before}{BEGIN}\n\n{tables(found)}\n\n{END}{after}")
    if not chart(found, CHART):
        print("simulate: no chart: matplotlib is not installed (requirements/bench.txt)", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.simulate", description="Simulate the records of many nodes.")
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)), help="numbers of nodes, with commas")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only-docs", action="store_true", help="tables and chart from the last results")
    parser.add_argument("--one-size", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--one-node", action="store_true", help=argparse.SUPPRESS)
    wanted = parser.parse_args()
    if wanted.one_size:
        json.dump(one_size(wanted.one_size, wanted.seed), sys.stdout)
        return
    if wanted.one_node:
        json.dump(one_node(), sys.stdout)
        return
    if not wanted.only_docs:
        found = measure([int(size) for size in wanted.sizes.split(",")], wanted.seed)
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    write(json.loads(RESULTS.read_text()))
    print(f"simulate: {DOCUMENT.relative_to(ROOT)} and {RESULTS.relative_to(ROOT)} are written")


if __name__ == "__main__":
    main()
