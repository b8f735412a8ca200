"""An ordinary user on a machine where only root runs the tests: what rootless podman is to be run as.

The account, its range of subordinate IDs and the devices that it may open exist in a mount namespace alone:
nothing of it is on the machine. A PID namespace belongs to it. When the process that holds the two ends,
however it ends, all that was started here ends with it.

Run as a program, this is that process: ``python -m tests.system.seat ACCOUNTS``.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.needs import program
from tests.netns.keeper import ROOT
from tests.netns.namespace import Namespace

NAME = "hive-test"
# Fixed, for what is cached belongs to them; above what machines give to people and services.
UID, SUBORDINATE, SUBORDINATE_COUNT = 60483, 700_000, 65_536
_ACCOUNTS = ("passwd", "group", "subuid", "subgid")
# Character devices that a desktop's user may open, and a server's often not: name, major, minor.
_DEVICES = (("fuse", 10, 229), ("net/tun", 10, 200))
_HYBRID = "/sys/fs/cgroup/unified"


class Seat:
    """The user's home, and a way to run commands there. ``directory``: is made, and removed in the end."""

    def __init__(self, directory: Path, namespace: Namespace) -> None:
        self.directory, self.namespace = directory, namespace
        self.home, self._runtime = directory / "home", directory / "run"
        self._accounts = directory / "accounts"
        directory.mkdir(mode=0o755)
        _write_accounts(self._accounts, self.home)
        for made in (self.home, self._runtime):
            self.give(made)
        self._holder = namespace.popen(
            [
                *(program("unshare") or "unshare", "--mount", "--propagation", "private"),
                *("--pid", "--fork", "--kill-child", "--mount-proc"),
                *(sys.executable, "-S", "-m", "tests.system.seat", str(self._accounts)),
            ],
            stdout=subprocess.PIPE,
            cwd=ROOT,
        )
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != "ready\n":
            self.close()
            raise AssertionError("the mount namespace of the ordinary user could not be made")

    def give(self, directory: Path) -> Path:
        """Make a directory of the user's own, 0700."""
        directory.mkdir(mode=0o700, exist_ok=True)
        os.chown(directory, UID, UID)
        return directory

    def command(
        self, command: Sequence[str], *, outside: bool = False, where: Path | None = None
    ) -> list[str]:
        """What runs a command as the user: with this network namespace, or ``outside`` with the machine's.

        ``where``: the directory to run it in, the home unless given.
        """
        namespaces = f"/proc/{self._holder.pid}/ns"
        settings = {
            "PATH": "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(self.home),
            "XDG_RUNTIME_DIR": str(self._runtime),
            "LANG": "C.UTF-8",
        }
        return [
            *([] if outside else self.namespace.inside),
            *("nsenter", f"--mount={namespaces}/mnt", f"--pid={namespaces}/pid_for_children"),
            *(
                f"--wd={where or self.home}",
                "--",
                "setpriv",
                f"--reuid={UID}",
                f"--regid={UID}",
                "--init-groups",
            ),
            # A child of nsenter, which a signal to nsenter does not reach otherwise.
            *(
                "--pdeathsig=KILL",
                "--inh-caps=-all",
                "env",
                "-i",
                *(f"{name}={value}" for name, value in settings.items()),
            ),
            *command,
        ]

    def close(self) -> None:
        """End all that runs here, and remove the directory."""
        pid = self._holder.pid
        # The first process of the PID namespace: its parent sees its end when all the others have ended.
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            os.kill(int(child), signal.SIGTERM)
        self._holder.wait()
        if self._holder.stdout is not None:
            self._holder.stdout.close()
        shutil.rmtree(self.directory)


@contextlib.contextmanager
def seat(directory: Path, namespace: Namespace) -> Iterator[Seat]:
    made = Seat(directory, namespace)
    try:
        yield made
    finally:
        made.close()


def _write_accounts(directory: Path, home: Path) -> None:
    """The machine's accounts with one more."""
    directory.mkdir()
    more = {
        "passwd": f"{NAME}:x:{UID}:{UID}::{home}:/bin/sh\n",
        "group": f"{NAME}:x:{UID}:\n",
        "subuid": f"{NAME}:{SUBORDINATE}:{SUBORDINATE_COUNT}\n",
        "subgid": f"{NAME}:{SUBORDINATE}:{SUBORDINATE_COUNT}\n",
    }
    for name in _ACCOUNTS:
        machine = Path("/etc", name)
        (directory / name).write_text((machine.read_text() if machine.exists() else "") + more[name])


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


def main() -> None:
    """Set up the mount namespace that this process is alone in, and stay until SIGTERM."""
    accounts = Path(sys.argv[1])
    for name in _ACCOUNTS:
        _mount("--bind", str(accounts / name), f"/etc/{name}")
    devices = accounts / "devices"
    devices.mkdir()
    # A temporary directory's file system often allows no devices (nodev).
    _mount("-t", "tmpfs", "-o", "mode=755", "devices", str(devices))
    for name, major, minor in _DEVICES:
        node = devices / Path(name).name
        os.mknod(node, stat.S_IFCHR, os.makedev(major, minor))
        node.chmod(0o666)
        _mount("--bind", str(node), f"/dev/{name}")
    if os.path.ismount(_HYBRID):
        # crun works with cgroups of version 1 or 2, not with both at once. This namespace loses sight of one.
        subprocess.run(["umount", _HYBRID], check=True)
    # What podman mounts in a namespace of its own may show in those of its containers.
    _mount("--make-rshared", "/")
    # The kernel takes away what ends here as an orphan.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    print("ready", flush=True)
    signal.sigwait({signal.SIGTERM})


if __name__ == "__main__":
    main()
