"""Nodes of the previous protocol version: the tree in tests/fixtures/previous with today's libraries."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from pathlib import Path

from tests.integration.nodes import Node, environment

ARCHIVE = Path(__file__).parents[1] / "fixtures" / "previous" / "hived-0f8413d.tar.xz"


def unpack(directory: Path) -> Path:
    """The previous version's source tree, unpacked into ``directory``."""
    with tarfile.open(ARCHIVE) as archive:
        # Debian 12's Python knows no filters yet.
        archive.extraction_filter = getattr(tarfile, "data_filter", None)
        archive.extractall(directory)
    return directory


class PreviousNode(Node):
    """A node whose hived and hivectl are those of ``tree``; else like any other."""

    def __init__(self, directory: Path, name: str, tree: Path, *flags: str) -> None:
        super().__init__(directory, name, *flags)
        # Before the checkout, which is in sys.path by the editable install.
        self.env["PYTHONPATH"] = str(tree)


def migrations(tree: Path) -> int:
    """The database version of a source tree."""
    return len(list((tree / "hived" / "store" / "sql").glob("*.sql")))


def source(tree: Path, package: str, home: Path) -> Path:
    """Where a node of ``tree`` takes one of the two packages from."""
    done = subprocess.run(
        # -P: as for the installed commands, the working directory counts for nothing.
        [sys.executable, "-P", "-c", f"import {package}; print({package}.__file__)"],
        env=environment(home) | {"PYTHONPATH": str(tree)},
        capture_output=True,
        text=True,
        check=True,
    )
    return Path(done.stdout.strip())
