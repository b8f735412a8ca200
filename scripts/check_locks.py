"""Compare the locks with what they are made from, without a network. Run by ``make lint``.

Every requirement of pyproject.toml and requirements/*.in is pinned in its lock, with hashes; no lock names
an address or a path of somebody's machine; two locks never pin one package differently.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

LOCKS = ("build", "runtime", "dev", "fuzz", "bench", "interop-kubo", "interop-node")
_PIN = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==([^\s;\\]+)")
_NAME = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)(?:==(\S+))?$")
_PLACE = re.compile(r"://|--(?:extra-)?index-url|--find-links|--trusted-host|(?<![\w.])/\w+/|\bfile:/")


def canonical(name: str) -> str:
    """The name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def wanted(text: str) -> Iterator[tuple[str, str | None]]:
    """(name, exact version or None) of each line of a .in file; ValueError for a line of another form."""
    for line in text.splitlines():
        line = line.split("#", 1)[0].strip()
        if not line or line.startswith("-c "):
            continue
        match = _NAME.match(line)
        if match is None:
            raise ValueError(f"{line!r} is neither NAME nor NAME==VERSION")
        yield canonical(match[1]), match[2]


def pinned(text: str) -> dict[str, tuple[str, int]]:
    """name -> (version, number of hashes) of a lock."""
    pins: dict[str, tuple[str, int]] = {}
    name = ""
    for line in text.splitlines():
        if match := _PIN.match(line):
            name = canonical(match[1])
            pins[name] = (match[2], 0)
        elif line.strip().startswith("--hash=sha256:") and name:
            version, hashes = pins[name]
            pins[name] = (version, hashes + 1)
    return pins


def complaints(root: Path) -> Iterator[str]:
    """One line for each thing that is wrong under ``root``."""
    everywhere: dict[str, tuple[str, str]] = {}
    for lock in LOCKS:
        text = (root / "requirements" / f"{lock}.txt").read_text()
        pins = pinned(text)
        for number, line in enumerate(text.splitlines(), 1):
            if _PLACE.search(line):
                yield f"requirements/{lock}.txt:{number}: an address or a path of one machine: {line.strip()}"
        for name, (version, hashes) in pins.items():
            if not hashes:
                yield f"requirements/{lock}.txt: {name}=={version} has no hash"
            other, first = everywhere.setdefault(name, (lock, version))
            if first != version:
                yield f"requirements/{lock}.txt: {name}=={version}, but {other}.txt has {first}"
        for name, exact in wanted((root / "requirements" / f"{lock}.in").read_text()):
            if name not in pins:
                yield f"requirements/{lock}.in asks for {name}, and {lock}.txt has no pin for it"
            elif exact is not None and pins[name][0] != exact:
                yield f"requirements/{lock}.in asks for {name}=={exact}, and {lock}.txt has {pins[name][0]}"

    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    declared = set(wanted("\n".join(project["dependencies"])))
    listed = set(wanted((root / "requirements" / "runtime.in").read_text()))
    for name, exact in sorted(declared ^ listed, key=str):
        where = "pyproject.toml" if (name, exact) in declared else "requirements/runtime.in"
        yield f"{name}=={exact} is in {where} only"


def main() -> int:
    found = list(complaints(Path(__file__).resolve().parent.parent))
    for line in found:
        print(f"check_locks: {line}", file=sys.stderr)
    if found:
        print("check_locks: mend the .in files and type: make lock", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
