"""The process that holds a lab's network namespaces together with it, and clears them when the lab has ended.

The lab and its keeper are joined by a pair of sockets. The lab passes an open file of each namespace that it
makes, and the keeper holds it too. When the lab's end closes - it does so also when the lab is killed with
-9 - the keeper kills whatever runs in those namespaces, and ends. With the last process and the last open
file a namespace is gone, and its interfaces with it. None has a name in /run/netns, so nothing is left there.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
CLEAR_SECONDS = 10.0
# A process that a killed lab has just started is in /proc, but not in its namespace yet.
LATE_SECONDS = 0.1
_HOLD, _CLOSE = b"hold", b"close"
# The device and inode of a namespace's file.
Identity = tuple[int, int]


class Keeper:
    """A lab's end of it. ``directory``: is removed too."""

    def __init__(self, directory: Path | None = None) -> None:
        self._files: list[int] = []
        self._children: list[subprocess.Popen[str]] = []
        self._directory = directory
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        more = [] if directory is None else [str(directory)]
        with theirs:
            # -S: nothing but the standard library, in a third of the time. Not in the lab's process
            # group, where what kills the group would find it.
            self._process = subprocess.Popen(
                [sys.executable, "-S", "-m", "tests.netns.keeper", str(theirs.fileno()), *more],
                cwd=ROOT,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def hold(self, namespace: int) -> None:
        """Be answerable for a namespace, given as an open file of it, which :meth:`close` closes."""
        self._files.append(namespace)
        socket.send_fds(self._ours, [_HOLD], [namespace])

    def reap(self, child: subprocess.Popen[str]) -> None:
        """Wait in the end for a process that runs in one of the namespaces."""
        self._children.append(child)

    def close(self) -> None:
        """Return when all processes in the namespaces are gone."""
        if self._ours.fileno() < 0:
            return
        with contextlib.suppress(BrokenPipeError):
            self._ours.send(_CLOSE)
        self._ours.close()
        if self._process.wait(CLEAR_SECONDS * 2):
            # It was killed itself.
            clear({identity(os.fstat(file)) for file in self._files})
            _remove(self._directory)
        while self._children:
            self._children.pop().wait(CLEAR_SECONDS)
        while self._files:
            os.close(self._files.pop())


def identity(status: os.stat_result) -> Identity:
    return status.st_dev, status.st_ino


def members(namespaces: set[Identity]) -> list[int]:
    """The processes in these network namespaces."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit() and _of(int(entry)) in namespaces:
            found.append(int(entry))
    return found


def _of(pid: int) -> Identity | None:
    # Of a process that has ended there is none, also while its parent has not looked.
    with contextlib.suppress(OSError):
        return identity(os.stat(f"/proc/{pid}/ns/net"))
    return None


def clear(namespaces: set[Identity], late_seconds: float = 0.0) -> bool:
    """Kill all processes in the namespaces; whether none was left in the end.

    Some may come for ``late_seconds``.
    """
    deadline = time.monotonic() + CLEAR_SECONDS
    while time.monotonic() < deadline:
        killed = [file for pid in members(namespaces) if (file := _kill(pid, namespaces)) is not None]
        for file in killed:
            # Readable when the process has ended (pidfd_open(2)).
            select.select([file], [], [], max(0.0, deadline - time.monotonic()))
            os.close(file)
        if not killed:
            if not late_seconds:
                return True
            time.sleep(late_seconds)
            late_seconds = 0
    return False


def _kill(pid: int, namespaces: set[Identity]) -> int | None:
    """Kill a process if it is in one of the namespaces; a file that stands for it until its end."""
    with contextlib.suppress(ProcessLookupError):
        file = os.pidfd_open(pid)
        # The number may have passed to another process since somebody looked.
        if _of(pid) in namespaces:
            signal.pidfd_send_signal(file, signal.SIGKILL)
            return file
        os.close(file)
    return None


def _remove(*directories: Path | None) -> None:
    for directory in directories:
        if directory is not None:
            shutil.rmtree(directory, ignore_errors=True)


def main() -> None:
    lab, directory = socket.socket(fileno=int(sys.argv[1])), sys.argv[2:]
    held: set[Identity] = set()
    while True:
        word, files, _, _ = socket.recv_fds(lab, 16, 1)
        for file in files:
            held.add(identity(os.fstat(file)))
        if word != _HOLD:
            break
    cleared = clear(held, LATE_SECONDS if not word else 0.0)
    _remove(*map(Path, directory))
    sys.exit(not cleared)


if __name__ == "__main__":
    main()
