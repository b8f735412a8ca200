"""Two machines in one network: the README's first ten minutes, as services, with reboots and cut power."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.system.hive import NETWORK, join, shown, started
from tests.system.machine import Machine
from tests.system.rack import Rack
from tests.system.web import serve

pytestmark = [pytest.mark.requires("machines"), pytest.mark.full]
AGAIN_SECONDS = 60


@pytest.fixture(scope="module")
def pair(rack: Rack, layers: Sequence[Path]) -> tuple[Machine, Machine]:
    home, public = started(rack, "home", layers), started(rack, "public", layers)
    for machine in (home, public):
        join(machine)
    identity = home.run("hivectl id --base64").out.strip()
    public.run(f"hivectl register {identity} --network {NETWORK}")
    serve(home, 8000, "from home")
    serve(public, 9000, "from public")
    home.run("hivectl proxy add ingress public:8080 8000")
    public.run("hivectl proxy add egress 8080 home:8000")
    public.run("hivectl proxy add ingress home:9090 9000")
    home.run("hivectl proxy add egress 9090 public:9000")
    return home, public


def fetch(machine: Machine, port: int) -> str:
    """What is at the port now or soon, as somebody who tries again every second."""
    return machine.run(
        f"curl -sS --retry {AGAIN_SECONDS} --retry-delay 1 --retry-all-errors http://127.0.0.1:{port}/",
        seconds=AGAIN_SECONDS * 3,
    ).out


def forwards(home: Machine, public: Machine) -> None:
    assert fetch(public, 8080) == "from home"
    assert fetch(home, 9090) == "from public"
    for machine, other in ((home, "public"), (public, "home")):
        (row,) = [row for row in shown(machine, "nodes") if row["name"] == other]
        assert row["path"] == "direct"


def test_each_forwards_to_the_other(pair: tuple[Machine, Machine]) -> None:
    forwards(*pair)


def test_both_reboot(pair: tuple[Machine, Machine]) -> None:
    for machine in pair:
        machine.reboot()
    forwards(*pair)


def test_the_power_fails_for_both(pair: tuple[Machine, Machine]) -> None:
    for machine in pair:
        machine.power_cut()
    for machine in pair:
        machine.boot()
    forwards(*pair)


def test_one_is_away_for_a_while(pair: tuple[Machine, Machine]) -> None:
    home, public = pair
    home.poweroff()
    assert public.run("curl -sS http://127.0.0.1:8080/", check=False).code != 0
    public.run("systemctl restart hived")
    home.boot()
    forwards(home, public)
