"""hivectl backup and restore: where the passphrase comes from, the file, and what is said."""

from __future__ import annotations

import base64
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from hivectl import files
from hived.errors import HiveError, Kind
from tests.unit.hivectl import rows
from tests.unit.hivectl.conftest import Hivectl
from tests.unit.hivectl.server import LOCAL, REMOTE, Answer, Server, problem
from tests.unit.hivectl.terminal import Terminal

PASSPHRASE = "four random words here"
DATA = b"hive-backup\x01\x00\xff"
MADE = {
    "backup": base64.b64encode(DATA).decode(),
    "peer_id": REMOTE,
    "name": "far",
    "networks": ["lab"],
    "created": "2026-01-02T03:04:05Z",
}
RESTORED = {key: MADE[key] for key in ("peer_id", "name", "networks", "created")}
STDIN = "--passphrase-stdin"


@pytest.fixture(autouse=True)
def answers(hived: Server) -> None:
    hived.document("GET /v1/status", rows.status())
    hived.document("POST /v1/backup", MADE)
    hived.document("POST /v1/restore", {**RESTORED, "peer_id": LOCAL})


def back(hived: Server) -> None:
    """hived has just started anew, as the node of the backup."""
    hived.document(
        "GET /v1/info", {"peer_id": LOCAL, "name": "far", "version": "9.9", "uptime": 0.0, "networks": []}
    )


def posted(hived: Server) -> Any:
    return next(asked.body for asked in hived.asked if asked.call.startswith("POST"))


def test_a_backup_is_written_for_its_owner_alone(hivectl: Hivectl, hived: Server) -> None:
    ended = hivectl("backup", "b", STDIN, input=f"{PASSPHRASE}\n")
    assert ended.code == 0
    assert posted(hived) == {"passphrase": PASSPHRASE}
    file = hivectl.home / "b"
    assert (file.read_bytes(), stat.S_IMODE(file.stat().st_mode)) == (DATA, 0o600)
    assert ended.out == (
        f"b: the backup of far ({REMOTE}), 14B\nNetworks: lab. Made: 2026-01-02T03:04:05Z.\n"
    )
    assert "Whoever has this file and its passphrase is this node" in ended.err
    assert not [entry for entry in hivectl.home.iterdir() if entry.name.endswith(".part")]


def test_a_backup_of_another_node(hivectl: Hivectl, hived: Server) -> None:
    hived.document("GET /v1/status", rows.status(), peer=REMOTE)
    hived.document("POST /v1/backup", MADE, peer=REMOTE)
    assert hivectl("backup", "b", STDIN, "--node", "far", input=PASSPHRASE).code == 0
    assert [asked.peer for asked in hived.asked if asked.call == "POST /v1/backup"] == [REMOTE]


def test_as_json(hivectl: Hivectl) -> None:
    (hivectl.home / "p").write_text(PASSPHRASE + "\nmore")
    ended = hivectl("backup", "b", "--json", "--passphrase-file", "p")
    told = {"file": "b", "size": len(DATA), **RESTORED}
    assert (ended.code, json.loads(ended.out), ended.err) == (0, told, "")


def test_into_a_pipe(hivectl: Hivectl) -> None:
    (hivectl.home / "p").write_text(PASSPHRASE)
    with (hivectl.home / "out").open("wb") as out:
        process = hivectl.start("backup", "-", "--passphrase-file", "p", stdout=out, stderr=-1)
        _, err = process.communicate(timeout=60)
    assert (hivectl.home / "out").read_bytes() == DATA
    assert f"the backup of far ({REMOTE})" in err
    assert hivectl("backup", "-", "--json", "--passphrase-file", "p").code == 2


def test_nothing_is_written_over(hivectl: Hivectl, hived: Server) -> None:
    """Not even asked for; with --force it takes the place of what was there."""
    file = hivectl.home / "b"
    file.write_text("precious")
    file.chmod(0o644)
    ended = hivectl("backup", "b", STDIN, input=PASSPHRASE)
    assert (ended.code, ended.out) == (6, "")
    assert ended.err == "hivectl: writing b failed: it exists already. Name another file, or add --force.\n"
    assert (file.read_text(), hived.calls) == ("precious", [])
    assert hivectl("backup", "b", "-force", STDIN, input=PASSPHRASE).code == 0
    assert (file.read_bytes(), stat.S_IMODE(file.stat().st_mode)) == (DATA, 0o600)


