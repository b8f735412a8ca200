"""``hived --daemonize``: into the background, with a PID file, once the node is ready.

Until then its standard error is the caller's, and so is its exit code: what fails at start is seen by
whoever started it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import sys
from collections.abc import Callable
from pathlib import Path

from daemon import DaemonContext
from daemon.pidfile import TimeoutPIDLockFile
from lockfile import LockError

from ..errors import HiveError, conflict, failed, usage
from . import runlock
from .dbusunit import under_systemd
from .initprocess import is_init

_READY = 0
# A process number in digits, and a line's end.
_PID_BYTES = 11


def start(run: Callable[[Callable[[], None]], int], data_dir: Path, pid_file: Path, log_file: Path) -> int:
    """Call ``run`` in the background; it calls its argument when it is ready. The exit code for the caller.

    Only the caller's process returns from here. Raises HiveError where it cannot begin.
    """
    _refuse_supervised()
    # Before a file is made: where another user's directory has a link, it would be made anywhere.
    runlock.refuse_foreign(data_dir)
    pid_lock = _pid_lock(pid_file)
    _writable(log_file)
    told, tell = os.pipe()
    if os.fork():
        os.close(tell)
        return _outcome(told)
    os.close(told)
    caller = _Caller(tell)
    code = 1
    try:
        with DaemonContext(
            pidfile=pid_lock,
            working_directory=_directory(),
            umask=0o077,
            detach_process=True,
            files_preserve=[tell],
            # Signals are the daemon's own business (trio).
            signal_map={},
            stdout=sys.stdout,
            stderr=sys.stderr,
        ):
            code = run(lambda: _let_go(caller, log_file))
    except LockError as error:
        print(f"hived: {failed(f'writing {pid_file} failed', str(error)).line()}", file=sys.stderr)
    except Exception as error:
        why = f"{type(error).__name__}: {error}"
        print(f"hived: {failed('going into the background failed', why).line()}", file=sys.stderr)
    finally:
        caller.tell(code)
        sys.stderr.flush()
        os._exit(code)
    raise AssertionError("os._exit does not return")


def _directory() -> str:
    """Where it was typed, for files that are read again at SIGHUP; ``/`` where hived may not go there."""
    try:
        here = os.getcwd()
        os.chdir(here)
    except OSError:
        return "/"
    return here


def _refuse_supervised() -> None:
    """Whoever supervises hived waits for the process that it has started."""
    what = "starting hived in the background failed"
    if under_systemd():
        raise usage(what, "systemd runs it as a service", "Leave daemonize out of unit and hived.toml")
    if is_init():
        raise usage(what, "it is the container's first process", "Leave --daemonize out: podman run --detach")


def _pid_lock(path: Path) -> TimeoutPIDLockFile:
    """The PID file, free to be taken: what a killed hived has left is removed."""
    lock = TimeoutPIDLockFile(str(path), acquire_timeout=-1)
    what = f"writing {path} failed"
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        pid = _read_pid(path, what)
        if pid is not None and _is_hived(pid):
            raise conflict(
                what,
                f"hived runs already (process {pid})",
                f"Stop it: kill {pid}; or name another: --pid-file",
            )
        if pid is not None:
            path.unlink()
        # Tried here, where the caller sees what is wrong with it.
        with path.open("x"):
            pass
        path.unlink()
    except OSError as error:
        raise failed(what, error.strerror or str(error), "Name another: --pid-file FILE") from None
    return lock


def _read_pid(path: Path, what: str) -> int | None:
    """The process that a PID file names; None where there is no file. Raises HiveError for any other file."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    with os.fdopen(fd, "rb") as file:
        text = file.read(_PID_BYTES + 1).strip() if stat.S_ISREG(os.fstat(fd).st_mode) else b""
    if not text.isdigit() or len(text) > _PID_BYTES:
        raise conflict(what, "a file is there that is no PID file", "Name another: --pid-file FILE")
    return int(text)


def _is_hived(pid: int) -> bool:
    """Whether the process runs a program of that name, by itself or in an interpreter."""
    with contextlib.suppress(OSError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        return any(os.path.basename(word) == b"hived" for word in words[:4])
    return False


def _writable(path: Path) -> None:
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600))
    except OSError as error:
        raise failed(
            f"writing {path} failed", error.strerror or str(error), "Name another: --log-file FILE"
        ) from None


class _Caller:
    """The pipe to whoever started hived and waits for the outcome, which is told once."""

    def __init__(self, pipe: int) -> None:
        self._pipe: int | None = pipe

    def tell(self, code: int) -> None:
        if self._pipe is not None:
            with contextlib.suppress(OSError):
                # A caller that is gone wants to know nothing.
                os.write(self._pipe, bytes([code]))
            os.close(self._pipe)
            self._pipe = None


def _let_go(caller: _Caller, log_file: Path) -> None:
    """Ready: the caller's terminal is its own again, and the caller is told."""
    log = os.open(log_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(nothing, 1)
    os.dup2(log, 2)
    os.close(nothing)
    os.close(log)
    caller.tell(_READY)


def _outcome(told: int) -> int:
    """What the background says first: that it is ready, or the exit code that it ends with."""
    with contextlib.suppress(KeyboardInterrupt), os.fdopen(told, "rb") as pipe:
        said = pipe.read(1)
        if said:
            return said[0]
        error: HiveError = failed(
            "starting hived failed", "it was ended before it was ready", "See its log file"
        )
        print(f"hived: {error.line()}", file=sys.stderr)
        return 1
    return 128 + signal.SIGINT
