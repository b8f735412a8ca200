"""Forwarders side by side on one machine: Hive, ssh -L, Kubo, py-libp2p as it comes, socat, and none.

    python -m bench.forwarding [--rounds N] [--only NAMES] [--tests NAMES] [--seconds N] [--out DIR]

In each round all forwarders start anew. First each holds idle connections; then every test is made with all
of them in turn, the first of one test being the last of the next round's. Then, in namespaces, each is put
on a path of 80 ms round trip and 1 % loss, alone. What fails is noted, and the rest goes on.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import forwardchart, forwardreport, lossypath
from bench.fleet import Fleet
from bench.forwarders import FORWARDERS, KUBO, NATIVE, Forwarder, Route, running
from bench.loads import BULK_SECONDS, LOOPBACK, TESTS, Loads, Sample, build, load, target
from bench.machine import machine
from bench.processes import BenchError, processes
from tests.needs import missing

LOSSY = ("direct", "ssh-gcm", "kubo", "hive")
RTT_SECONDS, LOSS = 0.08, 0.01
# What the load generator does there: 2 MiB up; 60 echoes, in 8 s at most; the same beside an upload.
LOSSY_LOADS: dict[str, tuple[str | float, ...]] = {
    "lossy-up1": ("up", 1, 2 << 20),
    "lossy-echo": ("echo", 60, 8),
    "lossy-beside": ("beside-up", 60, 8, 1),
}
LOSSY_TESTS = tuple(LOSSY_LOADS)
ALL_TESTS = ("idle", *TESTS, *LOSSY_TESTS)
# So many rounds a test may fail before it is left at that.
TRIES = 2
STOPS = (signal.SIGINT, signal.SIGTERM)
FAILURES = (BenchError, AssertionError, OSError, subprocess.SubprocessError)


@dataclass
class Run:
    """What is to be measured, and the samples so far: one for each round, test and forwarder."""

    rounds: int
    names: tuple[str, ...]
    tests: tuple[str, ...]
    loads: Loads
    say: Callable[[str], None] = print
    samples: list[dict[str, Any]] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)

    @contextlib.contextmanager
    def noting(self, number: int, test: str, name: str, fleet: Fleet | None = None) -> Iterator[Sample]:
        """Note what the block puts into the sample, or why it fails; then its forwarder starts anew."""
        found: dict[str, Any] = {}
        try:
            yield found
        except FAILURES as error:
            found = {"failed": short(error)}
            if fleet is not None:
                fleet.drop(name)
        self.samples.append({"round": number, "test": test, "forwarder": name, **found})
        self.say(json.dumps(self.samples[-1]))

    def round(self, number: int, directory: Path) -> None:
        """All on loopback."""
        tests = [test for test in self.tests if test not in LOSSY_TESTS]
        if not tests:
            return
        with processes(directory / "log") as started:
            fleet = Fleet(directory, target(started), self.loads)
            with contextlib.closing(fleet):
                self._begin(number, fleet)
                for place, test in enumerate(tests):
                    # Nobody always comes after the same one.
                    turn = (number + place) % len(self.names)
                    for name in self.names[turn:] + self.names[:turn]:
                        why = self._given_up(test, name)
                        with self.noting(number, test, name, None if why else fleet) as found:
                            if why:
                                raise BenchError(why)
                            forwarder = fleet.get(name)
                            if test == "idle":
                                found |= self.loads.idle(forwarder, started)
                            else:
                                found |= TESTS[test](self.loads, forwarder, name)

    def _given_up(self, test: str, name: str) -> str:
        """Why a test is not tried again: it can take a minute to fail. Empty where it is tried."""
        of = [s for s in self.samples if (s["test"], s["forwarder"]) == (test, name) and "failed" in s]
        return str(of[0]["failed"]) if len(of) >= TRIES else ""

    def _begin(self, number: int, fleet: Fleet) -> None:
        """Start all before the first test, which is not to compete with starts."""
        for name in self.names:
            with contextlib.suppress(*FAILURES):
                fleet.get(name)

    def lossy(self, number: int, directory: Path) -> None:
        """One forwarder at a time over the long path; all of a round meet the same dice."""
        tests = [test for test in self.tests if test in LOSSY_TESTS]
        for name in (name for name in self.names if name in LOSSY):
            with contextlib.ExitStack() as stack:
                why = ""
                forwarder, near, address = Forwarder(0), 0, LOOPBACK
                try:
                    log = directory / f"{name}-lossy.log"
                    path = stack.enter_context(lossypath.path(log, RTT_SECONDS, LOSS, number * 2))
                    started = stack.enter_context(processes(log))
                    # With no forwarder, the path leads straight to the target.
                    near, address = path.near, lossypath.FAR if name == "direct" else LOOPBACK
                    port = target(started, path.far, address)
                    route = Route(path.near, path.far, lossypath.FAR)
                    inner = directory / f"{name}-lossy"
                    forwarder = stack.enter_context(running(name, inner, route, port))
                except FAILURES as error:
                    why = f"did not start: {short(error)}"
                for test in tests:
                    with self.noting(number, test, name) as found:
                        if reason := why or self._given_up(test, name):
                            raise BenchError(reason)
                        words, *numbers = LOSSY_LOADS[test]
                        found |= load(
                            str(words), forwarder.port, *map(float, numbers), namespace=near, address=address
                        )

    def all(self) -> None:
        """Every round."""
        wanted = set(self.tests) & set(LOSSY_TESTS) and set(self.names) & set(LOSSY)
        reason = missing("tun") if wanted else None
        if reason:
            self.left_out = {test: reason for test in LOSSY_TESTS if test in self.tests}
        for number in range(self.rounds):
            with tempfile.TemporaryDirectory(prefix="hive-bench-") as directory:
                self.round(number, Path(directory))
                if wanted and not reason:
                    self.lossy(number, Path(directory))


def short(error: BaseException) -> str:
    """The first line of what went wrong."""
    return (str(error).splitlines() or [repr(error)])[0][:300]


def rounds(text: str) -> int:
    """A number of rounds; argparse.ArgumentTypeError for none."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of rounds")
    return int(text)


