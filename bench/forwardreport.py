"""What the samples come to: medians and spread over the rounds, the promised ratios, a table, a chart."""

from __future__ import annotations

import shlex
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

NAMES = {
    "direct": "direct",
    "socat": "socat",
    "ssh": "ssh -L",
    "ssh-gcm": "ssh -L aes128-gcm",
    "kubo": "Kubo p2p",
    "stock": "py-libp2p",
    "hive": "Hive",
    "hive-native": "Hive, compiled",
}
OWN = ("hive", "hive-native")
Document = dict[str, Any]


TITLES = {
    "up1": "up, 1 connection",
    "down1": "down, 1 connection",
    "up16": "up, 16 connections",
    "down16": "down, 16 connections",
    "echo": "echo alone",
    "beside-up1": "echo beside 1 upload",
    "beside-down1": "echo beside 1 download",
    "beside-up16": "echo beside 16 uploads",
    "beside-down16": "echo beside 16 downloads",
    "connect1": "new connections, in turn",
    "connect16": "new connections, 16 at once",
    "idle": "memory, an idle connection",
    "lossy-up1": "80 ms, 1 % loss: up, 1 connection",
    "lossy-echo": "80 ms, 1 % loss: echo alone",
    "lossy-beside": "80 ms, 1 % loss: echo beside 1 upload",
}


@dataclass(frozen=True)
class Row:
    """A row of the table: a field of a test's samples, its unit, and how many decimals it is worth."""

    test: str
    field: str
    unit: str
    digits: int = 0

    @property
    def title(self) -> str:
        """What the row is called."""
        return f"{TITLES[self.test]}, {self.unit}"


_SIZES = ("up1", "down1", "up16", "down16")
_ECHOES = ("echo", *(f"beside-{size}" for size in _SIZES))
_PERCENTILES = {"p50_us": "p50", "p99_us": "p99"}
ROWS = (
    *(Row(test, "mb_s", "MB/s") for test in _SIZES),
    *(Row(test, "cpu_s_gib", "CPU s/GiB", 2) for test in _SIZES),
    *(Row(test, field, f"{name}, us") for test in _ECHOES for field, name in _PERCENTILES.items()),
    Row("connect1", "a_second", "1/s"),
    Row("connect16", "a_second", "1/s"),
    Row("idle", "near_kib", "near end, KiB", 2),
    Row("idle", "far_kib", "far end, KiB", 2),
    Row("lossy-up1", "mb_s", "MB/s", 3),
    *(
        Row(test, field, f"{name}, us")
        for test in ("lossy-echo", "lossy-beside")
        for field, name in _PERCENTILES.items()
    ),
)


@dataclass(frozen=True)
class Goal:
    """A ratio of medians that Hive is to reach: of ``test`` to the same of ``other``, or to its own ``base``.

    ``other``: one or several forwarders, of which the best counts. ``least``: the ratio is to be at least
    ``bound``; otherwise at most. Without ``other`` and ``base`` the median itself is bounded.
    """

    test: str
    field: str
    bound: float
    other: tuple[str, ...] = ()
    base: str = ""
    least: bool = False


GOALS = (
    *(Goal(test, "mb_s", 1.1, ("ssh-gcm",), least=True) for test in _SIZES),
    *(Goal(test, "mb_s", 2.0, ("kubo",), least=True) for test in _SIZES),
    Goal("echo", "p50_us", 1.25, ("ssh-gcm",)),
    *(Goal(f"beside-{test}", "p50_us", 4.0, base="echo") for test in _SIZES),
    Goal("connect16", "a_second", 1.0, ("ssh", "ssh-gcm"), least=True),
    Goal("connect1", "a_second", 0.8, ("ssh", "ssh-gcm"), least=True),
    Goal("idle", "near_kib", 4.0),
    Goal("idle", "far_kib", 4.0),
)


def command(words: Sequence[str]) -> str:
    """The line to type for the same run."""
    kept = [word for place, word in enumerate(words) if "--out" not in (word, *words[:place][-1:])]
    return f"make bench ARGS={shlex.quote(shlex.join(kept))}" if kept else "make bench"