@pytest.mark.parametrize(
    ("file", "code", "why"), [("d", 2, "it is a directory"), ("no/b", 2, "there is no directory no")]
)
def test_where_none_can_be_written(hivectl: Hivectl, hived: Server, file: str, code: int, why: str) -> None:
    (hivectl.home / "d").mkdir()
    for more in ([], ["--force"]):
        ended = hivectl("backup", file, STDIN, *more, input=PASSPHRASE)
        assert (ended.code, ended.err.count("\n")) == (code, 1)
        assert why in ended.err
    assert hived.calls == []


@pytest.mark.parametrize(
    ("words", "given", "why"),
    [
        ([STDIN], "short", "the passphrase has 5 characters"),
        ([STDIN], "", "reading the passphrase failed: standard input is empty"),
        ([STDIN, "--passphrase-file", "p"], "x" * 12, "exclude each other"),
        (["--passphrase-file", "nowhere"], "", "nowhere: No such file"),
        ([], PASSPHRASE, "there is no terminal to ask for a passphrase on"),
    ],
)
def test_what_is_no_passphrase(
    hivectl: Hivectl, hived: Server, words: list[str], given: str, why: str
) -> None:
    ended = hivectl("backup", "b", *words, input=given)
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert why in ended.err
    assert "POST /v1/backup" not in hived.calls
    assert not (hivectl.home / "b").exists()


def test_a_refusal_leaves_no_file(hivectl: Hivectl, hived: Server) -> None:
    hived.answer("POST /v1/backup", problem("failed", 500, "making the backup failed", "too large"))
    ended = hivectl("backup", "b", STDIN, input=PASSPHRASE)
    assert (ended.code, ended.err) == (1, "hivectl: making the backup failed: too large.\n")
    assert sorted(entry.name for entry in hivectl.home.iterdir()) == ["control.sock"]


def test_on_a_terminal_the_passphrase_is_typed_twice(hivectl: Hivectl, hived: Server) -> None:
    terminal = Terminal(hivectl, "backup", "b")
    terminal.until("Passphrase for the backup, 12 characters or more: ")
    terminal.type(PASSPHRASE)
    terminal.until("The same again: ")
    terminal.type(PASSPHRASE)
    assert terminal.end()[0] == 0
    assert posted(hived) == {"passphrase": PASSPHRASE}
    assert PASSPHRASE not in terminal.screen
    terminal = Terminal(hivectl, "backup", "-", "--passphrase-file", "p")
    assert (terminal.end()[0], "a backup is not for a terminal" in terminal.screen) == (2, True)


# Restore


@pytest.fixture
def file(hivectl: Hivectl) -> str:
    (hivectl.home / "b").write_bytes(DATA)
    return "b"


def test_a_restore_waits_for_hived_to_come_back(hivectl: Hivectl, hived: Server, file: str) -> None:
    old = hived.peers[LOCAL].answers["GET /v1/info"][0].document
    hived.answer(
        "GET /v1/info",
        Answer({**old, "peer_id": REMOTE}),
        Answer({**old, "uptime": 9999.0}),
        Answer({**old, "uptime": 0.0}),
    )
    ended = hivectl("restore", file, STDIN, input=PASSPHRASE)
    assert ended.code == 0
    assert posted(hived) == {"backup": MADE["backup"], "passphrase": PASSPHRASE, "replace": False}
    assert [asked.call for asked in hived.asked].count("GET /v1/info") == 3
    assert ended.out == f"This node is far ({LOCAL}), as of 2026-01-02T03:04:05Z.\nNetworks: lab.\n"
    # It is the node that the backup was made on.
    assert "must not run again" not in ended.err
    assert "kept in /var/lib/hive, as hive.db.before-restore" in ended.err


def test_a_restore_as_json_and_from_a_pipe(hivectl: Hivectl, hived: Server, file: str) -> None:
    back(hived)
    (hivectl.home / "p").write_text(PASSPHRASE)
    with (hivectl.home / file).open("rb") as stdin:
        process = hivectl.start(
            *("restore", "-", "-replace", "-passphrase-file", "p", "--json"),
            stdin=stdin,
            stdout=-1,
            stderr=-1,
        )
        out, err = process.communicate(timeout=60)
    assert (process.returncode, json.loads(out), err) == (0, {**RESTORED, "peer_id": LOCAL}, "")
    assert posted(hived) == {"backup": MADE["backup"], "passphrase": PASSPHRASE, "replace": True}
    assert hivectl("restore", "-", STDIN, input="x").code == 2


