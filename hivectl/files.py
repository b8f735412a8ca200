"""Files that hold secrets: written whole or not at all, for their owner's eyes only."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from hived.errors import conflict, failed, usage

if TYPE_CHECKING:
    from hived.errors import HiveError


def check_target(path: Path, force: bool) -> None:
    """Before any work is done: whether the file may be written. Raises HiveError."""
    what = f"writing {path} failed"
    if path.is_dir():
        raise usage(what, "it is a directory", "Name a file in it")
    if os.path.lexists(path) and not stat.S_ISREG(path.lstat().st_mode):
        # A rename would put a file in the place of a device, or of a link that leads elsewhere.
        raise usage(what, "it is no regular file", "Name a file, or - for standard output")
    if not force and os.path.lexists(path):
        raise _exists(path)
    if not path.parent.is_dir():
        raise usage(what, f"there is no directory {path.parent}", "Make it first")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise failed(what, f"you may not write in {path.parent}", "Name another place, or use sudo")


def write(path: Path, data: bytes, force: bool) -> None:
    """Make a file (0600) that is on the disk when this returns; with ``force`` in the place of another.

    Raises HiveError: conflict when there is one and ``force`` is not given.
    """
    draft = path.with_name(f".{path.name[:200]}.{secrets.token_hex(4)}.part")
    try:
        try:
            with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            if force:
                os.rename(draft, path)
            else:
                _publish(draft, path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                draft.unlink()
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except FileExistsError:
        raise _exists(path) from None
    except OSError as error:
        raise failed(f"writing {path} failed", error.strerror or str(error), "Name another place") from error


def _publish(draft: Path, path: Path) -> None:
    """Give the file its name unless somebody has taken that meanwhile, which rename would not notice."""
    try:
        os.link(draft, path)
    except FileExistsError:
        raise
    except OSError:  # the file system of a USB stick has no links
        if os.path.lexists(path):
            raise FileExistsError from None
        os.rename(draft, path)


def _exists(path: Path) -> HiveError:
    return conflict(f"writing {path} failed", "it exists already", "Name another file, or add --force")
