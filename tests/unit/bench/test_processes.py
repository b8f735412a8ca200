"""What the benchmark starts, and how it sees what that uses."""

from __future__ import annotations

import os
import select
import sys
from pathlib import Path

import pytest

from bench import usage
from bench.processes import BenchError, await_listener, processes, read_line

PYTHON = [sys.executable, "-S", "-c"]
# A parent whose child ignores SIGTERM, in one group.
STUBBORN = """
import os, signal, time
if os.fork() == 0:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("ready", os.getpid(), flush=True)
time.sleep(60)
"""
BUSY = """
import os, sys, time
if os.fork() == 0:
    while time.process_time() < 0.3:
        pass
    os._exit(0)
os.wait()
kept = bytearray(int(sys.argv[1]))
print("ready", flush=True)
sys.stdin.read()
"""


def test_all_end_and_their_children_too(tmp_path: Path) -> None:
    with processes(tmp_path / "log") as started:
        process = started.start([*PYTHON, STUBBORN])
        child = int(started.ready(process))
        assert child in usage.tree(process.pid)
        watched = os.pidfd_open(child)
    try:
        assert process.returncode is not None
        # A pidfd becomes readable when its process ends (pidfd_open(2)).
        assert select.select([watched], [], [], 10)[0], "the child lives on"
    finally:
        os.close(watched)


def test_what_does_not_start_says_why(tmp_path: Path) -> None:
    with processes(tmp_path / "log") as started:
        process = started.start([*PYTHON, "raise SystemExit('no such thing')"])
        with pytest.raises(BenchError, match="no such thing"):
            started.ready(process)


def test_a_line_that_does_not_come(tmp_path: Path) -> None:
    with processes(tmp_path / "log") as started:
        process = started.start([*PYTHON, "import time; time.sleep(60)"])
        with pytest.raises(BenchError, match=r"no line within 0\.2 s"):
            read_line(process, 0.2)


def test_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.processes.START_SECONDS", 0.2)
    with pytest.raises(BenchError, match="nothing listens at port 1"):
        await_listener("127.0.0.1", 1)


def test_usage_counts_children_and_memory(tmp_path: Path) -> None:
    with processes(tmp_path / "log") as started:
        small, large = (started.start([*PYTHON, BUSY, str(size)]) for size in (1, 50 << 20))
        for process in (small, large):
            started.ready(process)
            assert usage.tree(process.pid) == [process.pid]
            # Its child is gone, and what that used has gone over to it.
            assert 0.25 <= usage.cpu_seconds([process.pid]) < 5
        grown = usage.memory_kib([large.pid]) - usage.memory_kib([small.pid])
        assert 45 * 1024 < grown < 60 * 1024
    assert usage.memory_kib([small.pid]) == usage.cpu_seconds([small.pid]) == 0


def test_usage_of_nothing_that_lives() -> None:
    assert usage.tree(os.getpid())[0] == os.getpid()
    assert usage.cpu_seconds([]) == usage.memory_kib([]) == 0
