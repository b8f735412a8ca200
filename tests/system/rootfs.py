"""The file systems that machines begin with: a small Debian with systemd, and what Hive's package needs.

One is of a newer Debian, for its podman. Made by mmdebstrap from the mirrors that this machine's apt has,
each in about 20 s, and kept (see cache.py).
"""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from tests.needs import program
from tests.system import cache

PACKAGES = [
    # a system that boots, and lets people log in
    *("systemd", "systemd-sysv", "dbus", "dbus-user-session", "libpam-systemd", "libnss-myhostname"),
    # what Hive's package depends on: machines have no way to a mirror
    *("adduser", "libgmp10", "python3"),
    # what people and tests type
    *("ca-certificates", "curl", "iproute2", "libfaketime", "procps"),
]
# The first release whose podman makes services of Quadlet files, and what that needs, as root and without.
PODMAN_RELEASE = "trixie"
PODMAN = ["crun", "fuse-overlayfs", "netavark", "nftables", "passt", "podman", "uidmap"]
# What makes no sense in a container, or wants the internet, or wakes up when a test measures.
MASKED = [
    *("console-getty.service", "getty.target", "systemd-networkd-wait-online.service"),
    *("apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer"),
    *("e2scrub_all.timer", "fstrim.timer"),
]
_SOURCE = "deb $(REPO_URI) $(RELEASE) $(COMPONENT)"


class RootfsError(Exception):
    """The file system cannot be made; the text says why and what to do."""


def sources(release: str) -> list[str]:
    """The lines of sources.list(5) for Debian: as this machine's apt has them, or for another release."""
    listed = subprocess.run(
        ["apt-get", "indextargets", "--format", f"$(ORIGIN)|{_SOURCE}", "Created-By: Packages"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    lines = [line.removeprefix("Debian|") for line in listed.splitlines() if line.startswith("Debian|deb ")]
    if not any(f" {codename()} main" in line for line in lines):
        raise RootfsError(f"apt has no Debian mirror for {codename()} here: type apt-get update")
    if release == codename():
        return lines
    return [f"deb {lines[0].split()[1]} {release} main"]


def _proxies() -> list[str]:
    """This machine's apt options that say how a mirror is reached."""
    dumped = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=True).stdout
    return [
        line
        for line in dumped.splitlines()
        if line.startswith(("Acquire::http", "Acquire::https")) and not line.endswith('"";')
    ]


def bootstrap(release: str, to: Path, packages: Iterable[str], *options: str) -> None:
    """Make a small Debian with these packages: a directory, or a file for a name that ends in ``.tar``.

    ``options`` are more of mmdebstrap's. RootfsError when it cannot.
    """
    command = [
        program("mmdebstrap") or "mmdebstrap",
        "--quiet",
        "--mode=root",
        "--variant=minbase",
        f"--include={','.join(packages)}",
        *[f"--aptopt={line}" for line in _proxies()],
        *options,
        release,
        str(to),
        "-",
    ]
    done = subprocess.run(
        command, input="\n".join(sources(release)), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RootfsError(f"mmdebstrap made no file system: {done.stderr[-2000:]}")


def codename() -> str:
    """The release of Debian that this machine has, and that all of these are made of."""
    return platform.freedesktop_os_release()["VERSION_CODENAME"]


def _make(to: Path, release: str, packages: Iterable[str]) -> None:
    bootstrap(release, to, packages)
    for unit in MASKED:
        (to / "etc/systemd/system" / unit).symlink_to("/dev/null")
    # Each machine is given its own at its first boot.
    (to / "etc/machine-id").write_text("")
    # As images of containers have it: a machine whose installation is interrupted is thrown away.
    (to / "etc/dpkg/dpkg.cfg.d/hive-machine").write_text("force-unsafe-io\n")
    # mmdebstrap's are copies of this machine's.
    for name in ("hostname", "resolv.conf"):
        (to / "etc" / name).unlink(missing_ok=True)


def _kept(kind: str, release: str, packages: Sequence[str]) -> Path:
    inputs = cache.key(release, platform.machine(), *packages, *MASKED, Path(__file__).read_bytes())
    return cache.directory(kind, inputs, lambda to: _make(to, release, packages))


def base() -> Path:
    """The directory with the file system, for reading only."""
    return _kept("machine-rootfs", codename(), PACKAGES)


def with_podman() -> Path:
    """One of a Debian that has Quadlet."""
    return _kept("machine-podman", PODMAN_RELEASE, [*PACKAGES, *PODMAN])
