"""Machines for tests of the system: docs/machines.md says how they work, and how to get a shell in one."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.system import package, rootfs
from tests.system.rack import Rack

_racks: list[Rack] = []


# On a machine that has made none of it yet, the first tests make a Debian, wheels, a package and an image.
_COLD_SECONDS = 900


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(_COLD_SECONDS))


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
        _racks.append(made)
        yield made
        _racks.remove(made)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With a failure come the last lines of the machines' journals, for in a moment they are gone."""
    report = yield
    if report.failed:
        for machine in [machine for rack in _racks for machine in rack.machines if machine.leader]:
            said = machine.run("journalctl -q -b -u 'hived*' -n 40 -o short-monotonic", check=False).out
            report.sections.append((f"journal of {machine.name}", said))
    return report
