"""Machines for tests of the system: docs/machines.md says how they work, and how to get a shell in one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system import package, rootfs
from tests.system.rack import Rack


@pytest.fixture(scope="session")
def base() -> Path:
    """A small Debian without Hive."""
    return rootfs.base()


@pytest.fixture(scope="session")
def deb() -> Path:
    """The checkout's Debian package."""
    return package.build()


@pytest.fixture(scope="session")
def layers(deb: Path, base: Path) -> list[Path]:
    """A small Debian on which the package has been installed, and nothing been done with it."""
    return [package.installed(deb, base), base]


@pytest.fixture(scope="module")
def rack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rack]:
    """An empty rack, for the machines of a module's tests. Who asks is marked ``requires("machines")``."""
    with Rack(tmp_path_factory.mktemp("rack")) as made:
        yield made
