"""The image, built and run by podman without root, on a public host of a lab."""

from __future__ import annotations

import contextlib
import functools
import json
import re
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.nodes import PASSWORD, START_SECONDS, join
from tests.integration.services import echo, receive_exactly, service
from tests.netns.host import PublicHost
from tests.netns.keeper import ROOT
from tests.netns.lab import Lab
from tests.netns.node import PORT
from tests.system import image, quadlet
from tests.system.container import STATE, Container
from tests.system.podman import Podman
from tests.system.seat import seat

pytestmark = [pytest.mark.requires("natlab", "podman"), pytest.mark.timeout(600)]
UID = "10001"
DOCS = ROOT / "docs/containers.md"
QUADLET = ROOT / "packaging/container/hived.container"


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    # pytest's own directories are for nobody but root.
    directory = Path(tempfile.mkdtemp(prefix="hive-podman-"))
    directory.chmod(0o755)
    with Lab(directory, remove=True) as made:
        yield made


@pytest.fixture(scope="module")
def public(lab: Lab) -> PublicHost:
    return lab.public("public")


@pytest.fixture(scope="module")
def podman(lab: Lab, public: PublicHost) -> Iterator[Podman]:
    """Podman on the public host, with the image."""
    images = image.store(lab.directory / "builder", public.namespace)
    with seat(lab.directory / "seat", public.namespace) as place:
        made = Podman(place, images=images)
        image.build(made)
        yield made


