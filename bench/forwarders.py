"""The forwarders that are compared: how each is started, and which processes it consists of.

Each leads from a port on loopback to a target on loopback, through two ends that talk TCP; all as they come,
with their default settings but for what is named. In a :class:`Route` of two network namespaces the near end
runs in one and the far end in the other.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.processes import BenchError, Processes, await_listener, inside, processes
from tests.integration.nodes import Node, free_port, join, proxy
from tests.needs import program

KUBO = Path("build/interop/kubo/bin/python")
# The compiled form of Hive's data plane, made from the sources as they stand.
NATIVE = Path("build/bench/native").resolve()
NETWORK = "bench"


@dataclass(frozen=True)
class Route:
    """Where the two ends run: the processes whose network namespaces they are in, and the far address."""

    near: int | None = None
    far: int | None = None
    address: str = "127.0.0.1"


@dataclass(frozen=True)
class Forwarder:
    """A running forwarder: the port to connect to, and the processes of its near and of its far end."""

    port: int
    near: tuple[int, ...] = ()
    far: tuple[int, ...] = ()

    @property
    def pids(self) -> tuple[int, ...]:
        return self.near + self.far


class RoutedNode(Node):
    """A hived in a network namespace. ``native``: its setting HIVE_NATIVE."""

    def __init__(self, directory: Path, name: str, namespace: int | None, address: str, native: str) -> None:
        super().__init__(directory, name, "--log-level", "info")
        self.env["HIVE_NATIVE"] = native
        self.namespace = namespace
        self.listen = (f"/ip4/{address}/tcp/{free_port()}",)

    def command(self, *extra: str) -> list[str]:
        return [*inside(self.namespace), *super().command(*extra)]


Start = Callable[[Path, Processes, Route, int], contextlib.AbstractContextManager[Forwarder]]


@contextlib.contextmanager
def direct(directory: Path, started: Processes, route: Route, target: int) -> Iterator[Forwarder]:
    """No forwarder: in namespaces, what TCP itself makes of the path."""
    yield Forwarder(target)


@contextlib.contextmanager
def socat(directory: Path, started: Processes, route: Route, target: int) -> Iterator[Forwarder]:
    """One socat, which forks for each connection. Nothing is encrypted; its far end is the target."""
    port = free_port()
    listen = f"TCP-LISTEN:{port},bind=127.0.0.1,fork,reuseaddr,backlog=4096,nodelay"
    process = started.start([_path("socat"), listen, f"TCP:{route.address}:{target},nodelay"])
    await_listener("127.0.0.1", port)
    yield Forwarder(port, (process.pid,))


@contextlib.contextmanager
def _ssh(
    directory: Path, started: Processes, route: Route, target: int, *options: str
) -> Iterator[Forwarder]:
    port, door = free_port(), free_port()
    for key in ("host", "user"):
        path = str(directory / key)
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
    server = ["UsePAM no", "StrictModes no", "MaxStartups 1000", "MaxSessions 1000", "PidFile none"]
    server += [f"ListenAddress {route.address}", f"Port {door}", f"HostKey {directory / 'host'}"]
    server += [f"AuthorizedKeysFile {directory / 'user.pub'}", "PermitRootLogin prohibit-password"]
    config = directory / "sshd_config"
    config.write_text("\n".join(server) + "\n")
    if os.geteuid() == 0:
        # Debian's sshd wants it, and its service makes it.
        Path("/run/sshd").mkdir(exist_ok=True)
    sshd = started.start([_path("sshd"), "-D", "-e", "-f", str(config)], namespace=route.far)
    await_listener(route.address, door, route.far)
    client = ["ssh", "-N", "-F", "none", "-p", str(door), "-i", str(directory / "user"), *options]
    for option in ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR"):
        client += ["-o", option]
    client += ["-o", "ExitOnForwardFailure=yes", "-L", f"127.0.0.1:{port}:127.0.0.1:{target}", route.address]
    ssh = started.start(client, namespace=route.near)
    await_listener("127.0.0.1", port, route.near)
    yield Forwarder(port, (ssh.pid,), (sshd.pid,))


@contextlib.contextmanager
def ssh(directory: Path, started: Processes, route: Route, target: int) -> Iterator[Forwarder]:
    with _ssh(directory, started, route, target) as found:
        yield found


@contextlib.contextmanager
def ssh_gcm(directory: Path, started: Processes, route: Route, target: int) -> Iterator[Forwarder]:
    with _ssh(directory, started, route, target, "-c", "aes128-gcm@openssh.com") as found:
        yield found


def _libp2p(
    command: list[str], near: list[str], far: list[str], started: Processes, route: Route, target: int
) -> Forwarder:
    """A listening and a dialing process with a libp2p connection between them."""
    port, door = free_port(), str(free_port())
    listen = [*command, "listen", *far, route.address, door, str(target)]
    listening = started.start(listen, namespace=route.far)
    peer = started.ready(listening)
    dialing = started.start(
        [*command, "dial", *near, route.address, door, peer, str(port)], namespace=route.near
    )
    started.ready(dialing)
    return Forwarder(port, (dialing.pid,), (listening.pid,))


@contextlib.contextmanager
def kubo(directory: Path, started: Processes, route: Route, target: int) -> Iterator[Forwarder]:
    if not KUBO.exists():
        raise BenchError("Kubo is not installed (make bench does it)")
    near, far = directory / "near", directory / "far"
    near.mkdir()
    far.mkdir()
    script = str(Path(__file__).with_name("kuboforward.py"))
    yield _libp2p([str(KUBO), script], [str(near)], [str(far)], started, route, target)


@contextlib.contextmanager
def stock(directory: Path, started: Processes, route: Route, target: int) -> Iterator[Forwarder]:
    yield _libp2p([sys.executable, "-m", "bench.stockforward"], [], [], started, route, target)


@contextlib.contextmanager
def _hive(directory: Path, route: Route, target: int, native: str) -> Iterator[Forwarder]:
    """Two hived in one network, with an egress and an ingress proxy made by hivectl."""
    near_address = "127.0.0.1" if route.near is None else route.address.rpartition(".")[0] + ".1"
    near = RoutedNode(directory, "near", route.near, near_address, native)
    far = RoutedNode(directory, "far", route.far, route.address, native)
    try:
        for node in (near, far):
            node.start(wait=False)
        for node in (near, far):
            node.ready()
        # The near one dials, as the others' do.
        join(NETWORK, far, near)
        port = proxy(near, far, target)
        assert near.process is not None
        assert far.process is not None
        yield Forwarder(port, (near.process.pid,), (far.process.pid,))
    finally:
        for node in (near, far):
            node.close()


@contextlib.contextmanager
def hive(directory: Path, started: Processes, route: Route, target: int) -> Iterator[Forwarder]:
    """All of it Python."""
    with _hive(directory, route, target, "off") as found:
        yield found


@contextlib.contextmanager
def hive_native(directory: Path, started: Processes, route: Route, target: int) -> Iterator[Forwarder]:
    """With the compiled data plane."""
    if not NATIVE.exists():
        raise BenchError("the data plane is not compiled (make bench does it)")
    with _hive(directory, route, target, str(NATIVE)) as found:
        yield found


FORWARDERS: dict[str, Start] = {
    "direct": direct,
    "socat": socat,
    "ssh": ssh,
    "ssh-gcm": ssh_gcm,
    "kubo": kubo,
    "stock": stock,
    "hive": hive,
    "hive-native": hive_native,
}


@contextlib.contextmanager
def running(name: str, directory: Path, route: Route, target: int) -> Iterator[Forwarder]:
    """A started forwarder; BenchError or AssertionError when it does not start."""
    directory.mkdir(parents=True)
    with (
        processes(directory / "log") as started,
        FORWARDERS[name](directory, started, route, target) as found,
    ):
        yield found


def _path(name: str) -> str:
    found = program(name)
    if found is None:
        raise BenchError(f"no {name} on this machine")
    return found
