"""What a test may need of the machine, and how to see whether it is there.

``@pytest.mark.requires("postgres", "root")`` on a test, a class or as a module's ``pytestmark`` names needs
of this table; :func:`missing` is for a fixture that finds out while it runs. Where one is absent, the test is
left out and the end of the run says why; with CI=true it fails.
"""

from __future__ import annotations

import functools
import os
import pwd
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

# Where scripts/interop installs peers of other implementations.
INTEROP = Path(__file__).parents[1] / "build" / "interop"
_SBIN = "/usr/local/sbin:/usr/sbin:/sbin"


def program(name: str) -> str | None:
    """The path of a program, looked for in the sbin directories too, which a user's PATH may lack."""
    return shutil.which(name) or shutil.which(name, path=_SBIN)


def postgres_bin() -> Path | None:
    """The directory of the newest PostgreSQL server's programs: Debian keeps them out of PATH."""
    versions = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    if versions:
        return max(versions, key=lambda path: [int(n) for n in path.parent.name.split(".") if n.isdigit()])
    found = shutil.which("initdb")
    return Path(found).parent if found else None


def _program(name: str, package: str) -> str | None:
    return None if program(name) else f"no {name} on this machine (Debian package {package})"


def faketime() -> Path | None:
    """The library that gives a process another wall clock, for LD_PRELOAD."""
    return next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))), None)


def _faketime() -> str | None:
    return None if faketime() else "no libfaketime on this machine (Debian package libfaketime)"


def _postgres() -> str | None:
    return None if postgres_bin() else "no PostgreSQL server on this machine (Debian package postgresql)"


def _bash_completion() -> str | None:
    found = Path("/usr/share/bash-completion/bash_completion").exists()
    return None if found else "no bash-completion on this machine (Debian package bash-completion)"


def _debhelper() -> str | None:
    """What scripts/deb builds with, for the system's own Python."""
    if reason := _program("dpkg-buildpackage", "dpkg-dev") or _program("dh", "debhelper"):
        return reason
    ready = "import ensurepip, os, sysconfig; os.stat(sysconfig.get_config_h_filename())"
    try:
        subprocess.run(["/usr/bin/python3", "-Ic", ready], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "no /usr/bin/python3 that can build (Debian packages python3-dev, python3-venv)"
    return None


def _installed(directory: str, what: str) -> str | None:
    found = (INTEROP / directory / ".locked").exists()
    return None if found else f"no {what} in build/interop (scripts/interop puts it there)"


def _root() -> str | None:
    return None if os.geteuid() == 0 else "not run as root"


def _login_shell() -> str | None:
    shell = pwd.getpwuid(os.geteuid()).pw_shell
    listed = [line.strip() for line in Path("/etc/shells").read_text().splitlines()]
    return None if shell in listed else f"this user has no login shell ({shell})"


def _tried(command: list[str], what: str) -> str | None:
    """Whether a command works in a network namespace of its own."""
    tried = subprocess.run(["unshare", "--net", *command], capture_output=True, text=True, check=False)
    return None if tried.returncode == 0 else f"no {what} here ({tried.stderr.strip()})"


def _netns() -> str | None:
    """Making a network namespace is tried: root in a container is often not allowed to."""
    if reason := _root() or _program("ip", "iproute2") or _program("unshare", "util-linux"):
        return reason
    return _tried(["ip", "link", "set", "lo", "up"], "network namespaces")


def _tun() -> str | None:
    return _netns() or _tried(["ip", "tuntap", "add", "dev", "t0", "mode", "tun"], "TUN devices")


def _natlab() -> str | None:
    reason = _tun() or _program("nft", "nftables") or _program("conntrack", "conntrack")
    rules = "table ip t { chain c { type nat hook postrouting priority srcnat; masquerade fully-random; }; }"
    return reason or _tried([program("nft") or "nft", rules], "NAT by nftables")


# A hierarchy of control groups and a file system of layers, as tests/system/supervisor.py mounts them.
_MACHINE = """
[ -e /sys/fs/cgroup/cgroup.procs ] || { umount -R /sys/fs/cgroup; mount -t cgroup2 cgroup2 /sys/fs/cgroup; }
mkdir /sys/fs/cgroup/hive-probe-$$
rmdir /sys/fs/cgroup/hive-probe-$$
cd "$(mktemp -d)"
trap 'cd /; umount "$OLDPWD/on"; rm -r "$OLDPWD"' EXIT
mkdir under upper work on
mount -t overlay overlay -o lowerdir=under,upperdir=upper,workdir=work on
"""


def _machines() -> str | None:
    reason = (
        _natlab()
        or _program("systemd-nspawn", "systemd-container")
        or _program("mmdebstrap", "mmdebstrap")
        or _program("apt-get", "apt")
    )
    return reason or _tried(["unshare", "--mount", "sh", "-ec", _MACHINE], "whole machines in containers")


def _podman() -> str | None:
    reason = (
        _natlab()
        or _program("podman", "podman")
        or _program("crun", "crun")
        or _program("slirp4netns", "slirp4netns")
        or _program("newuidmap", "uidmap")
        or _program("mmdebstrap", "mmdebstrap")
        or _program("git", "git")
    )
    return reason or _user_namespaces()


def _user_namespaces() -> str | None:
    command = ["unshare", "--user", "--map-root-user", "true"]
    tried = subprocess.run(command, capture_output=True, text=True, check=False)
    return None if tried.returncode == 0 else f"no user namespaces here ({tried.stderr.strip()})"


_PROBES: dict[str, Callable[[], str | None]] = {
    "bash-completion": _bash_completion,
    "curl": lambda: _program("curl", "curl"),
    "debhelper": _debhelper,
    "faketime": _faketime,
    "groff": lambda: _program("groff", "groff-base"),
    "js-libp2p": lambda: _installed("js", "js-libp2p"),
    "kubo": lambda: _installed("kubo", "Kubo"),
    "login shell": _login_shell,
    "lintian": lambda: _program("lintian", "lintian"),
    "machines": _machines,
    "mandoc": lambda: _program("mandoc", "mandoc"),
    "natlab": _natlab,
    "netns": _netns,
    "podman": _podman,
    "postgres": _postgres,
    "ps": lambda: _program("ps", "procps"),
    "root": _root,
    "ssh": lambda: _program("ssh", "openssh-client"),
    "sshd": lambda: _program("sshd", "openssh-server"),
    "strace": lambda: _program("strace", "strace"),
    "tun": _tun,
    "user namespaces": _user_namespaces,
}


@functools.cache
def missing(name: str) -> str | None:
    """Why the need ``name`` is not met here; None when it is. KeyError for a name that the table lacks."""
    return _PROBES[name]()
