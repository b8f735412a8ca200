"""Hive's Debian package as the checkout makes it, and the file system of a machine that has it installed."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

from tests.netns.keeper import ROOT
from tests.system import cache

# What of the checkout ends up in no package.
_BESIDE = [":!tests", ":!bench", ":!docs", ":!.ci", ":!Makefile"]
# In a root of its own, which is not a running machine, as an image is made. $1 the base, $2 the package, $3
# where what the installation writes is to be.
_INSTALL = """
cd "$3"
mkdir upper work root
mount -t overlay overlay -o "lowerdir=$1,upperdir=upper,workdir=work" root
mount -t proc proc root/proc
cp "$2" root/root/
chroot root apt-get -qq install -y "/root/${2##*/}"
rm "root/root/${2##*/}"
umount root/proc root
rm -r work root
"""


class PackageError(Exception):
    """The package cannot be built or installed; the text has the last lines of the one who tried."""


def _run(command: list[str]) -> None:
    done = subprocess.run(command, cwd=ROOT, text=True, check=False, capture_output=True)
    if done.returncode:
        said = "\n".join((done.stdout + done.stderr).splitlines()[-30:])
        raise PackageError(f"{' '.join(command[:3])} failed:\n{said}")


def _inputs() -> str:
    """A hash of all that the package is made of."""
    git = ["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z", "--", ".", *_BESIDE]
    listed = subprocess.run(git, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    names = [name for name in listed.split("\0") if name and (ROOT / name).is_file()]
    return cache.key(*[part for name in names for part in (name, (ROOT / name).read_bytes())])


def build(version: str = "") -> Path:
    """The package, built when the checkout has changed; ``version`` instead of the checkout's own."""

    def make(to: Path) -> None:
        _run(["scripts/deb", *(["--version", version] if version else [])])
        built = max((ROOT / "dist").glob(f"hive_{version or '*'}_*.deb"), key=lambda deb: deb.stat().st_mtime)
        (to / built.name).write_bytes(built.read_bytes())

    made = cache.directory("debs", cache.key(version, _inputs()), make)
    return next(made.glob("*.deb"))


def installed(package: Path, base: Path) -> Path:
    """What installing the package adds to the base, as a layer to put on it."""

    def make(to: Path) -> None:
        _run(["unshare", "--mount", "sh", "-exc", _INSTALL, "sh", str(base), str(package), str(to)])

    content = hashlib.sha256(package.read_bytes()).hexdigest()
    return cache.directory("machine-hive", cache.key(str(base), content, _INSTALL), make) / "upper"
