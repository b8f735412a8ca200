"""A whole machine: systemd as process 1, in a container, and a person at its keyboard."""

from __future__ import annotations

import contextlib
import os
import select
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.integration.nodes import Result
from tests.netns.keeper import ROOT
from tests.netns.namespace import Namespace
from tests.system.supervisor import NESTS, REBOOT

BOOT_SECONDS = 60.0
RUN_SECONDS = 60.0
# What a log-in at a machine's console sets.
_LOGIN = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    **{"HOME": "/root", "USER": "root", "LOGNAME": "root", "SHELL": "/bin/bash", "LANG": "C.UTF-8"},
}
_NAMESPACES = ("--mount", "--uts", "--ipc", "--net", "--pid", "--root", "--wd", "--no-fork")
# A command comes from outside, so its process is in no control group of the machine, and systemd would take
# no session of it. It goes into one first; the control group namespace would not let it do that later.
# The parent is this shell and not nsenter: systemd stops all processes for a moment when it shuts down, and
# nsenter would then stop itself, for good.
_ENTER = (
    "cd && mkdir -p /sys/fs/cgroup/keyboard && echo 0 >/sys/fs/cgroup/keyboard/cgroup.procs && "
    '{ nsenter --cgroup=/proc/1/ns/cgroup -- "$@"; exit $?; }'
)


class MachineError(Exception):
    """A machine does not do as it was told; the text has the end of its console."""


