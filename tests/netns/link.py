"""A line between two namespaces: a pair of veth devices, or a shuttle of packets where it takes time."""

from __future__ import annotations

import select
import subprocess
import sys
from dataclasses import dataclass

from tests.netns.keeper import ROOT
from tests.netns.namespace import LabError, Namespace

START_SECONDS = 20.0


@dataclass(frozen=True)
class End:
    """A device in a namespace, which the line makes."""

    namespace: Namespace
    device: str

    def up(self) -> None:
        self.namespace.ip(f"link set dev {self.device} up")

    def down(self) -> None:
        self.namespace.ip(f"link set dev {self.device} down")


def cable(near: End, far: End) -> None:
    """A line without delay. An end that goes down takes the other's carrier, as a pulled plug does."""
    near.namespace.ip(
        f"link add name {near.device} type veth peer name {far.device} netns {far.namespace.path}",
    )
    for end in (near, far):
        # TCP hands 64 KiB at once to such a device; what loses packets, or counts them, is to see packets.
        end.namespace.ip(f"link set dev {end.device} gso_max_segs 1 up")


def shuttle(near: End, far: End, delay_ms: float) -> None:
    """A line that keeps each packet for so many milliseconds, by a process in the near namespace.

    Its ends are point-to-point devices without a carrier to lose.
    """
    command = [sys.executable, "-S", "-m", "tests.netns.shuttle"]
    for end in (near, far):
        command += [end.namespace.path, end.device]
    process = near.namespace.popen(
        [*command, str(delay_ms / 1000), "0", "0"], stdout=subprocess.PIPE, cwd=ROOT
    )
    assert process.stdout is not None
    with process.stdout as said:
        if not select.select([said], [], [], START_SECONDS)[0] or said.readline() != "ready\n":
            raise LabError(f"no line with a delay between {near.namespace.name} and {far.namespace.name}")
    near.up()
    far.up()
