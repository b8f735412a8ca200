"""One hived for one directory, and the lock goes with its process."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from hived.errors import HiveError, Kind
from hived.system import runlock

HOLDER = """
import sys, pathlib
from hived.system import runlock
fd = runlock.take(pathlib.Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def refused(directory: Path) -> HiveError:
    with pytest.raises(HiveError) as caught:
        runlock.take(directory)
    return caught.value


def test_it_makes_a_private_directory(tmp_path: Path) -> None:
    fd = runlock.take(tmp_path / "a/b")
    assert stat.S_IMODE((tmp_path / "a/b").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "a/b" / runlock.FILE_NAME).stat().st_mode) == 0o600
    assert (tmp_path / "a/b" / runlock.FILE_NAME).read_text() == f"{os.getpid()}\n"
    assert not os.get_inheritable(fd)  # a child would hold the lock on
    os.close(fd)


def test_an_open_directory_is_closed(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    os.close(runlock.take(tmp_path))
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700


def test_a_second_one_is_told_who_has_it(tmp_path: Path) -> None:
    """Across processes; kill -9 frees it at once."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        error = refused(tmp_path)
        assert error.kind is Kind.CONFLICT
        assert f"process {holder.pid}" in error.line()
        assert error.kind is refused(tmp_path).kind
        holder.kill()
        holder.wait()
    os.close(runlock.take(tmp_path))


def test_a_file_in_its_place(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("")
    assert refused(tmp_path / "x").kind is Kind.FAILED
    (tmp_path / "d" / runlock.FILE_NAME).mkdir(parents=True)
    assert refused(tmp_path / "d").kind is Kind.FAILED


@pytest.mark.root
def test_root_keeps_out_of_another_users_directory(tmp_path: Path) -> None:
    """Files made by root would lock that user out."""
    tmp_path.chmod(0o755)
    os.chown(tmp_path, 12345, 12345)
    error = refused(tmp_path)
    assert error.kind is Kind.DENIED
    assert "12345" in error.line()
    assert list(tmp_path.iterdir()) == []
