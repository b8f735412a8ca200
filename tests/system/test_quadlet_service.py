"""packaging/container/hived.container under systemd, with a podman that knows it: the machine's, a user's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.nodes import Result
from tests.netns.keeper import ROOT
from tests.netns.namespace import Namespace
from tests.netns.node import PORT
from tests.system import image, rootfs
from tests.system.machine import Machine
from tests.system.rack import Rack

pytestmark = [pytest.mark.requires("machines", "podman"), pytest.mark.full, pytest.mark.timeout(900)]
FILE = ROOT / "packaging/container/hived.container"
START_SECONDS, ANSWER_SECONDS = 100, 20.0
# Where the tests' machine gives out no controllers of version 2, podman may not ask for one.
CONTAINERS_CONF = "[containers]\npids_limit = 0\n"
# The devices that a machine has, and a container has not at each boot.
DEVICES = """
[Unit]
DefaultDependencies=no
Before=sysinit.target
[Service]
Type=oneshot
UMask=0000
ExecStart=mknod /dev/fuse c 10 229
ExecStart=chmod 666 /dev/net/tun
[Install]
WantedBy=sysinit.target
"""
# For a test that need not wait for minutes.
IMPATIENT = "[Container]\nHealthInterval=1s\nHealthStartPeriod=1s\n"


@dataclass
class Service:
    """hived's, of a user's systemd, or root's: the machine's."""

    machine: Machine
    user: str

    @property
    def directory(self) -> str:
        """Where podman looks for Quadlet files."""
        home = f"/home/{self.user}/.config" if self.user != "root" else "/etc"
        return f"{home}/containers/systemd"

    def put(self, name: str, text: str) -> None:
        self.machine.put(f"{self.directory}/{name}", text)
        self.systemctl("daemon-reload")

    def run(self, line: str, check: bool = True) -> Result:
        return self.machine.run(line, self.user, check=check, seconds=START_SECONDS)

    def systemctl(self, line: str, check: bool = True) -> Result:
        return self.run(f"systemctl {'' if self.user == 'root' else '--user '}{line}", check)

    def await_line(self, text: str, after: str) -> None:
        unit = "hived" if self.user == "root" else "USER_UNIT=hived.service"
        self.machine.await_line(unit, text, START_SECONDS, after)

    def peer_id(self) -> str:
        shown = self.run("podman exec hived hivectl id --json").json()
        return str(shown["peer_id"])


@pytest.fixture(scope="module")
def archive(rack: Rack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The image, for `podman load`."""
    saved = tmp_path_factory.mktemp("image") / "hive.tar"
    image.save(saved, rack.plug("builder")[0])
    yield saved
    # pytest would keep what is in its directories.
    saved.unlink()


@pytest.fixture(scope="module", params=["root", "ann"])
def service(request: pytest.FixtureRequest, rack: Rack, archive: Path) -> Service:
    """It runs, on a machine of its own, as the file's first lines say."""
    user = str(request.param)
    machine = rack.machine(f"{user}s", rootfs.with_podman(), nests=True)
    machine.boot()
    machine.put("/etc/containers/containers.conf", CONTAINERS_CONF)
    machine.put("/etc/systemd/system/devices.service", DEVICES)
    machine.put("/tmp/hive.tar", archive.read_bytes())
    machine.run("systemctl enable --now devices")
    # For a user's container podman waits for it, for 90 s where nothing else asks for it.
    machine.run("systemctl add-wants multi-user.target network-online.target")
    machine.run("systemctl start network-online.target")
    made = Service(machine, user)
    if user != "root":
        machine.run(f"useradd --create-home --shell /bin/bash {user} && loginctl enable-linger {user}")
    made.run("podman load --quiet --input /tmp/hive.tar")
    made.put("hived.container", FILE.read_text())
    made.systemctl("start hived")
    return made


@pytest.fixture(scope="module")
def elsewhere(rack: Rack) -> Namespace:
    return rack.plug("elsewhere")[0]


def greets(namespace: Namespace, machine: Machine) -> bool:
    """Whether hived answers at its port, as other nodes reach it."""
    with namespace.socket() as client:
        client.settimeout(ANSWER_SECONDS)
        client.connect((machine.address, PORT))
        client.sendall(b"\x13/multistream/1.0.0\n")
        return client.recv(20) == b"\x13/multistream/1.0.0\n"


def test_it_is_started_when_hived_is_ready(service: Service, elsewhere: Namespace) -> None:
    """Nobody waits between the two: `systemctl start` has returned."""
    status = service.run("podman exec hived hivectl status --json").json()
    assert status["name"] == service.machine.name
    assert service.run("podman healthcheck run hived").code == 0
    assert service.run("podman inspect --format '{{.State.Health.Status}}' hived").out == "healthy\n"
    assert greets(elsewhere, service.machine)


def test_a_restart_keeps_the_identity(service: Service, elsewhere: Namespace) -> None:
    before = service.peer_id()
    service.systemctl("restart hived")
    assert service.peer_id() == before
    assert greets(elsewhere, service.machine)


@pytest.mark.parametrize("event", ["reboot", "power cut"])
def test_it_comes_back_by_itself(service: Service, elsewhere: Namespace, event: str) -> None:
    before = service.peer_id()
    if event == "reboot":
        service.machine.reboot()
    else:
        service.machine.power_cut()
        service.machine.boot()
    # What waits for the machine does not wait for a user's systemd. "degraded" while podman's first check,
    # which is a unit, has come before hived was ready.
    service.systemctl("is-system-running --wait", check=False)
    assert service.systemctl("is-active hived").out == "active\n"
    assert service.peer_id() == before
    assert greets(elsewhere, service.machine)


def test_a_hived_that_hangs_is_ended_and_started_anew(service: Service, elsewhere: Namespace) -> None:
    before = service.peer_id()
    service.put("hived.container.d/impatient.conf", IMPATIENT)
    service.systemctl("restart hived")
    after = service.machine.cursor()
    service.run("podman kill --signal STOP hived")
    service.await_line("Started hived.service", after)
    assert service.systemctl("show hived --property=NRestarts --value").out == "1\n"
    assert service.peer_id() == before
    assert greets(elsewhere, service.machine)


def test_a_stop_is_clean(service: Service) -> None:
    service.systemctl("stop hived")
    assert service.systemctl("show hived --property=Result --value").out == "success\n"
    assert service.run("podman ps --all --quiet").out == ""
