"""Two network namespaces with a long, lossy path between them: real TCP meets real loss.

The path is the shuttle of the NAT lab. TCP there controls congestion by CUBIC, Linux's default, whatever the
machine is set to.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.processes import BenchError, Processes, inside, processes

NEAR, FAR = "10.231.77.1", "10.231.77.2"
DEVICE = "path0"


@dataclass(frozen=True)
class LossyPath:
    """Processes whose network namespaces are the path's ends."""

    near: int
    far: int


def _namespace(started: Processes) -> int:
    """A process in a network namespace of its own."""
    process = started.start(["unshare", "--net", "sh", "-c", "ip link set lo up && echo ready && read line"])
    started.ready(process)
    return process.pid


@contextlib.contextmanager
def path(log: Path, rtt_seconds: float, loss: float, seed: int) -> Iterator[LossyPath]:
    """A path that lasts as long as the block."""
    with processes(log) as started:
        ends = LossyPath(_namespace(started), _namespace(started))
        program = [sys.executable, "-m", "tests.netns.shuttle"]
        for end in (ends.near, ends.far):
            program += [f"/proc/{end}/ns/net", DEVICE]
        started.ready(started.start([*program, *map(str, (rtt_seconds / 2, loss, seed))]))
        for namespace, address, peer in ((ends.near, NEAR, FAR), (ends.far, FAR, NEAR)):
            for words in (
                f"address add {address} peer {peer} dev {DEVICE}",
                f"link set {DEVICE} up",
                f"route replace {peer} dev {DEVICE} congctl cubic",
            ):
                done = subprocess.run(
                    [*inside(namespace), "ip", *words.split()], capture_output=True, text=True, check=False
                )
                if done.returncode:
                    raise BenchError(f"ip {words}: {done.stderr.strip()}")
        yield ends
