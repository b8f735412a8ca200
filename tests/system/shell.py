"""Machines for people: booted, with Hive installed, and a shell in one of them (docs/machines.md).

    make machine [ARGS='...']

The shell's end is the machines'. In the shell, `reboot` reboots the machine, and a new shell opens.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.netns import terminal
from tests.netns.namespace import LabError
from tests.system import package, rootfs
from tests.system.machine import Machine, MachineError
from tests.system.package import PackageError
from tests.system.rack import Rack
from tests.system.rootfs import RootfsError


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="machine",
        description="Boot machines with systemd and Hive in containers, and open a shell: docs/machines.md.",
    )
    add = made.add_argument
    add("--machines", type=int, default=1, metavar="N", help="so many, on one switch: one, two ... (1)")
    add("--bare", action="store_true", help="without Hive; its package is in /root")
    add("command", nargs=argparse.REMAINDER, help="run this in the first one instead of a shell")
    return made


def boot(rack: Rack, options: argparse.Namespace) -> list[Machine]:
    """The machines that the options describe, with Hive started unless they are to be bare."""
    base, deb = rootfs.base(), package.build()
    layers = [base] if options.bare else [package.installed(deb, base), base]
    names = ["one", "two", "three", "four", "five", "six", "seven", "eight"][: options.machines]
    machines = [rack.machine(name, *layers) for name in names]
    for machine in machines:
        machine.boot()
        if options.bare:
            machine.put(f"/root/{deb.name}", deb.read_bytes())
        else:
            machine.run("systemctl enable --now hived")
    return machines


def guide(machines: Sequence[Machine]) -> str:
    """What a person can type."""
    lines = [
        f"{machine.name}: {machine.address}, from another terminal: {machine.door}" for machine in machines
    ]
    return "\n".join([*lines, f"Here is a shell on {machines[0].name}. Its end is the end of all.", ""])


def interact(machine: Machine, command: Sequence[str]) -> int:
    """A shell at the terminal, or a command; how it ended. After a reboot there is a new shell."""
    while True:
        status = subprocess.run(
            machine.typed(" ".join(command) or "exec bash --login"), check=False
        ).returncode
        if machine.run("systemctl is-system-running", check=False).out in ("running\n", "degraded\n"):
            return status
        print(f"machine: {machine.name} goes off", file=sys.stderr)
        if not machine.rebooted() or command:
            return 0
        print(f"machine: {machine.name} has booted", file=sys.stderr)


def main() -> int:
    options = terminal.options(parser(), "machines")
    print(
        "machine: making what is not there yet: the package, the file system (minutes at first)",
        file=sys.stderr,
    )
    with tempfile.TemporaryDirectory(prefix="machine-", dir="/var/tmp") as directory:
        try:
            with Rack(Path(directory)) as rack:
                machines = boot(rack, options)
                print(guide(machines), file=sys.stderr)
                terminal.leave_interrupts()
                return interact(machines[0], options.command)
        except (AssertionError, LabError, MachineError, PackageError, RootfsError) as error:
            print(f"machine: {error}", file=sys.stderr)
            return 1


if __name__ == "__main__":
    sys.exit(main())
