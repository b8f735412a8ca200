"""Processes that a benchmark starts, in network namespaces if need be; all end with it, by their IDs."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

START_SECONDS = 40.0
END_SECONDS = 3.0


class BenchError(Exception):
    """A forwarder or a load did not do what it should; the text says what."""


class Processes:
    """Started processes, each the head of a group of its own, so that Ctrl-C is for the benchmark alone.

    The caller ends them by :meth:`close`; ``log`` takes what they say to stderr.
    """

    def __init__(self, log: Path) -> None:
        self.log = log
        self._running: list[subprocess.Popen[str]] = []

    def start(
        self,
        command: Sequence[str],
        *,
        namespace: int | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[str]:
        """Start a command, in the network namespace of process ``namespace``."""
        with self.log.open("a") as log:
            process = subprocess.Popen(
                [*inside(namespace), *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
                env={**os.environ, **(environment or {})},
            )
        self._running.append(process)
        return process

    def ready(self, process: subprocess.Popen[str]) -> str:
        """What a process prints after "ready" on one line; BenchError when it does not in 40 s, or ends."""
        word, _, more = read_line(process, START_SECONDS).strip().partition(" ")
        if word != "ready":
            raise BenchError(self.tail())
        return more

    @property
    def pids(self) -> list[int]:
        """Of those that were started, in that order."""
        return [process.pid for process in self._running]

    def tail(self) -> str:
        """The last that the processes said."""
        return " | ".join(self.log.read_text(errors="replace").splitlines()[-3:]) or "it said nothing"

    def close(self) -> None:
        """End all that still run: SIGTERM to each group, and SIGKILL to what remains."""
        for process in reversed(self._running):
            _signal(process, signal.SIGTERM)
        deadline = time.monotonic() + END_SECONDS
        for process in reversed(self._running):
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
            # Its children too, which may outlive it: the group has its ID as long as one lives.
            _signal(process, signal.SIGKILL)
            process.wait()
            for pipe in (process.stdin, process.stdout):
                with contextlib.suppress(OSError):
                    assert pipe is not None
                    pipe.close()
        self._running.clear()


def _signal(process: subprocess.Popen[str], number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def inside(namespace: int | None) -> list[str]:
    """What goes before a command that is to run in the network namespace of a process."""
    return [] if namespace is None else ["nsenter", f"--target={namespace}", "--net", "--"]


def read_line(process: subprocess.Popen[str], seconds: float) -> str:
    """The next line of its stdout; empty when it ended; BenchError when there is none in time.

    A process writes no second line before it has been asked for one: it would lie unseen in a buffer here.
    """
    stream: IO[str] | None = process.stdout
    assert stream is not None
    if not select.select([stream], [], [], seconds)[0]:
        raise BenchError(f"no line within {seconds:g} s")
    return stream.readline()


def await_listener(address: str, port: int, namespace: int | None = None) -> None:
    """Return once something accepts at ``port``; BenchError when nothing does in 40 s."""
    if namespace is not None:
        probe = [*inside(namespace), sys.executable, "-S", __file__, address, str(port)]
        if subprocess.run(probe, check=False).returncode:
            raise BenchError(f"nothing listens at port {port}")
        return
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection((address, port), 1):
            return
        time.sleep(0.05)
    raise BenchError(f"nothing listens at port {port}")


@contextlib.contextmanager
def processes(log: Path) -> Iterator[Processes]:
    """Processes that end with the block."""
    started = Processes(log)
    try:
        yield started
    finally:
        started.close()


if __name__ == "__main__":
    await_listener(sys.argv[1], int(sys.argv[2]))