def summary(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """By test, forwarder and field: median, least and most over the rounds; and how many rounds failed."""
    found: dict[str, Any] = {}
    for sample in samples:
        of = found.setdefault(sample["test"], {}).setdefault(sample["forwarder"], {"failed": 0, "why": ""})
        if "failed" in sample:
            of["failed"] += 1
            of["why"] = sample["failed"]
            continue
        for field in sample.keys() - {"round", "test", "forwarder"}:
            of.setdefault(field, []).append(sample[field])
    for of in (of for test in found.values() for of in test.values()):
        for field, values in of.items():
            if isinstance(values, list):
                of[field] = {
                    "median": statistics.median(values),
                    "least": min(values),
                    "most": max(values),
                    "rounds": len(values),
                }
    return found


def median(found: dict[str, Any], test: str, name: str, field: str) -> float | None:
    """The median of a field; None when no round had one."""
    values = found.get(test, {}).get(name, {}).get(field)
    return None if values is None else float(values["median"])


def ratio(found: dict[str, Any], goal: Goal, name: str = "hive") -> tuple[float, str] | None:
    """What Hive in one of its forms has, and who it was compared with; None where either is not measured."""
    own = median(found, goal.test, name, goal.field)
    if own is None:
        return None
    if goal.base:
        base = median(found, goal.base, name, goal.field)
        return None if not base else (own / base, "its own idle figure")
    if not goal.other:
        return own, ""
    others = {name: median(found, goal.test, name, goal.field) for name in goal.other}
    measured = {name: value for name, value in others.items() if value}
    if not measured:
        return None
    best = (max if goal.least else min)(measured, key=lambda name: measured[name])
    return own / measured[best], NAMES[best]


def reached(goal: Goal, value: float) -> bool:
    """Whether a ratio is as promised."""
    return value >= goal.bound if goal.least else value <= goal.bound


def table(document: Document) -> str:
    """The summary in Markdown."""
    found = document["summary"]
    names = [name for name in NAMES if any(name in of for of in found.values())]
    machine, versions = document["machine"], document["versions"]
    rounds = 1 + max((sample["round"] for sample in document["samples"]), default=-1)
    told = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    lines = [
        "# Forwarders side by side",
        "",
        f"`{document['command']}` on {machine['processor']}, {machine['cores']} cores,"
        f" Linux {machine['kernel']}; load average before: {machine['load_average']:.2f}. Versions: {told}.",
        "",
        f"Medians of {rounds} round{'s' * (rounds != 1)}, and from the least to the most."
        " Method: docs/performance.md.",
        "",
        "| | " + " | ".join(NAMES[name] for name in names) + " |",
        "|---" * (len(names) + 1) + "|",
    ]
    for row in ROWS:
        of = found.get(row.test, {})
        if of:
            cells = (_cell(of.get(name), row) for name in names)
            lines.append(f"| {row.title} | " + " | ".join(cells) + " |")
    lines += [""]
    lines += [f"- {TITLES[test]}: left out, {reason}." for test, reason in document["left_out"].items()]
    lines += _failures(found)
    own = [name for name in OWN if name in names]
    if own:
        head = "".join(f" {NAMES[name]} | |" for name in own)
        lines += ["", "## What Hive is to reach, as ratios of medians", "", f"| | to | promised |{head}"]
        lines += ["|---" * (3 + 2 * len(own)) + "|"]
        lines += [_verdict(found, goal, own) for goal in GOALS if goal.test in found]
    return "\n".join(lines) + "\n"


def _cell(of: dict[str, Any] | None, row: Row) -> str:
    """Median and spread; "failed" where no round succeeded; a dash where there is nothing to measure."""
    if of is None:
        return ""
    values = of.get(row.field)
    if values is None or (row.field == "cpu_s_gib" and not values["most"]):
        return "failed" if of["failed"] else "-"
    median, least, most = (f"{values[key]:,.{row.digits}f}" for key in ("median", "least", "most"))
    text = median if values["rounds"] == 1 else f"{median} ({least} to {most})"
    return f"{text}, {of['failed']} failed" if of["failed"] else text


def _failures(found: dict[str, Any]) -> list[str]:
    """A line for each forwarder and reason, with the tests that failed for it."""
    told: dict[tuple[str, str], list[str]] = {}
    for test, forwarders in found.items():
        for name, of in forwarders.items():
            if of["failed"]:
                told.setdefault((name, of["why"]), []).append(TITLES[test])
    return [f"- {NAMES[name]} failed: {why} ({'; '.join(tests)})" for (name, why), tests in told.items()]


def _verdict(found: dict[str, Any], goal: Goal, own: list[str]) -> str:
    title = next(row.title for row in ROWS if (row.test, row.field) == (goal.test, goal.field))
    promised = f"{'at least' if goal.least else 'at most'} {goal.bound:g}"
    to, cells = ", ".join(NAMES[name] for name in goal.other), ""
    for name in own:
        measured = ratio(found, goal, name)
        if measured is None:
            cells += " | not measured |"
        else:
            to = measured[1]
            cells += f" {measured[0]:.2f} | {'reached' if reached(goal, measured[0]) else 'NOT reached'} |"
    return f"| {title} | {to} | {promised} |{cells}"
