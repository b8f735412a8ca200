"""What Hive costs a machine: measured, told at the end of the run, and judged by whoever reads it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.system.hive import NETWORK, PASSWORD, join, shown, started
from tests.system.machine import Machine
from tests.system.rack import Rack

pytestmark = pytest.mark.requires("machines")
PEERS = 20
IDLE_SECONDS = 30.0
Record = Callable[[str, object], None]

# Waits until so many others are connected; $1 is their number.
CONNECTED = """
import json, sys
for line in sys.stdin:
    if sum(row["path"] == "direct" for row in json.loads(line)) == int(sys.argv[1]):
        break
else:
    sys.exit("they do not come")
"""


@pytest.fixture(scope="module")
def machine(rack: Rack, layers: Sequence[Path]) -> Machine:
    made = started(rack, "home", layers)
    join(made)
    return made


def outside(machine: Machine) -> int:
    """hived's process, by its number outside of the machine."""
    return machine.host_pid(int(machine.show("hived", "MainPID")[0]))


def megabytes(pid: int) -> dict[str, float]:
    """Rss and Pss of a process, as proc(5) has them."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    fields = dict(line.split(":", 1) for line in lines)
    return {name: int(fields[name].split()[0]) / 1024 for name in ("Rss", "Pss")}


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_the_package(deb: Path, machine: Machine, record_property: Record) -> None:
    installed = int(machine.run("du -sk /usr/lib/hive").out.split()[0]) / 1024
    record_property("figure", f"package: {deb.stat().st_size / 1e6:.1f} MB, {installed:.0f} MiB installed")


def test_start(machine: Machine, record_property: Record) -> None:
    times = []
    for _ in range(3):
        machine.run("systemctl restart hived")
        begun, ready = machine.show(
            "hived", "ExecMainStartTimestampMonotonic", "ActiveEnterTimestampMonotonic"
        )
        times.append((int(ready) - int(begun)) / 1e6)
    shown_times = ", ".join(f"{seconds:.2f}" for seconds in times)
    record_property("figure", f"systemctl start to READY: {shown_times} s")


def test_memory_and_hivectl(machine: Machine, record_property: Record) -> None:
    used = megabytes(outside(machine))
    record_property("figure", f"idle hived, no peers: {used['Rss']:.0f} MiB RSS, {used['Pss']:.0f} MiB PSS")
    timed = machine.run("TIMEFORMAT=%R; for i in 1 2 3; do time hivectl status >/dev/null; done").err.split()
    record_property("figure", f"hivectl status: {', '.join(timed)} s")


@pytest.mark.full
@pytest.mark.timeout(300)
def test_idle_among_peers(
    machine: Machine, rack: Rack, layers: Sequence[Path], record_property: Record
) -> None:
    others = rack.machine("others", *layers)
    others.boot()
    identity = machine.run("hivectl id --base64").out.strip()
    for number in range(PEERS):
        flags = f"--data-dir /srv/{number} --name peer{number} --network {NETWORK}:{PASSWORD}"
        listen = f"--listen /ip4/0.0.0.0/tcp/{5000 + number}"
        others.run(f"systemd-run -q --unit=peer{number} -p Type=notify hived run {flags} {listen}")
        others.run(f"hivectl --socket /srv/{number}/control.sock register {identity} --network {NETWORK}")
    watch = "<(exec timeout 120 hivectl nodes --watch --json 2>/dev/null)"
    machine.run(f"python3 -c '{CONNECTED}' {PEERS} < {watch}", seconds=150)
    assert shown(machine)["peers"] == PEERS
    pid = outside(machine)
    before, began = cpu_seconds(pid), time.monotonic()
    time.sleep(IDLE_SECONDS)
    share = (cpu_seconds(pid) - before) / (time.monotonic() - began)
    used = megabytes(pid)
    record_property(
        "figure", f"idle hived, {PEERS} peers: {100 * share:.1f} % of a CPU, {used['Rss']:.0f} MiB RSS"
    )
    others.power_cut()