class Machine:
    """A machine on the network that ``namespace`` is in, with the file systems ``layers``, upper ones first.

    It is off at first. What is written to its disk stays over reboots and power cuts, until :meth:`close`.
    With ``nests`` containers can run on it.
    """

    def __init__(
        self,
        directory: Path,
        name: str,
        namespace: Namespace,
        layers: Sequence[Path],
        address: str = "",
        *,
        nests: bool = False,
    ) -> None:
        self.name, self.namespace, self.address = name, namespace, address
        self.directory = directory / name
        self.directory.mkdir()
        self.leader = 0
        self._said = b""
        self._supervisor = subprocess.Popen(
            [
                *(sys.executable, "-S", "-m", "tests.system.supervisor"),
                *((NESTS,) if nests else ()),
                *(str(self.directory), name, namespace.path, *map(str, layers)),
            ],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # Not in our process group, where what kills the group would find it.
            start_new_session=True,
        )

    @property
    def supervisor(self) -> int:
        """The process that powers it."""
        return self._supervisor.pid

    # Power

    def boot(self) -> None:
        """Switch it on; returns when systemd has started all that it was to start."""
        assert self._supervisor.stdin is not None
        self._supervisor.stdin.write(b"boot\n")
        self._supervisor.stdin.flush()
        self._booted()

    def _booted(self) -> None:
        self.leader = int(self._hear("leader", BOOT_SECONDS))
        self._hear("ready", BOOT_SECONDS)
        # "degraded" when a unit failed, which is for tests to look at.
        self.run("systemctl is-system-running --wait", check=False)

    def reboot(self) -> None:
        """As a person does it: the services are stopped first."""
        self.run("systemctl reboot", check=False)
        if not self.rebooted():
            raise MachineError(f"{self.name} did not reboot, but is off\n{self.console()}")

    def rebooted(self) -> bool:
        """Whether a machine that goes off, as somebody has told it to, boots again; returns when it has."""
        again = self._hear("off", BOOT_SECONDS) == str(REBOOT)
        self.leader = 0
        if again:
            self._booted()
        return again

    def poweroff(self) -> None:
        self.run("systemctl poweroff", check=False)
        self._hear("off", BOOT_SECONDS)
        self.leader = 0

    def power_cut(self) -> None:
        """All processes end at once, as by kill -9. :meth:`boot` is the power's return."""
        os.kill(self.leader, signal.SIGKILL)
        self._hear("off", BOOT_SECONDS)
        self.leader = 0

    def close(self) -> None:
        """Cut its power, and throw it away."""
        assert self._supervisor.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._supervisor.stdin.close()
        self._supervisor.wait()
        if self._supervisor.stdout is not None:
            self._supervisor.stdout.close()

    def _hear(self, word: str, seconds: float) -> str:
        """What the supervisor says after this word, which is the next that it says."""
        assert self._supervisor.stdout is not None
        file, deadline = self._supervisor.stdout.fileno(), time.monotonic() + seconds
        while b"\n" not in self._said:
            ready = select.select([file], [], [], max(0.0, deadline - time.monotonic()))[0]
            more = os.read(file, 4096) if ready else b""
            if not more:
                raise MachineError(f"{self.name} is not {word!r} within {seconds:g} s\n{self.console()}")
            self._said += more
        line, _, self._said = self._said.partition(b"\n")
        heard, _, rest = line.decode().partition(" ")
        if heard != word:
            raise MachineError(f"{self.name} is to be {word!r}, but: {line.decode()}\n{self.console()}")
        return rest

    def console(self) -> str:
        """The end of what was shown on its console."""
        with contextlib.suppress(FileNotFoundError):
            return (self.directory / "console").read_text(errors="replace")[-4000:]
        return ""

    # The keyboard

    @property
    def door(self) -> str:
        """The line that opens a shell on it at a terminal, until it goes off."""
        return f"nsenter -t {self.leader} -a -r -w bash --login"

    def typed(self, line: str, user: str = "root") -> list[str]:
        """The command, for this machine, that types a line at the machine's shell as a user who logs in."""
        words = ["bash", "-c", line] if user == "root" else ["su", "--login", user, "--command", line]
        into = ["nsenter", f"--target={self.leader}", *_NAMESPACES, "--"]
        login = ["env", "-i", *[f"{key}={value}" for key, value in _LOGIN.items()]]
        return [*into, *login, "sh", "-c", _ENTER, "sh", *words]

    def run(
        self,
        line: str,
        user: str = "root",
        *,
        stdin: str = "",
        check: bool = True,
        seconds: float = RUN_SECONDS,
    ) -> Result:
        """Type a line, and read what comes. With ``check`` its failure is the test's."""
        done = subprocess.run(
            self.typed(line, user),
            input=stdin,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
        )
        result = Result(done.returncode, done.stdout, done.stderr)
        if check:
            assert result.code == 0, f"{self.name}: {line}: {result.code}\n{result.out}{result.err}"
        return result

    def put(self, path: str, content: str | bytes, mode: int = 0o644) -> None:
        """Write a file, and the directories above it."""
        data = content.encode() if isinstance(content, str) else content
        line = 'set -e; mkdir -p "$(dirname "$0")"; cat >"$0"; chmod "$1" "$0"'
        command = [*self.typed(line), path, f"{mode:o}"]
        subprocess.run(command, input=data, check=True, capture_output=True, timeout=RUN_SECONDS)

    def get(self, path: str) -> str:
        return self.run(f"cat {path}").out

    def install(self, package: Path) -> Result:
        """Install a .deb as a person does who has copied it there."""
        self.put(f"/root/{package.name}", package.read_bytes())
        return self.run(f"apt-get install -y ./{package.name}", seconds=300)

    # What systemd says

    def journal(self, unit: str, options: str = "-o cat") -> str:
        """What a unit has said since the machine booted."""
        return self.run(f"journalctl --no-pager -q -b -u {unit} {options}").out

    def cursor(self) -> str:
        """Where the journal ends now, for :meth:`await_line`."""
        shown = self.run("journalctl -q -n 0 --show-cursor").out
        return shown.partition("-- cursor: ")[2].strip()

    def await_line(self, unit: str, text: str, seconds: float, after: str = "") -> str:
        """The first line of a unit's journal with ``text`` in it, of this boot or after a :meth:`cursor`.

        In the unit's place may be a match, FIELD=VALUE: USER_UNIT= for what a user's systemd says of one.
        """
        which = unit if "=" in unit else f"-u {unit}"
        where = f"--after-cursor='{after}'" if after else "-b"
        # journalctl ends by itself when somebody has read enough.
        line = f"journalctl -q -f -n all -o cat {which} {where} | grep -m 1 -F -- {shlex.quote(text)}"
        done = self.run(f"timeout {seconds:g} bash -c {shlex.quote(line)}", check=False, seconds=seconds + 30)
        assert done.out, f"{self.name}: no {text!r} within {seconds:g} s\n{self.journal(unit)[-4000:]}"
        return done.out.rstrip("\n")

    def show(self, unit: str, *properties: str) -> list[str]:
        """A unit's properties, in the order asked for."""
        shown = self.run(f"systemctl show {unit} -p {','.join(properties)}").out.splitlines()
        values = dict(line.split("=", 1) for line in shown)
        return [values[name] for name in properties]

    def host_pid(self, pid: int) -> int:
        """The number outside of a process that has the number ``pid`` in the machine."""
        space = os.readlink(f"/proc/{self.leader}/ns/pid")
        for entry in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/{entry}/ns/pid") == space:
                    status = Path(f"/proc/{entry}/status").read_text()
                    numbers = next(line for line in status.splitlines() if line.startswith("NSpid:")).split()
                    if int(numbers[-1]) == pid:
                        return int(entry)
        raise ProcessLookupError(f"{self.name}: no process {pid}")
