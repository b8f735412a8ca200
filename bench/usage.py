"""What processes use, with all their descendants: CPU seconds and memory, from /proc (proc(5))."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def tree(pid: int) -> list[int]:
    """A process and its living descendants."""
    found = [pid]
    for task in _listed(Path(f"/proc/{pid}/task")):
        for child in _read(Path(f"/proc/{pid}/task/{task}/children")).split():
            found += tree(int(child))
    return found


def cpu_seconds(pids: Iterable[int]) -> float:
    """CPU of processes and their descendants so far, those included that ended and were waited for."""
    ticks = 0
    for pid in (descendant for root in pids for descendant in tree(root)):
        fields = _read(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
        # utime, stime, and cutime and cstime of children that were waited for.
        ticks += sum(int(field) for field in fields[11:15])
    return ticks / _TICKS


def memory_kib(pids: Iterable[int]) -> float:
    """Anonymous PSS of processes and their descendants: a page that n processes share counts 1/n in each.

    Pages of files are left out: their share falls in one process when another begins to use them.
    """
    total = 0
    for pid in (descendant for root in pids for descendant in tree(root)):
        for line in _read(Path(f"/proc/{pid}/smaps_rollup")).splitlines():
            if line.startswith(("Pss_Anon:", "Pss_Shmem:")):
                total += int(line.split()[1])
    return float(total)


def await_children(pids: Iterable[int], counts: dict[int, int], seconds: float = 5.0) -> None:
    """Wait until no root has more descendants than ``counts`` says: its CPU then holds those that ended."""
    deadline = time.monotonic() + seconds
    while any(len(tree(pid)) > counts[pid] for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.01)


def _listed(path: Path) -> list[str]:
    try:
        return os.listdir(path)
    except OSError:
        return []


def _read(path: Path) -> str:
    """A file of /proc; empty when its process has just ended."""
    try:
        return path.read_text()
    except OSError:
        return ""
