"""A line between two network namespaces that takes time: two TUN devices, and this program between them.

    python -m tests.netns.shuttle NEAR DEVICE FAR DEVICE SECONDS LOSS SEED

NEAR and FAR are files of the namespaces (/proc/PID/ns/net). Each packet is read from one device, dropped
with the probability LOSS, kept for SECONDS and written to the other; packets keep their order, and there is
no limit of bandwidth or queue. It says "ready" once the devices are there. A kernel without netem has nothing
else that delays.
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
import sys
import time

TUN = "/dev/net/tun"
MTU = 1500
# linux/if_tun.h and linux/sched.h
TUNSETIFF, IFF_TUN, IFF_NO_PI, CLONE_NEWNET = 0x400454CA, 0x0001, 0x1000, 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def enter(namespace: str) -> None:
    """Put the calling thread into the network namespace that a file stands for (setns(2))."""
    with open(namespace) as file:
        if _libc.setns(file.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns", namespace)


def device(name: str) -> int:
    """A file that reads and writes the packets of a new TUN device in the caller's namespace."""
    tun = os.open(TUN, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
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


def main() -> None:
    near, near_device, far, far_device, seconds, loss, seed = sys.argv[1:]
    tuns = []
    for namespace, name in ((near, near_device), (far, far_device)):
        enter(namespace)
        tuns.append(device(name))
    print("ready", flush=True)
    carry((tuns[0], tuns[1]), float(seconds), float(loss), int(seed))


if __name__ == "__main__":
    main()
