"""The process that powers one machine: systemd-nspawn in a mount namespace of its own, again after a reboot.

It is told ``boot`` on its standard input, and says on its standard output, a word or two a line:

    leader PID     systemd runs, as the process PID of this machine (each boot has its own)
    ready          systemd has started all that it was to start
    off STATUS     the machine is off; STATUS is systemd-nspawn's (133: a reboot, and it boots again)
    failed REASON  it cannot be booted at all

With the end of its standard input - which comes also when its parent is killed with -9 - the machine loses
its power, and its directory and control group go. Its mounts are in its namespace, and end with that.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

REBOOT = 133
CGROUPS = Path("/sys/fs/cgroup")
_PREFIX = "hive-machine-"
CLONE_NEWNS, MS_REC, MS_PRIVATE, PR_SET_PDEATHSIG = 0x20000, 0x4000, 1 << 18, 1
_libc = ctypes.CDLL(None, use_errno=True)
_END_SECONDS = 10.0
# For networks of containers, and what crun asks of the kernel.
NESTS = "--nests"
_NESTING = ("--capability=CAP_NET_ADMIN", "--system-call-filter=bpf @keyring")


def _checked(result: int, what: str) -> None:
    if result:
        raise OSError(ctypes.get_errno(), what)


def _mount(kind: str, where: Path, options: str = "") -> None:
    _checked(
        _libc.mount(kind.encode(), bytes(where), kind.encode(), 0, options.encode()),
        f"mount {kind} at {where}",
    )


def isolate() -> None:
    """Have mounts of our own, and the one hierarchy of control groups that a modern systemd wants."""
    _checked(_libc.unshare(CLONE_NEWNS), "unshare")
    _checked(_libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None), "make / private")
    if not (CGROUPS / "cgroup.procs").exists():
        subprocess.run(["umount", "--recursive", CGROUPS], check=True)
        _mount("cgroup2", CGROUPS)


def _remove(cgroup: Path) -> None:
    """Remove a control group and those in it; one with processes stays."""
    for group, _, _ in os.walk(cgroup, topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(group)


def _sweep() -> None:
    """Remove the groups of supervisors that were killed."""
    for cgroup in CGROUPS.glob(f"{_PREFIX}*"):
        if not Path("/proc", cgroup.name.removeprefix(_PREFIX)).exists():
            _remove(cgroup)


class Supervisor:
    """One machine. ``directory`` is for what it writes, ``network`` its network namespace's file.

    ``nests``: on it, as on a machine without a container around it, containers can run.
    """

    def __init__(self, directory: Path, name: str, network: str, layers: list[str], nests: bool) -> None:
        self._directory, self._name, self._network, self._nests = directory, name, network, nests
        self._root = directory / "root"
        self._cgroup = CGROUPS / f"{_PREFIX}{os.getpid()}"
        self._nspawn: subprocess.Popen[bytes] | None = None
        self._leader: int | None = None
        self._ready = False
        self._selector = selectors.DefaultSelector()
        isolate()
        _sweep()
        for part in ("root", "upper", "work"):
            (directory / part).mkdir()
        # xino=off: without a warning where the layers are on file systems of different kinds.
        options = f"lowerdir={':'.join(layers)},upperdir={directory}/upper,workdir={directory}/work,xino=off"
        _mount("overlay", self._root, options)
        self._root.chmod(0o755)
        self._cgroup.mkdir()
        (self._cgroup / "cgroup.procs").write_text("0")
        self._notices = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        # An abstract name: a path in a test's directory may be longer than such names can be.
        self._notices.bind(f"\0{self._cgroup.name}")
        self._selector.register(self._notices, selectors.EVENT_READ, self._noticed)
        self._selector.register(sys.stdin, selectors.EVENT_READ, self._told)

    def run(self) -> None:
        """Power the machine as told, until nobody tells any more."""
        while True:
            for key, _ in self._selector.select():
                if key.data() is False:
                    return

    def _say(self, *words: object) -> None:
        with contextlib.suppress(BrokenPipeError):
            print(*words, flush=True)

    def _told(self) -> bool:
        # Unbuffered: select() knows nothing of lines that Python has read ahead.
        word = os.read(0, 64).strip()
        if word == b"boot":
            self._boot()
        return bool(word)

    def _boot(self) -> None:
        self._ready = False
        command = [
            *("systemd-nspawn", "--quiet", "--settings=no", "--boot", f"--directory={self._root}"),
            *(f"--machine={self._name}", f"--hostname={self._name}"),
            f"--network-namespace-path={self._network}",
            # There may be no systemd outside that would know of it.
            *("--register=no", "--keep-unit", "--notify-ready=yes"),
            *("--timezone=off", "--resolv-conf=off", "--link-journal=no", "--console=pipe"),
            *(_NESTING if self._nests else ()),
        ]
        environment = {
            **os.environ,
            "NOTIFY_SOCKET": f"@{self._cgroup.name}",
            "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1",
            **({"SYSTEMD_NSPAWN_API_VFS_WRITABLE": "network"} if self._nests else {}),
        }
        with (self._directory / "console").open("ab") as console:
            self._nspawn = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                env=environment,
                start_new_session=True,
                # The machine dies with systemd-nspawn, and that with us, however we end.
                preexec_fn=lambda: _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL),
            )
        self._selector.register(os.pidfd_open(self._nspawn.pid), selectors.EVENT_READ, self._ended)

    def _noticed(self) -> None:
        for line in self._notices.recv(4096).decode().splitlines():
            name, _, value = line.partition("=")
            if name == "X_NSPAWN_LEADER_PID":
                self._leader = int(value)
                self._say("leader", value)
            elif line == "READY=1" and not self._ready:
                # systemd says so again when it has executed itself anew, and at times later.
                self._ready = True
                self._say("ready")

    def _ended(self) -> None:
        assert self._nspawn is not None
        status = self._nspawn.wait()
        for key in list(self._selector.get_map().values()):
            if key.data == self._ended:
                self._selector.unregister(key.fd)
                os.close(key.fd)
        self._nspawn = self._leader = None
        self._say("off", status)
        if status == REBOOT:
            self._boot()

    def close(self) -> None:
        """Cut the power, and remove what was the machine's."""
        if self._nspawn is not None:
            if self._leader is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self._leader, signal.SIGKILL)
            else:
                self._nspawn.kill()
            self._nspawn.wait()
        (CGROUPS / "cgroup.procs").write_text("0")
        self._remove_cgroup()
        subprocess.run(["umount", "--lazy", self._root], check=False)
        shutil.rmtree(self._directory, ignore_errors=True)

    def _remove_cgroup(self) -> None:
        """Its groups can go when the kernel has seen the last process off, which tells nobody."""
        deadline = time.monotonic() + _END_SECONDS
        while self._cgroup.exists() and time.monotonic() < deadline:
            _remove(self._cgroup)
            if self._cgroup.exists():
                time.sleep(0.01)


def main() -> None:
    nests = NESTS in sys.argv
    directory, name, network, *layers = [word for word in sys.argv[1:] if word != NESTS]
    # Ctrl-C at a terminal is for the tests, which end us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        supervisor = Supervisor(Path(directory), name, network, layers, nests)
    except (OSError, subprocess.CalledProcessError) as error:
        print("failed", error, flush=True)
        return
    try:
        supervisor.run()
    finally:
        supervisor.close()


if __name__ == "__main__":
    main()
