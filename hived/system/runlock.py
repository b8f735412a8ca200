"""One hived for one data directory: an flock on ``hived.lock``, held for life.

The kernel drops it with the process, also after kill -9.
"""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

from ..errors import HiveError, Kind, conflict, failed
from .dbusunit import under_systemd

FILE_NAME = "hived.lock"


def refuse_foreign(data_dir: Path) -> None:
    """Raises HiveError (denied) where root would run in another user's directory."""
    try:
        owner = data_dir.stat().st_uid
    except OSError:
        return  # there is none yet, or opening it says why
    if os.geteuid() == 0 and owner != 0:
        raise HiveError(
            Kind.DENIED,
            f"using {data_dir} failed",
            f"it belongs to user ID {owner} and hived was started as root",
            "Type: systemctl start hived; or name another: --data-dir DIR",
        )


def take(data_dir: Path) -> int:
    """Make the directory (0700) if needed and lock it; the file descriptor to keep open.

    Raises HiveError: conflict when another hived has it, denied when root would run in
    another user's directory (files made by root would lock that user out).
    """
    what = f"using {data_dir} failed"
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        refuse_foreign(data_dir)
        if data_dir.stat().st_uid == os.geteuid():
            data_dir.chmod(0o700)
        fd = os.open(data_dir / FILE_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise failed(what, "it is not a directory", "Name another: --data-dir DIR") from None
    except OSError as error:
        hint = "Check its owner and mode, or name another: --data-dir"
        if error.errno == errno.EROFS:
            hint = "Is the disk read-only?"
        if under_systemd() and "MANAGERPID" not in os.environ:
            # The machine's service, and no user's.
            hint += (
                " hived.service may write in /var/lib/hive alone, but where ReadWritePaths= names another"
                " directory: systemctl edit hived"
            )
        raise failed(what, error.strerror or str(error), hint) from None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        pid = os.read(fd, 32).decode("ascii", "replace").strip() or "?"
        os.close(fd)
        raise conflict(
            what,
            f"another hived (process {pid}) runs on it",
            "Stop that one, or give this one a directory of its own: --data-dir DIR",
        ) from None
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    return fd
