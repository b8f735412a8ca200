"""Choose what stays in the corpus: ``python -m tests.fuzz.minimise DIRECTORY...`` (those of tests.fuzz).

Of all inputs found and kept, the smallest first, those stay that run two lines of hived's after each other
that no input before did. An input that fails is left out: it belongs into a test of its own.
"""

from __future__ import annotations

import hashlib
import logging
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import hived

from .target import CORPUS, Target
from .targets import TARGETS

MOST = 60
_SOURCE = str(Path(hived.__file__).parent)
Step = tuple[str, int, int]


def steps(target: Target, data: bytes) -> set[Step] | None:
    """(file, line before, line) of all that an input runs in hived; None when it fails."""
    found: set[Step] = set()

    def enter(frame: FrameType, event: str, argument: Any) -> Any:
        if not frame.f_code.co_filename.startswith(_SOURCE):
            return None
        before = 0

        def follow(frame: FrameType, event: str, argument: Any) -> Any:
            nonlocal before
            if event == "line":
                found.add((frame.f_code.co_filename, before, frame.f_lineno))
                before = frame.f_lineno
            return follow

        return follow

    threading.settrace(enter)
    sys.settrace(enter)
    try:
        target.run(data)
    except Exception as error:
        print(f"minimise: {target.name}: left out: {error!r}")
        return None
    finally:
        sys.settrace(None)
        threading.settrace(None)
    return found


def minimise(target: Target, directory: Path) -> None:
    inputs = {
        path.read_bytes() for path in (*target.corpus(), *(directory / target.name / "found").glob("*"))
    }
    seen: set[Step] = set()
    kept: list[bytes] = []
    for data in sorted(inputs, key=lambda data: (len(data), data)):
        new = steps(target, data) or set()
        if new - seen and len(kept) < MOST:
            kept.append(data)
            seen |= new
    for path in target.corpus():
        path.unlink()
    (CORPUS / target.name).mkdir(parents=True, exist_ok=True)
    for data in kept:
        (CORPUS / target.name / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)
    print(f"minimise: {target.name}: {len(kept)} of {len(inputs)} inputs, {len(seen)} steps")


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    for known in TARGETS.values():
        minimise(known, Path(sys.argv[1]))