def test_a_restore_on_a_terminal_asks_once(hivectl: Hivectl, hived: Server, file: str) -> None:
    back(hived)
    terminal = Terminal(hivectl, "restore", file)
    terminal.until("Passphrase of the backup: ")
    terminal.type("x")  # whatever it is: hived judges it
    assert terminal.end()[0] == 0
    assert posted(hived)["passphrase"] == "x"


def test_a_restore_needs_a_hived(hivectl: Hivectl, file: str) -> None:
    hivectl.env["HIVE_SOCKET"] = "/nowhere"
    ended = hivectl("restore", file, STDIN, input=PASSPHRASE)
    assert (ended.code, ended.err.count("\n")) == (3, 1)
    assert "there is no socket /nowhere. Start it" in ended.err


def test_a_restore_is_refused(hivectl: Hivectl, hived: Server, file: str) -> None:
    hived.answer("POST /v1/restore", problem("conflict", 409, "restoring failed", "it still runs", "Stop it"))
    ended = hivectl("restore", file, STDIN, input=PASSPHRASE)
    assert (ended.code, ended.err) == (6, "hivectl: restoring failed: it still runs. Stop it.\n")


@pytest.mark.parametrize(
    ("words", "code", "why"),
    [
        (["nowhere", STDIN], 1, "reading nowhere failed: No such file"),
        ([".", STDIN], 1, "Is a directory"),
        (["b", STDIN, "--node", "far"], 2, "--node does not go with restore"),
        (["b"], 2, "there is no terminal to ask for the passphrase on"),
        (["large", STDIN], 2, "it is larger than a backup can be (64.0MiB)"),
        ([], 2, "FILE"),
    ],
)
def test_what_cannot_be_restored(
    hivectl: Hivectl, hived: Server, file: str, words: list[str], code: int, why: str
) -> None:
    with (hivectl.home / "large").open("wb") as large:
        large.truncate(64 * 1024 * 1024 + 1)
    ended = hivectl("restore", *words, input=PASSPHRASE)
    assert (ended.code, ended.err.count("\n")) == (code, 1)
    assert why in ended.err
    assert "POST /v1/restore" not in hived.calls


def test_help_says_how_a_node_is_moved(hivectl: Hivectl) -> None:
    out = hivectl("restore", "--help").out
    steps = [
        out.index(step)
        for step in ("hivectl backup FILE", "systemctl disable --now hived", "hivectl restore FILE")
    ]
    assert steps == sorted(steps)
    assert "is this node" in " ".join(hivectl("backup", "--help").out.split())


# The file


def test_a_race_for_the_name_is_lost_in_order(tmp_path: Path) -> None:
    """Whoever made the file meanwhile keeps it."""
    path = tmp_path / "b"
    files.check_target(path, False)
    path.write_text("of another")
    with pytest.raises(HiveError) as caught:
        files.write(path, DATA, False)
    assert caught.value.kind is Kind.CONFLICT
    assert [entry.name for entry in tmp_path.iterdir()] == ["b"]
    assert path.read_text() == "of another"


def test_a_file_system_without_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A USB stick's."""

    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    files.write(tmp_path / "b", DATA, False)
    assert (tmp_path / "b").read_bytes() == DATA
    with pytest.raises(HiveError) as caught:
        files.write(tmp_path / "b", b"other", False)
    assert caught.value.kind is Kind.CONFLICT
    assert [entry.name for entry in tmp_path.iterdir()] == ["b"]


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    (tmp_path / "b").write_text("before")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(HiveError, match="No space left"):
        files.write(tmp_path / "b", DATA, True)
    assert [(entry.name, entry.read_text()) for entry in tmp_path.iterdir()] == [("b", "before")]


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("kind", ["link", "fifo"])
def test_only_regular_files_are_written(tmp_path: Path, kind: str, force: bool) -> None:
    """A rename would put a file in the place of a device or a link, for root too."""
    path = tmp_path / "b"
    if kind == "link":
        path.symlink_to("elsewhere")
    else:
        os.mkfifo(path)
    with pytest.raises(HiveError, match="no regular file"):
        files.check_target(path, force)
