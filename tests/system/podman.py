"""Podman without root, as an ordinary user runs it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from tests.integration.nodes import Result
from tests.system.seat import Seat

COMMAND_SECONDS = 60.0

# No limit is asked for that the kernel would refuse, and no cgroup made on the machine.
_CONTAINERS_CONF = """
[containers]
default_ulimits = ["nofile=1024:4096", "nproc=4096:4096"]
cgroups = "disabled"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "crun"
"""


class Podman:
    """Containers and images of a seat.

    ``storage``: a directory of the user's for what is made here, in the seat unless given. ``images``: one
    that a Podman elsewhere has filled, whose images are here too, to be read only.
    """

    def __init__(self, seat: Seat, storage: Path | None = None, images: Path | None = None) -> None:
        self.seat = seat
        configuration = seat.give(seat.give(seat.home / ".config") / "containers")
        (configuration / "containers.conf").write_text(_CONTAINERS_CONF)
        (configuration / "storage.conf").write_text(
            '[storage]\ndriver = "overlay"\n'
            f'graphroot = "{storage or seat.give(seat.home / "storage")}"\n'
            f'runroot = "{seat.give(seat.home / "running")}"\n'
            f"[storage.options]\nadditionalimagestores = {json.dumps([str(images)] if images else [])}\n"
        )
        # Nothing is ever asked of a registry.
        (configuration / "registries.conf").write_text("unqualified-search-registries = []\n")

    def command(
        self,
        *arguments: str,
        outside: bool = False,
        where: Path | None = None,
        notify: Path | None = None,
    ) -> list[str]:
        """What runs podman, with the network of the seat or the machine's.

        ``where``: a directory other than home; ``notify``: the socket of the service manager that runs it.
        """
        variables = ["env", f"NOTIFY_SOCKET={notify}"] if notify else []
        return self.seat.command([*variables, "podman", *arguments], outside=outside, where=where)

    def run(
        self,
        *arguments: str,
        stdin: str = "",
        check: bool = True,
        seconds: float = COMMAND_SECONDS,
        notify: Path | None = None,
    ) -> Result:
        """Run podman; with ``check`` its failure is the test's."""
        done = subprocess.run(
            self.command(*arguments, notify=notify),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        result = Result(done.returncode, done.stdout, done.stderr)
        if check:
            assert result.code == 0, f"podman {' '.join(arguments)}: {result.code}\n{result.out}{result.err}"
        return result

    def json(self, *arguments: str) -> Any:
        return self.run(*arguments).json()
