"""The machines themselves, without Hive: what the other tests take for granted of them."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.netns.doomed import doomed, ending, said, tell
from tests.system.machine import Machine, MachineError
from tests.system.rack import Rack
from tests.system.supervisor import CGROUPS
from tests.system.web import serve

pytestmark = pytest.mark.requires("machines")
END_SECONDS = 15.0
UNIT = """
[Service]
ExecStart=sh -c 'echo "<3>wrong"; echo "<6>well"; exec sleep infinity'
[Install]
WantedBy=multi-user.target
"""


@pytest.fixture(scope="module")
def machine(rack: Rack, base: Path) -> Machine:
    made = rack.machine("alone", base)
    made.boot()
    return made


def test_systemd_runs_and_is_content(machine: Machine) -> None:
    assert machine.run("systemctl is-system-running").out == "running\n"
    assert machine.run("ps -o comm= 1").out == "systemd\n"
    assert machine.run("hostname").out == "alone\n"


def test_commands_keep_their_exit_codes_and_output(machine: Machine) -> None:
    done = machine.run("cat; echo said; echo wrong >&2; exit 3", stdin="typed\n", check=False)
    assert (done.code, done.out, done.err) == (3, "typed\nsaid\n", "wrong\n")
    with pytest.raises(AssertionError, match=r"alone: false: 1"):
        machine.run("false")


def test_users_log_in(machine: Machine) -> None:
    machine.run("useradd --create-home --shell /bin/bash ann")
    assert machine.run("id -un; pwd; exit 4", "ann", check=False).out == "ann\n/home/ann\n"
    assert machine.run("exit 4", "ann", check=False).code == 4
    assert machine.run("systemctl --user is-system-running --wait", "ann").out == "running\n"
    # Nothing of the machine outside is in anybody's environment.
    marked = [name for name in os.environ if name.startswith(("PYTEST", "VIRTUAL_ENV"))]
    assert marked
    for user in ("root", "ann"):
        assert not set(marked) & {line.split("=")[0] for line in machine.run("env", user).out.splitlines()}


def test_what_is_on_the_disk_stays_and_what_ran_does_not(machine: Machine) -> None:
    machine.put("/etc/systemd/system/talker.service", UNIT)
    machine.run("systemctl daemon-reexec && systemctl enable --now talker")
    machine.put("/srv/deep/file", "kept", 0o640)
    machine.run("systemd-run --unit=passing sleep infinity")
    boots = {machine.get("/proc/sys/kernel/random/boot_id")}
    for again in (machine.reboot, machine.power_cut):
        again()
        if not machine.leader:
            machine.boot()
        assert machine.get("/srv/deep/file") == "kept"
        assert machine.run("stat -c %a /srv/deep/file").out == "640\n"
        assert machine.run("systemctl is-active talker passing", check=False).out == "active\ninactive\n"
        # The journal's lines are those of this boot alone, and have priorities.
        assert machine.journal("talker", "-o cat -p err") == "wrong\n"
        assert machine.journal("talker").count("well") == 1
        boots.add(machine.get("/proc/sys/kernel/random/boot_id"))
    assert len(boots) == 3


def test_what_runs_ends_with_the_machine(machine: Machine) -> None:
    """And does not keep it from going off."""
    ended = machine.run("systemctl reboot & sleep 1000", check=False)
    assert ended.code > 128
    assert machine.rebooted()
    assert machine.run("systemctl is-system-running").out == "running\n"


def test_a_process_is_found_from_outside(machine: Machine) -> None:
    outside = machine.host_pid(1)
    assert outside == machine.leader
    with pytest.raises(ProcessLookupError, match="alone: no process 99999"):
        machine.host_pid(99999)


def test_the_machine_outside_is_untouched(machine: Machine) -> None:
    """Neither its mounts nor its network nor its host name are the machine's."""
    machine.run("mount -t tmpfs none /mnt; ip link add name inside type bridge; hostname other")
    assert str(machine.directory) not in Path("/proc/self/mountinfo").read_text()
    assert not Path("/sys/class/net/inside").exists()
    assert os.uname().nodename != "other"
    machine.run("umount /mnt; ip link delete inside; hostname alone")


def test_machines_reach_each_other_and_nothing_else(rack: Rack, machine: Machine, base: Path) -> None:
    other = rack.machine("other", base)
    other.boot()
    serve(other, 80, "served", "0.0.0.0")
    fetch = f"curl -sS http://{other.address}/"
    assert machine.run(fetch).out == "served"
    assert machine.run("ip -json route show default").out == "[]\n"
    other.poweroff()
    assert machine.run(f"{fetch} --connect-timeout 1", check=False).code != 0
    other.boot()
    assert machine.run(fetch).out == "served"


def test_what_cannot_boot_says_why(rack: Rack, tmp_path: Path) -> None:
    empty = rack.machine("empty", tmp_path)
    with pytest.raises(MachineError, match=r"(?s)empty is to be 'leader', but: off 1.*os-release"):
        empty.boot()
    nothing = rack.machine("nothing", tmp_path / "absent")
    with pytest.raises(MachineError, match=r"but: failed .*mount overlay"):
        nothing.boot()


DOOMED = """
import signal, sys
from pathlib import Path
from tests.system.rack import Rack

with Rack(Path(sys.argv[1])) as rack:
    made = rack.machine("doomed", Path(sys.argv[2]))
    made.boot()
    made.run("systemd-run -p Type=exec -p PrivateNetwork=yes sleep infinity")
    print(made.leader, made.supervisor, made.host_pid(int(made.run("pgrep -x sleep").out)), flush=True)
    if sys.stdin.readline() != "end\\n":
        signal.pause()
"""


@pytest.mark.parametrize("how", ["end", "interrupt", "kill", "kill the supervisor"])
def test_nothing_is_left(tmp_path: Path, base: Path, how: str) -> None:
    with doomed(DOOMED, str(tmp_path), str(base)) as process:
        leader, supervisor, sleeper = [int(word) for word in said(process).split()]
        groups = Path(f"/proc/{supervisor}/root") / CGROUPS.relative_to("/") / f"hive-machine-{supervisor}"
        assert groups.is_dir()
        with ending([leader, supervisor, sleeper]):
            if how == "end":
                tell(process, "end")
            elif how == "interrupt":
                os.killpg(process.pid, signal.SIGINT)
            elif how == "kill":
                os.killpg(process.pid, signal.SIGKILL)
            else:
                os.kill(supervisor, signal.SIGKILL)
                tell(process, "end")
    if how != "kill the supervisor":
        assert list(tmp_path.iterdir()) == []
