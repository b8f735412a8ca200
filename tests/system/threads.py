"""Stopping one thread of a process, as if it hung, while its others run (ptrace(2))."""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
from collections.abc import Iterator
from pathlib import Path

_SEIZE, _INTERRUPT = 0x4206, 0x4207
_WALL = 0x40000000
_LOOK_SECONDS = 0.02
_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_libc.ptrace.restype = ctypes.c_long


def threads(pid: int) -> dict[str, int]:
    """The threads of a process by name; with the name "" its first one, whatever its name is."""
    tasks = {
        (task / "comm").read_text().strip(): int(task.name) for task in Path(f"/proc/{pid}/task").iterdir()
    }
    return {**tasks, "": pid}


@contextlib.contextmanager
def hung(thread: int) -> Iterator[None]:
    """The thread does not run within, unless it is killed."""
    stopped, released = threading.Event(), threading.Event()
    errors: list[OSError] = []

    def hold() -> None:
        # The tracer is one thread; with its end the traced one goes on.
        for request in (_SEIZE, _INTERRUPT):
            if _libc.ptrace(request, thread, None, None):
                errors.append(OSError(ctypes.get_errno(), "ptrace"))
                break
        else:
            os.waitpid(thread, _WALL)
        stopped.set()
        # A process whose first thread is traced ends for its parent when the tracer has waited for it.
        while not errors and not released.wait(_LOOK_SECONDS):
            with contextlib.suppress(ChildProcessError):
                os.waitpid(thread, _WALL | os.WNOHANG)

    tracer = threading.Thread(target=hold)
    tracer.start()
    try:
        stopped.wait()
        if errors:
            raise errors[0]
        yield
    finally:
        released.set()
        tracer.join()
