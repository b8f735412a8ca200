"""What tests keep between runs, outside the checkout: each thing under a hash of all that it is made of."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

# Of one kind so many are kept: two checkouts at work do not take turns in throwing away.
KEPT = 3
# What this process has asked for is locked as long as it lives: machines run on it.
_used: dict[Path, int] = {}


def root() -> Path:
    """The directory: ``HIVE_CACHE``, else one for the machine or, not as root, one for the user."""
    if named := os.environ.get("HIVE_CACHE"):
        return Path(named)
    return Path("/var/cache/hive-build") if os.geteuid() == 0 else Path.home() / ".cache" / "hive-build"


def key(*parts: str | bytes) -> str:
    """A short name for what these parts make."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()[:16]


@contextlib.contextmanager
def _locked(file: Path) -> Iterator[None]:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield


def directory(kind: str, name: str, make: Callable[[Path], None]) -> Path:
    """The directory ``name`` of a kind; ``make`` fills it when there is none yet.

    Of several processes that want it at once one makes it and the others wait. What ``make`` did not finish
    is not taken for the thing. Old ones of the kind go, but none that a process that lives has asked for.
    """
    kinds = root() / kind
    made = kinds / name
    with _locked(root() / f"{kind}.lock"):
        if not made.is_dir():
            unfinished = kinds / f"{name}.unfinished"
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir(parents=True)
            try:
                make(unfinished)
                # Where "/" is a machine's own, others than root must get in.
                unfinished.chmod(0o755)
                unfinished.rename(made)
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)
        os.utime(made)
        if made not in _used:
            _used[made] = os.open(made, os.O_RDONLY)
            fcntl.flock(_used[made], fcntl.LOCK_SH)
        for old in sorted(kinds.iterdir(), key=lambda path: path.stat().st_mtime)[:-KEPT]:
            _remove(old)
    return made


def _remove(old: Path) -> None:
    """Remove it, unless a process uses it."""
    file = os.open(old, os.O_RDONLY)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    finally:
        os.close(file)
    shutil.rmtree(old, ignore_errors=True)
