"""Signals that come before there is a handler, in processes of which one is process 1 of a PID namespace."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
AS_INIT = ("unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child")
# The signal is there before hived's first line, or before the first line after an exec.
BEFORE = """
import os, signal, sys
from hived.system import initprocess
if sys.argv[1:]:
    initprocess.heed_signals()
    print("went on")
else:
    initprocess.defer_signals()
    os.kill(os.getpid(), signal.SIGTERM)
    os.execv(sys.executable, [*sys.orig_argv, "again"])
"""


def outcome(*prefix: str) -> tuple[int, str]:
    done = subprocess.run(
        [*prefix, sys.executable, "-c", BEFORE],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return done.returncode, done.stdout


@pytest.mark.requires("user namespaces")
def test_process_1_heeds_a_signal_that_came_before_it_could() -> None:
    assert outcome(*AS_INIT) == (0, "")


def test_so_does_any_other_process() -> None:
    assert outcome() == (-signal.SIGTERM, "")
