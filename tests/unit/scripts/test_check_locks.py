"""scripts/check_locks.py: the repository's own locks hold, and each kind of fault is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.check_locks import LOCKS, complaints, pinned, wanted

ROOT = Path(__file__).parents[3]
HASH = "    --hash=sha256:" + "0" * 64
PROJECT = '[project]\nname = "x"\ndependencies = ["Some_Lib==1.0"]\n'


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A sound tree with one dependency."""
    folder = tmp_path / "requirements"
    folder.mkdir()
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    names = {"runtime": "some-lib==1.0", "dev": "pytest"}
    for lock in LOCKS:
        name = names.get(lock, "wheel")
        (folder / f"{lock}.in").write_text(f"# why\n-c build.txt\n{name}  # because\n")
        pin = name if "==" in name else f"{name}==2.0"
        (folder / f"{lock}.txt").write_text(f"{pin} \\\n{HASH}\n    # via -r requirements/{lock}.in\n")
    return tmp_path


def test_the_repository() -> None:
    assert list(complaints(ROOT)) == []


def test_a_sound_tree(tree: Path) -> None:
    assert list(complaints(tree)) == []


@pytest.mark.parametrize(
    ("file", "text", "expected"),
    [
        ("runtime.txt", f"some-lib==1.1 \\\n{HASH}\n", "runtime.txt has 1.1"),
        ("runtime.txt", "some-lib==1.0\n", "has no hash"),
        ("dev.txt", f"other==1 \\\n{HASH}\n", "no pin for it"),
        ("dev.txt", f"--index-url x\npytest==2 \\\n{HASH}\n", "dev.txt:1: an address or a path"),
        ("dev.txt", f"pytest==2 \\\n{HASH}\n    # via -r /home/me/x\n", "dev.txt:3: an address or a path"),
        ("dev.txt", f"pytest @ https://example.org/x.whl \\\n{HASH}\n", "an address or a path"),
        ("dev.txt", f"pytest==2 \\\n{HASH}\nwheel==1.9 \\\n{HASH}\n", "but build.txt has 2.0"),
        ("runtime.in", "some-lib==1.0\nnew-lib==3\n", "new-lib==3 is in requirements/runtime.in only"),
    ],
)
def test_names_the_fault(tree: Path, file: str, text: str, expected: str) -> None:
    (tree / "requirements" / file).write_text(text)
    assert any(expected in line for line in complaints(tree)), list(complaints(tree))


def test_wanted_reads_names_and_exact_versions() -> None:
    assert list(wanted("A_b==1.0 # x\n\n-c other.txt\nc\n")) == [("a-b", "1.0"), ("c", None)]
    with pytest.raises(ValueError, match="neither"):
        list(wanted("a>=1\n"))


def test_pinned_counts_hashes() -> None:
    assert pinned(f"a==1 \\\n{HASH} \\\n{HASH}\nb==2\n") == {"a": ("1", 2), "b": ("2", 0)}
