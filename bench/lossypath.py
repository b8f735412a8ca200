"""Two network namespaces with a long, lossy path between them, made of two TUN devices and this program.

Each packet is read from one device, dropped with a given probability, kept for half a round trip and written
to the other: real TCP meets real loss. There is no limit of bandwidth or queue; packets keep their order.
TCP there controls congestion by CUBIC, Linux's default, whatever the machine is set to.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import heapq
import os
import random
import select
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.processes import BenchError, Processes, inside, processes

NEAR, FAR = "10.231.77.1", "10.231.77.2"
TUN = Path("/dev/net/tun")
MTU = 1500
# linux/if_tun.h and linux/sched.h
TUNSETIFF, IFF_TUN, IFF_NO_PI, CLONE_NEWNET = 0x400454CA, 0x0001, 0x1000, 0x40000000
DEVICE = b"path0"


@dataclass(frozen=True)
class LossyPath:
    """Processes whose network namespaces are the path's ends."""

    near: int
    far: int


def device(namespace: int) -> int:
    """A file that reads and writes the packets of a new TUN device in a process's namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open(f"/proc/{namespace}/ns/net") as file:
        if libc.setns(file.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
    tun = os.open(TUN, os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH", DEVICE, IFF_TUN | IFF_NO_PI))
    return tun


def carry(tuns: tuple[int, int], seconds: float, loss: float, seed: int) -> None:
    """Pass packets on for ever: each ``seconds`` late, unless it is one of the share ``loss``."""
    poll = select.poll()
    for tun in tuns:
        poll.register(tun, select.POLLIN)
    dice = {tun: random.Random(seed + index) for index, tun in enumerate(tuns)}
    other = {tuns[0]: tuns[1], tuns[1]: tuns[0]}
    queue: list[tuple[float, int, int, bytes]] = []
    number = 0
    while True:
        wait = (queue[0][0] - time.monotonic()) * 1000 if queue else None
        for tun, _ in poll.poll(None if wait is None else max(0.0, wait)):
            with contextlib.suppress(BlockingIOError):
                while packet := os.read(tun, MTU + 100):
                    if dice[tun].random() >= loss:
                        number += 1
                        heapq.heappush(queue, (time.monotonic() + seconds, number, other[tun], packet))
        now = time.monotonic()
        while queue and queue[0][0] <= now:
            _, _, tun, packet = heapq.heappop(queue)
            # Its queue may be full, or the device not be up yet: a router drops it then.
            with contextlib.suppress(OSError):
                os.write(tun, packet)


def missing() -> str | None:
    """Why there can be no such path here; None when it can."""
    if os.geteuid() != 0:
        return "not run as root"
    if not TUN.exists():
        return f"no {TUN} on this machine"
    tried = subprocess.run(
        ["unshare", "--net", "ip", "tuntap", "add", "dev", "t0", "mode", "tun"],
        capture_output=True,
        text=True,
        check=False,
    )
    return None if tried.returncode == 0 else f"no network namespaces here ({tried.stderr.strip()})"


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
        program = [sys.executable, "-m", "bench.lossypath"]
        numbers = [ends.near, ends.far, rtt_seconds / 2, loss, seed]
        started.ready(started.start([*program, *map(str, numbers)]))
        for namespace, address, peer in ((ends.near, NEAR, FAR), (ends.far, FAR, NEAR)):
            for words in (
                f"address add {address} peer {peer} dev path0",
                "link set path0 up",
                f"route replace {peer} dev path0 congctl cubic",
            ):
                done = subprocess.run(
                    [*inside(namespace), "ip", *words.split()], capture_output=True, text=True, check=False
                )
                if done.returncode:
                    raise BenchError(f"ip {words}: {done.stderr.strip()}")
        yield ends


def main() -> None:
    near, far, seconds, loss, seed = sys.argv[1:]
    tuns = device(int(near)), device(int(far))
    print("ready", flush=True)
    carry(tuns, float(seconds), float(loss), int(seed))


if __name__ == "__main__":
    main()
