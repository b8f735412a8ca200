"""Programs that a test ends in one way or another, to see what they leave behind."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
from collections.abc import Iterable, Iterator

from tests.netns.keeper import ROOT

END_SECONDS = 15.0


@contextlib.contextmanager
def doomed(program: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A Python program that is told what to do by lines, in a process group that the test may kill."""
    with subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def said(process: subprocess.Popen[str]) -> str:
    """The next line that it prints."""
    assert process.stdout is not None
    return process.stdout.readline()


def tell(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(line + "\n")
    process.stdin.flush()


@contextlib.contextmanager
def ending(pids: Iterable[int]) -> Iterator[None]:
    """What is done within ends these processes, at once or soon."""
    with contextlib.ExitStack() as stack:
        ends = [os.pidfd_open(pid) for pid in pids]
        for end in ends:
            stack.callback(os.close, end)
        yield
        for end in ends:
            # Readable when the process has ended (pidfd_open(2)).
            assert select.select([end], [], [], END_SECONDS)[0]
