"""The image of hived, built without root from this checkout's Containerfile.

What takes long - Debian's packages, the wheels - is built once for each state of what it depends on, and kept
(see cache.py) as a store of images that others read. Each test run builds upon that: as long as hived changes
and not what it needs, two steps of the Containerfile.
"""

from __future__ import annotations

import os
import platform
import shutil
import ssl
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.netns.keeper import ROOT
from tests.netns.namespace import Namespace
from tests.system import cache, rootfs
from tests.system.podman import Podman
from tests.system.seat import Seat, seat

NAME = "localhost/hive"
BASE = "localhost/debian:bookworm-slim"
CONTAINERFILE = "packaging/container/Containerfile"
BUILD_SECONDS = 540.0
# What the steps before hived's own sources depend on.
_SLOW = (
    CONTAINERFILE,
    "requirements/build.txt",
    "requirements/runtime.txt",
    "scripts/setup",
    "scripts/wheelhouse",
)
# As the base that the Containerfile names has it.
_SLIM = ("doc", "info", "locale", "man")
_AUTHORITIES, _PIP_CONF = "/run/authorities.crt", "/etc/pip.conf"


class BuildError(Exception):
    """The image cannot be built; the text is the end of what podman said."""


def base() -> Path:
    """The directory with ``base.tar``, in the place of what the Containerfile takes from a registry."""
    options = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in _SLIM]
    inputs = cache.key(rootfs.codename(), platform.machine(), *options)

    def make(to: Path) -> None:
        rootfs.bootstrap(rootfs.codename(), to / "base.tar", ["ca-certificates"], *options)

    return cache.directory("container-base", inputs, make)


def store(directory: Path, namespace: Namespace) -> Path:
    """The images of what takes long, to be read by a Podman. ``directory`` is for the time of a build."""
    slow = [(ROOT / name).read_bytes() for name in _SLOW]
    inputs = cache.key(base().name, *slow, Path(__file__).read_bytes())

    def make(to: Path) -> None:
        with seat(directory, namespace) as builder:
            podman = Podman(builder, storage=builder.give(to / "storage"))
            tar = builder.home / "base.tar"
            shutil.copy(base() / tar.name, tar)
            podman.run("import", str(tar), BASE)
            build(podman)

    return cache.directory("container-images", inputs, make) / "storage"


def build(podman: Podman, name: str = NAME) -> str:
    """Build the image as docs/containers.md says; what podman printed."""
    place = podman.seat
    checkout = _checkout(place, place.home / "checkout")
    done = subprocess.run(
        podman.command(
            *("build", "--format", "docker", "--file", CONTAINERFILE, "--tag", name),
            # The base is there already, and the network is the machine's, as is the way to what is fetched.
            *("--build-arg", f"BASE={BASE}", "--pull=never", "--network=host", *_reach(place)),
            ".",
            outside=True,
            where=checkout,
        ),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        timeout=BUILD_SECONDS,
        check=False,
    )
    if done.returncode:
        raise BuildError(done.stdout[-4000:])
    return done.stdout


def save(to: Path, namespace: Namespace) -> None:
    """Build the image, and write it to a file for `podman load`."""
    # pytest's own directories are for nobody but root.
    with tempfile.TemporaryDirectory(prefix="hive-podman-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        images = store(directory / "builder", namespace)
        with seat(directory / "seat", namespace) as place:
            podman = Podman(place, images=images)
            build(podman)
            saved = place.home / "saved.tar"
            podman.run("save", "--output", str(saved), NAME)
            shutil.copy(saved, to)


def _checkout(place: Seat, to: Path) -> Path:
    """A copy of what is not git's to ignore, which the ordinary user can read wherever this checkout is."""
    place.give(to)
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in listed.split("\0"):
        source, copy = ROOT / name, to / name
        if name and source.is_file():
            for parent in reversed(copy.relative_to(to).parents[:-1]):
                place.give(to / parent)
            shutil.copy(source, copy)
            # A step is taken from what was built before only where the files' times are the same too.
            os.utime(copy, (0, 0))
    return to


def _reach(place: Seat) -> list[str]:
    """Podman's options for a machine with certificate authorities or an index of its own.

    They are mounted while a step runs: only the empty files that they are mounted over get into the image.
    """
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    ).stdout
    kept = [f"cert = {_AUTHORITIES}"]
    for line in listed.splitlines():
        key, _, value = line.partition("=")
        if key.rpartition(".")[2] in {"index-url", "proxy", "timeout", "trusted-host"}:
            kept.append(f"{key.rpartition('.')[2]} = {value.strip(chr(39))}")
    conf = place.directory / "pip.conf"
    conf.write_text("\n".join(["[global]", *kept, ""]))
    authorities = ssl.get_default_verify_paths().cafile or "/etc/ssl/certs/ca-certificates.crt"
    return [f"--volume={authorities}:{_AUTHORITIES}:ro", f"--volume={conf}:{_PIP_CONF}:ro"]
