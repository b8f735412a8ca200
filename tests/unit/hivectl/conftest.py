"""hivectl as a process, and something for it to talk to."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.unit.hivectl.server import Server

ROOT = Path(__file__).parents[3]


@dataclass(frozen=True)
class Ended:
    """How a hivectl ended, and what it printed."""

    code: int
    out: str
    err: str


@dataclass
class Hivectl:
    """The command line, run in a home directory of its own."""

    home: Path
    socket: Path
    env: dict[str, str] = field(default_factory=dict)

    def environment(self) -> dict[str, str]:
        """The process's environment: nothing of the tester's own."""
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "XDG_STATE_HOME": str(self.home / "state"),
            "HIVE_SOCKET": str(self.socket),
            "PYTHONPATH": str(ROOT),
            **self.env,
        }

    def argv(self, *words: str) -> list[str]:
        """The words of the process."""
        return [sys.executable, "-m", "hivectl", *words]

    def __call__(self, *words: str, input: str = "") -> Ended:
        done = subprocess.run(
            self.argv(*words),
            input=input,
            capture_output=True,
            text=True,
            env=self.environment(),
            cwd=self.home,
            timeout=60,
            check=False,
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    def start(self, *words: str, **options: Any) -> subprocess.Popen[str]:
        """A hivectl that goes on while the test does."""
        return subprocess.Popen(
            self.argv(*words), text=True, env=self.environment(), cwd=self.home, **options
        )


@pytest.fixture
def home() -> Iterator[Path]:
    """A directory with a short name: the path of a Unix socket holds 107 bytes."""
    path = Path(tempfile.mkdtemp(prefix="hivectl-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def hived(home: Path) -> Iterator[Server]:
    """The tiny server, listening."""
    with Server(home / "control.sock") as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def hivectl(home: Path) -> Hivectl:
    """The command line, pointed at the tiny server's socket whether it is there or not."""
    return Hivectl(home, home / "control.sock")
