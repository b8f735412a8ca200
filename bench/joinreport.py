"""What the phases of the join benchmark come to: medians over the rounds, a table, a chart."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

RATE = 200
# Fewer than these of the strangers that should have come: the machine was too slow to play the flood.
ENOUGH = 0.95
NAMES = {
    "idle": "idle",
    "elsewhere": "flood of another node",
    "many": "flood from 200 addresses",
    "one": "flood from one address",
    "members": "flood from the members' address",
}
PROMISED = 3.0
Phase = dict[str, Any]


def summary(phases: list[Phase]) -> dict[str, Any]:
    """By kind: medians over the rounds, p99 also least and most, and the ratio of medians to idle."""
    found: dict[str, Any] = {}
    for kind in (kind for kind in NAMES if any(p["kind"] == kind for p in phases)):
        of = [p for p in phases if p["kind"] == kind]
        found[kind] = {key: _median(p[key] for p in of) for key in ("p50_ms", "p99_ms", "max_ms")}
        found[kind]["p99_least_ms"] = min(p["p99_ms"] for p in of)
        found[kind]["p99_most_ms"] = max(p["p99_ms"] for p in of)
        found[kind]["cores"] = {name: _median(p["cores"][name] for p in of) for name in of[0]["cores"]}
        found[kind]["cores"]["others"] = _median(_others(p) for p in of)
        if kind == "idle":
            continue
        found[kind]["p99_to_idle"] = found[kind]["p99_ms"] / found["idle"]["p99_ms"]
        floods = [p["parties"]["flood"] for p in of]
        found[kind]["flood"] = {key: _median(f[key] for f in floods) for key in floods[0]}
        found[kind]["flood"]["cores"] = _median(_flood_cores(f) for f in floods)
        found[kind]["records_known"] = [p["records_known"] for p in of]
        for who in ("new_at_own_address", "new_at_the_floods"):
            found[kind][who] = [p["parties"][who]["seconds"] for p in of]
    return found


def _median(values: Iterable[float]) -> float:
    return float(statistics.median(values))


def _flood_cores(flood: Phase) -> float:
    return float(flood["cpu_s"] / flood["seconds"])


def _others(phase: Phase) -> float:
    """Cores that something else than the benchmark used meanwhile."""
    cores: dict[str, float] = phase["cores"]
    parties = phase["parties"]
    ours = sum(share for name, share in cores.items() if name != "machine")
    ours += sum(found["cpu_s"] / phase["seconds"] for name, found in parties.items() if name != "flood")
    if "flood" in parties:
        # It goes on after the echo, so its CPU counts by its own time.
        ours += _flood_cores(parties["flood"])
    return max(0.0, cores["machine"] - float(ours))


def table(phases: list[Phase], command: str) -> str:
    """The summary in Markdown."""
    found = summary(phases)
    rows = [
        "# A flood of strangers against a working member",
        "",
        f"`{command}` on {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}.",
        "Method: the docstring of bench/join.py. Medians over the rounds; p99 also from the least to the",
        "most of one phase. Cores: CPU seconds a second, of alpha's event loop, of its other threads, of",
        "what plays the flood, and of programs that are no part of this.",
        "",
        "| phase | echo p50 ms | p99 ms | longest ms | p99 / idle | cores: loop | threads | flood | others |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for kind, of in found.items():
        ratio = f"{of['p99_to_idle']:.2f}" if "p99_to_idle" in of else "1"
        spread = f"{of['p99_least_ms']:.2f} to {of['p99_most_ms']:.2f}"
        flood = f"{of['flood']['cores']:.2f}" if "flood" in of else ""
        cores = of["cores"]
        rows.append(
            f"| {NAMES[kind]} | {of['p50_ms']:.2f} | {of['p99_ms']:.2f} ({spread}) | {of['max_ms']:.0f}"
            f" | {ratio} | {cores['alpha loop']:.2f} | {cores['alpha threads']:.2f} | {flood}"
            f" | {cores['others']:.2f} |"
        )
    rows += [
        "",
        "| flood | strangers a second | refused at once, % | cut off, % | told to wait, %"
        " | guesses answered a second | records known of 1,000, least"
        " | new member in, s: own address | the flood's address |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for kind, of in found.items():
        if "flood" not in of:
            continue
        flood = of["flood"]
        part = {fare: 100 * flood[fare] / max(1, flood["tried"]) for fare in ("refused", "cut", "delayed")}
        guesses = flood["guessed"] * flood["a_second"] / max(1, flood["tried"])
        rows.append(
            f"| {NAMES[kind]} | {flood['a_second']:.0f} | {part['refused']:.0f} | {part['cut']:.0f}"
            f" | {part['delayed']:.0f} | {guesses:.1f} | {min(of['records_known'])}"
            f" | {_times(of['new_at_own_address'])} | {_times(of['new_at_the_floods'])} |"
        )
    return "\n".join([*rows, "", *_verdict(found), ""])


def _times(seconds: list[float | None]) -> str:
    return ", ".join("not in 30" if time is None else f"{time:.1f}" for time in seconds)


def _verdict(found: dict[str, Any]) -> list[str]:
    lines = []
    for kind in (kind for kind in ("many", "one", "members") if kind in found):
        ratio = found[kind]["p99_to_idle"]
        kept = "kept" if ratio <= PROMISED else "NOT kept"
        control = ""
        if "elsewhere" in found:
            control = f"; {found[kind]['p99_ms'] / found['elsewhere']['p99_ms']:.2f}x of a flood elsewhere"
        lines.append(f"- {NAMES[kind]}: p99 {ratio:.2f}x of idle, promised {PROMISED:g}x: {kept}{control}.")
        made = found[kind]["flood"]["a_second"]
        if made < ENOUGH * RATE:
            lines.append(
                f"  The flood came to {made:.0f} a second only, not {RATE}: this says less than it seems."
            )
    if any(of["cores"]["others"] > 0.2 for of in found.values()):
        most = max(of["cores"]["others"] for of in found.values())
        lines.append(
            f"- Other programs used up to {most:.1f} cores meanwhile: measure again on a machine at rest."
        )
    return lines


def chart(phases: list[Phase], path: Path) -> None:
    """p50, p99 and the promise, for each phase in the order they ran."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 3.6))
    colours = dict(zip(NAMES, ("#4a7fb5", "#9a9a9a", "#c8553d", "#e0a030", "#7a4a9a"), strict=True))
    for kind, colour in colours.items():
        at = [index for index, phase in enumerate(phases) if phase["kind"] == kind]
        axes.bar(at, [phases[i]["p99_ms"] for i in at], color=colour, alpha=0.5, label=NAMES[kind])
        axes.bar(at, [phases[i]["p50_ms"] for i in at], color=colour)
    promise = PROMISED * summary(phases)["idle"]["p99_ms"]
    label = f"{PROMISED:g}x idle's p99"
    axes.axhline(promise, color="black", linewidth=0.8, linestyle="--", label=label)
    axes.set_xticks(range(len(phases)))
    axes.set_xlabel("phase, in the order they ran (pale: p99, dark: p50)")
    axes.set_ylabel("64-byte echo, ms")
    axes.legend(frameon=False, fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110, metadata={"Software": None})