def prepare(names: tuple[str, ...]) -> None:
    """Make what forwarders need and this machine lacks; without it they fail, and the report says why."""
    if "kubo" in names and not KUBO.exists():
        subprocess.run(["scripts/kubo"], check=False, stdout=sys.stderr)
    if "hive-native" in names:
        NATIVE.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, "scripts/native.py", str(NATIVE)], check=False, stdout=sys.stderr)


def chosen(text: str, known: tuple[str, ...]) -> tuple[str, ...]:
    """Names from a list with commas; argparse.ArgumentTypeError for one that is not known."""
    names = tuple(text.split(","))
    if unknown := [name for name in names if name not in known]:
        raise argparse.ArgumentTypeError(f"no {unknown[0]!r}; there are {', '.join(known)}")
    return tuple(name for name in known if name in names)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="make bench", description="forwarders side by side")
    parser.add_argument("--rounds", type=rounds, default=5, help="how often each test is made (5)")
    parser.add_argument(
        "--only",
        metavar="NAMES",
        type=lambda text: chosen(text, tuple(FORWARDERS)),
        default=tuple(FORWARDERS),
        help=f"some of {','.join(FORWARDERS)} (all)",
    )
    parser.add_argument(
        "--tests",
        metavar="NAMES",
        type=lambda text: chosen(text, ALL_TESTS),
        default=ALL_TESTS,
        help=f"some of {','.join(ALL_TESTS)} (all)",
    )
    parser.add_argument("--seconds", type=float, default=BULK_SECONDS, help="of a test, about")
    parser.add_argument("--idle", type=int, default=1000, help="idle connections (1000)")
    parser.add_argument("--out", type=Path, help="where forwarding.json, .md and .png go")
    settings = parser.parse_args(arguments)
    for number in STOPS:
        signal.signal(number, _stop)
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    build()
    prepare(settings.only)
    run = Run(settings.rounds, settings.only, settings.tests, Loads(settings.seconds, settings.idle), _say)
    about = machine()
    run.all()
    words = sys.argv[1:] if arguments is None else arguments
    command = forwardreport.command(words)
    document = {"command": command, **about, "left_out": run.left_out}
    document |= {"summary": forwardreport.summary(run.samples), "samples": run.samples}
    text = forwardreport.table(document)
    print(text)
    if settings.out:
        settings.out.mkdir(parents=True, exist_ok=True)
        (settings.out / "forwarding.json").write_text(json.dumps(document, indent=1) + "\n")
        (settings.out / "forwarding.md").write_text(text)
        if importlib.util.find_spec("matplotlib"):
            forwardchart.chart(document, settings.out / "forwarding.png")
        else:
            print("There is no chart: matplotlib is missing, which `make bench` brings.", file=sys.stderr)
        print(f"The results are in {settings.out}/forwarding.json, .md and .png.", file=sys.stderr)


def _stop(number: int, _: object) -> None:
    """End, and with it all that was started; a second signal does not come between."""
    for each in STOPS:
        signal.signal(each, signal.SIG_IGN)
    sys.exit(128 + number)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
