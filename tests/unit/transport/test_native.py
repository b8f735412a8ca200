"""The compiled form of the data plane: when it is taken, and that the same tests hold for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hived.transport.native import LIBRARY, MANIFEST, ROOT, SUFFIX, digests
from scripts.native import MODULES, refused

TREE = ROOT.parent


def plane_of(folder: Path | str) -> str:
    """The file that a fresh interpreter takes the data plane from."""
    code = "from hived.transport import plane; print(plane.__file__)"
    environment = os.environ | {"HIVE_NATIVE": str(folder), "PYTHONPATH": str(TREE)}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True
    ).stdout.strip()


def test_what_is_not_of_these_sources_or_not_whole_is_not_taken(tmp_path: Path) -> None:
    python = str(ROOT / "transport/plane.py")
    assert plane_of("off") == python
    assert plane_of(tmp_path / "missing") == python
    library = LIBRARY + SUFFIX
    (tmp_path / library).write_bytes(b"not a library")
    whole = {
        "suffix": SUFFIX,
        "sources": digests(ROOT, MODULES),
        "files": digests(tmp_path, [library]),
    }
    # All fits, and it cannot be loaded.
    (tmp_path / MANIFEST).write_text(json.dumps(whole))
    assert plane_of(tmp_path) == python
    for bad in (
        {"suffix": ".cpython-27m.so"},
        {"sources": whole["sources"] | {MODULES[0]: "00"}},  # type: ignore[operator]
        {"sources": whole["sources"] | {"transport/gone.py": "00"}},  # type: ignore[operator]
        {"files": {library: "00"}},
        {"files": None},
    ):
        (tmp_path / MANIFEST).write_text(json.dumps(whole | bad))
        assert plane_of(tmp_path) == python
    for text in ("", "[]", "{}", "null", "\0"):
        (tmp_path / MANIFEST).write_text(text)
        assert plane_of(tmp_path) == python


def test_what_the_compiler_gets_wrong_is_refused() -> None:
    assert refused("a[: f()]\na[f() :]\na[1:2:f()]\na[: 3 + x.g(2)]") != []
    assert refused("a[: len(b)]\na[f()]\na[b:c]\n") == []
    twice = "def f():\n try: pass\n except OSError as e: pass\n try: pass\n except {} as e: pass\n"
    assert refused(twice.format("ValueError")) != []
    assert refused(twice.format("OSError")) == []


@pytest.mark.full
@pytest.mark.timeout(900)
def test_the_tests_of_the_data_plane_hold_for_it_compiled(tmp_path: Path) -> None:
    folder = tmp_path / "native"
    subprocess.run([sys.executable, TREE / "scripts/native.py", folder], check=True, cwd=TREE)
    assert plane_of(folder) == str(folder / f"transport/plane{SUFFIX}")
    tests = ["tests/unit/transport", "tests/unit/proxy", "tests/fuzz", "tests/integration/test_tcp.py"]
    # Its tests make a class of their own from a compiled one, which cannot be.
    left_out = ["--ignore", "tests/unit/transport/test_socketend.py"]
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-x",
            "-p",
            "no:cacheprovider",
            "-m",
            "not full",
            *left_out,
            *tests,
        ],
        cwd=TREE,
        env=os.environ | {"HIVE_NATIVE": str(folder)},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-5000:]
    assert " passed" in done.stdout
