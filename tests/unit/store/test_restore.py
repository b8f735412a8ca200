"""A staged database is taken up whole, whatever the moment that a power cut chose."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
from pathlib import Path
from typing import Any

import pytest

from hived.errors import HiveError
from hived.store.database import FILE_NAME
from hived.store.restore import BEFORE, STAGED, stage, take_up


def database(path: Path, value: str, *, killed: bool = False) -> None:
    """A database with one row; ``killed``: in its write-ahead log only, as kill -9 leaves it."""
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("CREATE TABLE t (value TEXT)")
    connection.commit()
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.execute("INSERT INTO t VALUES (?)", (value,))
    connection.commit()
    if killed:
        left = {name: Path(f"{path}{name}").read_bytes() for name in ("", "-wal", "-shm")}
        connection.close()
        for name, data in left.items():
            Path(f"{path}{name}").write_bytes(data)
    else:
        connection.close()


def value(path: Path) -> str:
    connection = sqlite3.connect(f"{path.as_uri()}", uri=True)
    try:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        rows = connection.execute("SELECT value FROM t").fetchall()
    finally:
        connection.close()
    return ",".join(str(row[0]) for row in rows)


def image(directory: Path, text: str) -> bytes:
    path = directory / "made"
    database(path, text)
    data = path.read_bytes()
    path.unlink()
    return data


def test_staged_privately_and_whole(tmp_path: Path) -> None:
    (tmp_path / f"{STAGED}.new").write_bytes(b"left over")
    stage(tmp_path, b"first")
    stage(tmp_path, b"second")
    path = tmp_path / STAGED
    assert path.read_bytes() == b"second"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == [STAGED]


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(HiveError, match="No space left"):
        stage(tmp_path, b"x")
    assert list(tmp_path.iterdir()) == []


def test_nothing_staged_is_nothing_done(tmp_path: Path) -> None:
    database(tmp_path / FILE_NAME, "old", killed=True)
    (tmp_path / f"{STAGED}.new").write_bytes(b"half")
    before = {entry.name: entry.read_bytes() for entry in tmp_path.iterdir() if "new" not in entry.name}
    assert not take_up(tmp_path)
    assert {entry.name: entry.read_bytes() for entry in tmp_path.iterdir()} == before


@pytest.mark.parametrize("killed", [False, True])
def test_the_staged_one_is_in_force_and_the_old_one_kept(tmp_path: Path, killed: bool) -> None:
    for number in range(3):
        text = f"new {number}"
        stage(tmp_path, image(tmp_path, text))
        if not number:
            database(tmp_path / FILE_NAME, "old", killed=killed)
        assert take_up(tmp_path)
        assert not take_up(tmp_path)
        assert value(tmp_path / FILE_NAME) == text
        assert value(tmp_path / BEFORE) == "old"
        kept = [value(tmp_path / f"{BEFORE}.{n}") for n in range(2, number + 2)]
        assert kept == [f"new {n}" for n in range(number)]
        assert not (tmp_path / STAGED).exists()


def test_a_first_start(tmp_path: Path) -> None:
    stage(tmp_path, image(tmp_path, "new"))
    assert take_up(tmp_path)
    assert value(tmp_path / FILE_NAME) == "new"


class PowerCutError(Exception):
    """The machine is off."""


@pytest.mark.parametrize("killed", [False, True])
@pytest.mark.parametrize("earlier", [False, True])
def test_a_power_cut_after_each_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed: bool, earlier: bool
) -> None:
    """Every state in between ends, at the next start, in the new database and the old one beside it."""
    template = tmp_path / "template"
    template.mkdir()
    database(template / FILE_NAME, "old", killed=killed)
    if earlier:
        database(template / BEFORE, "of an earlier restore", killed=True)
    stage(template, image(tmp_path, "new"))
    steps = 0
    names = ("rename", "unlink", "fsync")
    real: dict[str, Any] = {name: getattr(os, name) for name in names}
    left = 0

    def cut(name: str) -> Any:
        def step(*arguments: Any, **named: Any) -> Any:
            nonlocal left
            if not left:
                raise PowerCutError
            left -= 1
            return real[name](*arguments, **named)

        return step

    for moment in range(100):
        data = tmp_path / str(moment)
        shutil.copytree(template, data)
        left = moment
        with monkeypatch.context() as patched:
            for name in names:
                patched.setattr(os, name, cut(name))
            try:
                take_up(data)
                done = True
            except PowerCutError:
                done = False
        # A second cut at the same place of the next start, and then the start that goes through.
        assert (data / STAGED).exists() or (data / FILE_NAME).exists()
        take_up(data)
        assert value(data / FILE_NAME) == "new", moment
        kept = f"{BEFORE}.2" if earlier else BEFORE
        assert value(data / kept) == "old", moment
        if earlier:
            assert value(data / BEFORE) == "of an earlier restore", moment
        names_left = {entry.name.removesuffix("-wal") for entry in data.iterdir()}
        assert names_left == {FILE_NAME, BEFORE, kept}, moment
        steps = moment
        if done:
            break
    assert steps >= 6


def test_a_directory_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage(tmp_path, b"x")

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(HiveError, match="Permission denied"):
        take_up(tmp_path)
