"""The tests: what the load generator does with a forwarder, and what is read from it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench import usage
from bench.forwarders import Forwarder
from bench.processes import BenchError, Processes, inside, read_line
from tests.integration.nodes import free_port

BUILT = Path("build/bench")
LIMIT_SECONDS = 60.0
MIB = 1 << 20
GIB = 1 << 30
BULK_SECONDS = 1.0
LEAST, MOST = 16 * MIB, 4 * GIB
TRIAL = 32 * MIB
CONNECTIONS = 16
LOOPBACK = "127.0.0.1"
IDLE = 1000

Sample = dict[str, float]


def build() -> None:
    """Compile the load generator and its target, where their source is newer."""
    BUILT.mkdir(parents=True, exist_ok=True)
    here = Path(__file__).parent
    for name in ("load", "target"):
        made, source = BUILT / name, here / f"{name}.c"
        newest = max(source.stat().st_mtime, (here / "wire.h").stat().st_mtime)
        if not made.exists() or made.stat().st_mtime < newest:
            fresh = made.with_suffix(f".{os.getpid()}")
            flags = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-pthread"]
            subprocess.run(["gcc", *flags, str(source), "-o", str(fresh)], check=True)
            fresh.replace(made)


def target(started: Processes, namespace: int | None = None, address: str = LOOPBACK) -> int:
    """Start a target; its port."""
    port = free_port()
    started.ready(started.start([str(BUILT / "target"), address, str(port)], namespace=namespace))
    return port


def load(
    test: str, port: int, *numbers: float, namespace: int | None = None, address: str = LOOPBACK
) -> dict[str, Any]:
    """One run of the load generator; BenchError when something came back wrong, late or not at all."""
    command = [*inside(namespace), str(BUILT / "load"), test, address, str(port)]
    try:
        done = subprocess.run(
            [*command, *(f"{number:g}" if number < 1e6 else f"{number:.0f}" for number in numbers)],
            capture_output=True,
            text=True,
            timeout=LIMIT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise BenchError(f"{test} was not done within {LIMIT_SECONDS:g} s") from None
    if done.returncode:
        raise BenchError(done.stderr.strip() or f"{test} ended with {done.returncode}")
    return dict(json.loads(done.stdout))


@contextmanager
def cpu(forwarder: Forwarder, found: Sample) -> Iterator[None]:
    """Put the CPU seconds that a forwarder used within the block into ``found["cpu_s"]``."""
    pids = forwarder.pids
    counts = {pid: len(usage.tree(pid)) for pid in pids}
    before = usage.cpu_seconds(pids)
    yield
    usage.await_children(pids, counts)
    found["cpu_s"] = usage.cpu_seconds(pids) - before


class Loads:
    """The tests of a forwarder. A bulk test has as many bytes as take some ``seconds`` in a first trial."""

    def __init__(self, seconds: float = BULK_SECONDS, idle: int = IDLE) -> None:
        self.seconds = seconds
        self.idle_connections = idle
        self._volumes: dict[str, float] = {}

    def warm(self, forwarder: Forwarder) -> None:
        """A few connections and echoes, so that the first test finds what all others find.

        No bulk: memory that it leaves behind would hide what idle connections take.
        """
        load("echo", forwarder.port, 300, 1)
        load("connect", forwarder.port, 64, 1, CONNECTIONS)

    def _volume(self, forwarder: Forwarder, name: str) -> float:
        """Bytes of a bulk test, the same in all rounds."""
        if name not in self._volumes:
            load("up", forwarder.port, 1, TRIAL / 4)
            speed = load("up", forwarder.port, 1, TRIAL)["mb_s"] * 1e6
            self._volumes[name] = min(MOST, max(LEAST, speed * self.seconds))
        return self._volumes[name]

    def bulk(self, forwarder: Forwarder, name: str, way: str, connections: int) -> Sample:
        found: Sample = {}
        volume = self._volume(forwarder, name)
        with cpu(forwarder, found):
            done = load(way, forwarder.port, connections, volume)
        found |= {"mb_s": done["mb_s"], "bytes": done["bytes"]}
        found["cpu_s_gib"] = found["cpu_s"] * GIB / done["bytes"]
        return found

    def echo(self, forwarder: Forwarder) -> Sample:
        return load("echo", forwarder.port, 3000, self.seconds)

    def beside(self, forwarder: Forwarder, way: str, connections: int) -> Sample:
        return load(f"beside-{way}", forwarder.port, 1000, self.seconds, connections)

    def connect(self, forwarder: Forwarder, at_once: int) -> Sample:
        return load("connect", forwarder.port, 4000, self.seconds, at_once)

    def idle(self, forwarder: Forwarder, started: Processes) -> Sample:
        """KiB that a connection adds to each end, which is asked once and then lives on unused."""
        count = self.idle_connections
        ends = {"near": forwarder.near, "far": forwarder.far}
        before = {name: usage.memory_kib(pids) for name, pids in ends.items() if pids}
        holder = started.start([str(BUILT / "load"), "idle", LOOPBACK, str(forwarder.port), str(count)])
        if read_line(holder, LIMIT_SECONDS).strip() != "held":
            raise BenchError(started.tail())
        found: Sample = {
            f"{name}_kib": (usage.memory_kib(ends[name]) - before[name]) / count for name in before
        }
        assert holder.stdin is not None
        holder.stdin.write("\n")
        holder.stdin.flush()
        if json.loads(read_line(holder, LIMIT_SECONDS) or "{}").get("connections") != count:
            raise BenchError(started.tail())
        holder.wait()
        return {**found, "worse_kib": max(found.values())} if found else {}


TESTS: dict[str, Callable[[Loads, Forwarder, str], Sample]] = {
    "up1": lambda loads, forwarder, name: loads.bulk(forwarder, name, "up", 1),
    "down1": lambda loads, forwarder, name: loads.bulk(forwarder, name, "down", 1),
    "up16": lambda loads, forwarder, name: loads.bulk(forwarder, name, "up", CONNECTIONS),
    "down16": lambda loads, forwarder, name: loads.bulk(forwarder, name, "down", CONNECTIONS),
    "echo": lambda loads, forwarder, name: loads.echo(forwarder),
    "beside-up1": lambda loads, forwarder, name: loads.beside(forwarder, "up", 1),
    "beside-down1": lambda loads, forwarder, name: loads.beside(forwarder, "down", 1),
    "beside-up16": lambda loads, forwarder, name: loads.beside(forwarder, "up", CONNECTIONS),
    "beside-down16": lambda loads, forwarder, name: loads.beside(forwarder, "down", CONNECTIONS),
    "connect1": lambda loads, forwarder, name: loads.connect(forwarder, 1),
    "connect16": lambda loads, forwarder, name: loads.connect(forwarder, CONNECTIONS),
}
