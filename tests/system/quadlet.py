"""Podman's generator of systemd units from Quadlet files.

Debian 12's podman is older than that. The program alone, out of a newer Debian's package, runs here as well.
"""

from __future__ import annotations

import os
import platform
import re
import shlex
import subprocess
import tempfile
from pathlib import Path

from tests.system import cache, rootfs

_PROGRAM = "usr/libexec/podman/quadlet"


class QuadletError(Exception):
    """The generator did not take a file; the text is what it said."""


def generator() -> Path:
    """The program: this machine's own, or one that is fetched once and kept."""
    own = Path("/", _PROGRAM)
    if own.exists():
        return own
    inputs = cache.key(rootfs.PODMAN_RELEASE, platform.machine(), Path(__file__).read_bytes())
    return cache.directory("quadlet", inputs, _fetch) / _PROGRAM


def _fetch(to: Path) -> None:
    """Take it out of podman's package, which apt fetches without a change to this machine's lists."""
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        (scratch / "partial").mkdir()
        (scratch / "status").touch()
        (scratch / "sources.list").write_text("\n".join(rootfs.sources(rootfs.PODMAN_RELEASE)) + "\n")
        options = {
            "Dir::Etc::SourceList": scratch / "sources.list",
            "Dir::Etc::SourceParts": "-",
            "Dir::State": scratch,
            "Dir::State::Lists": scratch / "lists",
            "Dir::State::Status": scratch / "status",
            "Dir::Cache": scratch / "cache",
            # apt's own user may not look into this directory.
            "APT::Sandbox::User": "root",
        }
        apt = shlex.join(["apt-get", "-qq", *(f"--option={key}={value}" for key, value in options.items())])
        script = f"""
            {apt} update
            {apt} download podman
            dpkg-deb --fsys-tarfile podman_*.deb >podman.tar
            tar --extract --file=podman.tar --directory={shlex.quote(str(to))} ./{_PROGRAM}
        """
        done = subprocess.run(["sh", "-ec", script], cwd=scratch, capture_output=True, text=True, check=False)
        if done.returncode:
            raise QuadletError(f"podman of {rootfs.PODMAN_RELEASE} could not be fetched: {done.stderr}")


def unit(directory: Path, text: str, *, user: bool = True) -> str:
    """The service that a file named hived.container becomes; QuadletError for what podman does not know."""
    (directory / "hived.container").write_text(text)
    done = subprocess.run(
        [generator(), "-dryrun", *(["-user"] if user else [])],
        env={**os.environ, "QUADLET_UNIT_DIRS": str(directory)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode or "ExecStart=" not in done.stdout:
        raise QuadletError(done.stderr)
    return done.stdout


def exec_start(text: str) -> list[str]:
    """A unit's command."""
    found = re.search(r"^ExecStart=(.*)$", text, re.MULTILINE)
    assert found is not None
    return shlex.split(found[1])
