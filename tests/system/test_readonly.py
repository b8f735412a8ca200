"""A disk that turns read-only while hived runs, as the kernel does it after an error of the disk.

The kernel refuses it while files are open for writing, unless the disk is at fault. So what hived has open
already is refused by strace, with the same error, and what it opens from then on by a read-only mount.
"""

from __future__ import annotations

import contextlib
import re
import shlex
import socket
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.needs import program
from tests.netns.namespace import Namespace
from tests.system.hive import NETWORK, STRANGER, drop_in, join, peer_id, shown, started
from tests.system.machine import Machine
from tests.system.rack import Rack

pytestmark = [pytest.mark.requires("machines", "strace"), pytest.mark.full]
STATE = "/var/lib/hive"
FILES = [f"{STATE}/hive.db{suffix}" for suffix in ("", "-wal", "-shm")]
WRITES = "write,pwrite64,pwritev,ftruncate,fallocate"
WATCHDOG_SECONDS = 4
PORT, SERVICE = 9001, 7000
PATIENCE_SECONDS = 60.0
ADD = [f"hivectl proxy add egress 9002 {STRANGER}:1", "hivectl networks create blue"]
# Each asks the database; the second command's answer is nowhere else.
READ = "hivectl status && hivectl admin && hivectl nodes && hivectl proxy"
REASON = (
    rf"using {FILES[0]} failed: (disk I/O error|attempt to write a readonly database)\. Check the disk, .*"
)
CHECK = f"import sqlite3; print(*sqlite3.connect('{FILES[0]}').execute('PRAGMA integrity_check').fetchone())"


@pytest.fixture(scope="module")
def elsewhere(rack: Rack) -> tuple[Namespace, str]:
    """Where the service is, and who uses it."""
    return rack.plug("elsewhere")


@pytest.fixture(scope="module")
def machine(rack: Rack, layers: Sequence[Path], elsewhere: tuple[Namespace, str]) -> Machine:
    """Its port leads to the service, through the other node."""
    home, public = started(rack, "home", layers), started(rack, "public", layers)
    for made in (home, public):
        join(made)
    drop_in(home, "Service", f"WatchdogSec={WATCHDOG_SECONDS}s")
    home.run("systemctl restart hived")
    public.run(f"hivectl proxy add ingress {peer_id(home)}:{PORT} {SERVICE} --to {elsewhere[1]}")
    home.run(f"hivectl proxy add egress {PORT} {peer_id(public)}:{SERVICE}")
    identity = home.run("hivectl id --base64").out.strip()
    public.run(f"hivectl register {identity} --network {NETWORK}")
    return home


@contextlib.contextmanager
def writes_refused(pid: int) -> Iterator[None]:
    """A process, by its number outside, cannot write to what it has open of the database."""
    command = [
        *(program("strace") or "strace", "--follow-forks", "--output=/dev/null", f"--attach={pid}"),
        *(f"--inject={WRITES}:error=EROFS", *(f"--trace-path={file}" for file in FILES)),
    ]
    tracer = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert tracer.stderr is not None
        said = tracer.stderr.readline()
        assert "attached" in said, said
        yield
    finally:
        tracer.terminate()
        tracer.communicate()


@contextlib.contextmanager
def read_only(machine: Machine) -> Iterator[None]:
    """The disk with the state, as hived sees it."""
    (pid,) = machine.show("hived", "MainPID")
    inside = f"nsenter --target={pid} --mount"
    mount = f"mount --bind {STATE} {STATE} && mount -o remount,bind,ro {STATE}"
    with writes_refused(machine.host_pid(int(pid))):
        machine.run(f"{inside} sh -c {shlex.quote(mount)}")
        try:
            yield
        finally:
            machine.run(f"{inside} umount --lazy {STATE}")


@contextlib.contextmanager
def connection(namespace: Namespace, address: str, service: socket.socket) -> Iterator[list[socket.socket]]:
    """A forwarded connection: its client's end and its service's."""
    with namespace.socket() as client:
        client.settimeout(PATIENCE_SECONDS)
        client.connect((address, PORT))
        # The service hears of it with the first bytes.
        client.sendall(b"?")
        served, _ = service.accept()
        with served:
            served.settimeout(PATIENCE_SECONDS)
            assert served.recv(1) == b"?"
            yield [client, served]


def passes(ends: list[socket.socket]) -> bool:
    for one, other in (ends, ends[::-1]):
        one.sendall(b"to and fro")
        if other.recv(10, socket.MSG_WAITALL) != b"to and fro":
            return False
    return True


def configured(machine: Machine) -> tuple[list[str], list[tuple[str, int]]]:
    networks = [row["name"] for row in shown(machine, "networks")]
    return networks, [(row["direction"], row["port"]) for row in shown(machine, "proxy")]


def refused(machine: Machine, line: str) -> None:
    """One line says why, and what to do."""
    failed = machine.run(line, check=False)
    assert (failed.code, failed.out) == (1, "")
    (said,) = failed.err.splitlines()
    assert re.fullmatch(f"hivectl: {REASON}", said), said


def test_a_disk_that_turns_read_only(machine: Machine, elsewhere: tuple[Namespace, str]) -> None:
    before, (pid,) = configured(machine), machine.show("hived", "MainPID")
    with contextlib.ExitStack() as stack:
        service = stack.enter_context(elsewhere[0].socket())
        service.bind(("", SERVICE))
        service.listen()
        service.settimeout(PATIENCE_SECONDS)
        ends = stack.enter_context(connection(elsewhere[0], machine.address, service))
        assert passes(ends)
        with read_only(machine):
            # At first what is open is written to, then what has been opened again.
            for line in [*ADD, *ADD]:
                refused(machine, line)
            # What only reads goes on, for longer than the watchdog waits; so do connections, new ones too.
            machine.run(
                f"end=$((SECONDS + {3 * WATCHDOG_SECONDS})); while ((SECONDS < end)); do {READ} || exit; done"
            )
            assert configured(machine) == before
            assert ":9002 " not in machine.run("ss -Hlnt").out
            assert passes(ends)
            with connection(elsewhere[0], machine.address, service) as more:
                assert passes(more)
        # It goes on by itself, with the first command: nobody has to restart it.
        for line in ADD:
            machine.run(line)
        assert passes(ends)
    assert machine.show("hived", "MainPID", "NRestarts") == [pid, "0"]
    # Nothing is there by halves, nor lost.
    after = (sorted([*before[0], "blue"]), [*before[1], ("egress", 9002)])
    assert configured(machine) == after
    machine.run("systemctl restart hived")
    assert configured(machine) == after
    machine.run("systemctl stop hived hived.socket")
    assert machine.run(f"python3 -c {shlex.quote(CHECK)}").out == "ok\n"