@pytest.fixture(scope="module")
def hive(podman: Podman, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    """A container that runs, shared by tests that leave it as it is."""
    with contextlib.closing(Container(podman, tmp_path_factory.mktemp("shared"), "shared")) as made:
        made.start()
        yield made


def status(container: Container) -> dict[str, str]:
    """proc(5)'s status of process 1."""
    lines = container.exec("cat", "/proc/1/status").out.splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


# A service in the container: it says when it listens, and ends with its standard input.
ECHO = """
import socketserver, sys, threading
class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        while data := self.request.recv(65536):
            self.request.sendall(data)
server = socketserver.ThreadingTCPServer(("127.0.0.1", 7000), Echo)
threading.Thread(target=server.serve_forever, daemon=True).start()
print("ready", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def echoing(container: Container) -> Iterator[None]:
    """The service listens at port 7000 in the container within."""
    command = container.podman.command("exec", "--interactive", container.name, "python3", "-c", ECHO)
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    with process.stdout:
        with process.stdin:
            assert process.stdout.readline() == "ready\n"
            yield
        assert process.wait(20) == 0


def loopback() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


def test_hivectl_in_the_container_finds_hived(hive: Container) -> None:
    answer = hive.json("status")
    assert answer["name"] == hive.name
    assert answer["service"]["data_dir"] == STATE
    assert hive.exec("hivectl", "status").out.startswith("name ")


def test_hived_is_process_1_an_ordinary_user_and_without_capabilities(hive: Container) -> None:
    of_hived = status(hive)
    assert "hived" in hive.exec("cat", "/proc/1/cmdline").out
    assert set(of_hived["Uid"].split()) == set(of_hived["Gid"].split()) == {UID}
    sets = [of_hived[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")]
    assert [int(value, 16) for value in sets] == [0] * 5
    assert of_hived["NoNewPrivs"] == "1"


def test_without_any_option_too_hived_is_an_ordinary_user(podman: Podman) -> None:
    assert podman.run("run", "--rm", "--entrypoint=id", image.NAME, "-u").out.strip() == UID


@pytest.mark.parametrize("path", ["/usr/lib/hive/lib/hived/x", "/etc/hive/x", "/x"])
def test_only_the_volume_can_be_written_to_even_by_root(hive: Container, path: str) -> None:
    refused = hive.exec("touch", path, user="0", check=False)
    assert (refused.code, "Read-only file system" in refused.err) == (1, True)
    hive.exec("touch", f"{STATE}/x")


def test_the_health_check_says_whether_hived_answers(hive: Container, podman: Podman, tmp_path: Path) -> None:
    assert hive.healthy()
    idle = Container(podman, tmp_path, "idle", "--entrypoint=sleep")
    with contextlib.closing(idle):
        podman.run("run", "--detach", *idle.options, image.NAME, "1000")
        assert not idle.healthy()


@pytest.mark.full
def test_the_health_check_of_a_hived_that_hangs_ends(podman: Podman, tmp_path: Path) -> None:
    with contextlib.closing(Container(podman, tmp_path, "hung")) as made:
        made.start()
        podman.run("kill", "--signal=STOP", made.name)
        assert not made.healthy()


def test_orphans_are_reaped(hive: Container) -> None:
    orphans = hive.exec("sh", "-c", "for n in 1 2 3 4 5; do sh -c 'sleep 0.01 & echo $!'; done").out.split()
    there = ("sh", "-c", 'for pid; do [ ! -e "/proc/$pid" ] || cat "/proc/$pid/stat"; done', "sh", *orphans)
    # Nobody but hived can see when they end.
    deadline = time.monotonic() + 20
    while left := hive.exec(*there).out:
        assert time.monotonic() < deadline, left
    assert len(orphans) == 5


def test_a_stop_ends_it_cleanly(podman: Podman, tmp_path: Path) -> None:
    with contextlib.closing(Container(podman, tmp_path, "stopped")) as made:
        assert made.start().stop() == 0
        made.log.wait_for("stopped", 5)
        assert made.inspect()["State"]["ExitCode"] == 0


def test_a_stop_right_after_the_start_ends_it_too(podman: Podman, tmp_path: Path) -> None:
    with contextlib.closing(Container(podman, tmp_path, "early")) as made:
        podman.run("create", *made.options, image.NAME)
        for _ in range(5):
            podman.run("start", made.name)
            podman.run("stop", "--time=60", made.name, seconds=80)
            assert made.inspect()["State"]["ExitCode"] == 0


def test_the_state_stays_with_the_volume_and_none_is_in_the_image(podman: Podman, tmp_path: Path) -> None:
    with contextlib.closing(Container(podman, tmp_path, "kept")) as kept:
        kept.start()
        kept.create("my-network")
        was = kept.json("id")["peer_id"]
        kept.remove()
        assert kept.start().json("id")["peer_id"] == was
        assert [row["name"] for row in kept.json("networks")] == ["my-network"]
    with contextlib.closing(Container(podman, tmp_path, "other")) as other:
        assert other.start().json("id")["peer_id"] != was


def test_secrets_in_files_are_seen_by_hived_alone(podman: Podman, tmp_path: Path) -> None:
    for name, text in (("network", f"my-network:{PASSWORD}"), ("admin", f"admin:{PASSWORD}")):
        podman.run("secret", "create", name, "-", stdin=text + "\n")
    secrets = [f"--secret={name},uid={UID},mode=0400" for name in ("network", "admin")]
    files = [f"--env=HIVED_{name.upper()}_FILE=/run/secrets/{name}" for name in ("network", "admin")]
    with contextlib.closing(Container(podman, tmp_path, "secret", *secrets, *files)) as made:
        made.start()
        assert [row["name"] for row in made.json("networks")] == ["my-network"]
        assert [row["user"] for row in made.json("admin")] == ["admin"]
        shown = [
            json.dumps(made.inspect()),
            podman.run("ps", "--all", "--no-trunc").out,
            "".join(made.log.lines),
        ]
        shown.append(made.exec("sh", "-c", "cat /proc/1/cmdline /proc/1/environ").out)
        assert PASSWORD in made.exec("cat", "/run/secrets/network").out
        assert [text for text in shown if PASSWORD in text] == []


def test_it_forwards_both_ways_and_is_back_after_a_restart(
    lab: Lab, public: PublicHost, podman: Podman, tmp_path: Path
) -> None:
    ports = [f"--publish={port}:{port}" for port in (PORT, 8080)]
    announce = f"--env=HIVED_ANNOUNCE=/ip4/{public.address}/tcp/{PORT}"
    laptop = lab.lan("home").host("laptop")
    visitor = lab.public("visitor")
    node = lab.node(laptop)
    with contextlib.ExitStack() as stack:
        gate = stack.enter_context(contextlib.closing(Container(podman, tmp_path, "gate", *ports, announce)))
        stack.callback(node.close)
        for each in (gate, node):
            each.start(wait=False)
        for each in (gate, node):
            each.ready()
        join("my-network", gate, node)
        # Who connects to the public host's port 8080 is joined to a service beside the laptop ...
        beside = stack.enter_context(service(echo, laptop.call(loopback)))
        gate.ctl("proxy", "add", "egress", "8080", f"{node.peer_id}:{beside.port}")
        node.ctl("proxy", "add", "ingress", f"{gate.peer_id}:8080", str(beside.port))
        # ... and who connects to the laptop's port 9000 to one in the container.
        node.ctl("proxy", "add", "egress", "9000", f"{gate.peer_id}:7000", "--bind", "127.0.0.1")
        gate.ctl("proxy", "add", "ingress", f"{node.peer_id}:9000", "7000")

        def exchange() -> None:
            with echoing(gate):
                for host, address in ((visitor, (public.address, 8080)), (laptop, ("127.0.0.1", 9000))):
                    with host.call(functools.partial(socket.create_connection, address, 20)) as connection:
                        connection.sendall(b"hello")
                        assert receive_exactly(connection, 5) == b"hello"

        exchange()
        before = len(node.log.lines)
        podman.run("restart", "--time=60", gate.name, seconds=80)
        node.log.wait_for("joined", 30, before)
        exchange()


@pytest.fixture
def installed(podman: Podman, tmp_path: Path) -> Iterator[Container]:
    """The container of docs and Quadlet file, with their volume, not started yet."""
    made = Container(podman, tmp_path, "hived")
    yield made
    made.remove()
    podman.run("volume", "rm", "hive", check=False)


def test_the_commands_of_the_docs_work(installed: Container) -> None:
    section = DOCS.read_text().split("\n## Run\n", 1)[1].split("\n## ", 1)[0]
    block = re.findall(r"```console\n(.*?)```", section, re.DOTALL)[0]
    run, status = block.replace("\\\n", "").removeprefix("$ ").split("\n$ ")

    def typed(line: str) -> str:
        command = installed.podman.seat.command(["sh", "-ec", line])
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=60).stdout

    typed(run)
    # What people take longer to type than hived to start.
    deadline = time.monotonic() + START_SECONDS
    while not installed.healthy():
        assert time.monotonic() < deadline, installed.podman.run("logs", installed.name)
    assert typed(status).startswith("name ")


@pytest.fixture
def manager(podman: Podman) -> Iterator[socket.socket]:
    """The end of a service manager to which services say that they are ready, bound in the user's home."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        path = podman.seat.home / "manager"
        made.bind(str(path))
        path.chmod(0o666)
        made.settimeout(30)
        yield made
        path.unlink()


def test_the_command_of_the_quadlet_file_runs_and_says_when_it_is_ready(
    podman: Podman, manager: socket.socket, installed: Container, tmp_path: Path
) -> None:
    command = quadlet.exec_start(quadlet.unit(tmp_path, QUADLET.read_text()))
    # What systemd puts in, and without the control group that it would give.
    places = {"%t/%N.cid": str(podman.seat.home / "cid"), "%H": "machine"}
    for specifier, value in places.items():
        command = [word.replace(specifier, value) for word in command if word != "--cgroups=split"]
    podman.run(*command[1:], notify=Path(manager.getsockname()))
    told = [manager.recv(4096).decode() for _ in range(2)]
    assert [line.partition("=")[0] for line in told] == ["MAINPID", "READY"]
    assert installed.json("status")["name"] == "machine"
    assert installed.healthy()
