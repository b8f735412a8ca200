"""The hived command as a process: check, hash-password, errors as one line, and no password in ps."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hived import __version__, cli
from hived.api.passwords import decode_hash, verify_password

ROOT = Path(__file__).parents[2]


def hived(
    home: Path, *words: str | bytes, stdin: str | bytes = "", **environ: str
) -> subprocess.CompletedProcess[str]:
    env = {"PATH": os.environ["PATH"], "HOME": str(home), "PYTHONPATH": str(ROOT), **environ}
    done = subprocess.run(
        [sys.executable, "-m", "hived", *words],
        input=stdin if isinstance(stdin, bytes) else stdin.encode(),
        env=env,
        cwd=home,
        capture_output=True,
        timeout=60,
        check=False,
    )
    out, err = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
    return subprocess.CompletedProcess(done.args, done.returncode, out, err)


def one_line(done: subprocess.CompletedProcess[str], code: int) -> str:
    """The one line of a failure, with its exit code."""
    assert done.returncode == code, done
    assert done.stdout == ""
    assert done.stderr.startswith("hived: ")
    assert done.stderr.count("\n") == 1
    return done.stderr


def test_version_and_help(tmp_path: Path) -> None:
    assert hived(tmp_path, "--version").stdout == f"hived {__version__}\n"
    done = hived(tmp_path, "run", "--help")
    assert done.returncode == 0
    for flag in (
        "--config",
        "--data-dir",
        "--socket",
        "--name",
        "--listen",
        "--announce",
        "--bootstrap",
        "-dnc",
        "-rc",
    ):
        assert flag in done.stdout


@pytest.mark.parametrize("stdin", ["secret\n", "secret"])
def test_hash_password(tmp_path: Path, stdin: str) -> None:
    done = hived(tmp_path, "hash-password", stdin=stdin)
    assert done.returncode == 0
    phc = decode_hash(done.stdout.strip())
    assert phc is not None
    assert verify_password(phc, "secret")
    assert "secret" not in done.stdout + done.stderr


def test_hash_password_of_nothing(tmp_path: Path) -> None:
    one_line(hived(tmp_path, "hash-password", "--stdin"), 2)


def test_hash_password_that_is_no_text(tmp_path: Path) -> None:
    one_line(hived(tmp_path, "hash-password", stdin=b"\xff\xfe\n"), 2)


# check


def test_check_says_what_is_in_force(tmp_path: Path) -> None:
    """All four layers; no secret; nothing is made."""
    file = tmp_path / "hived.toml"
    file.write_text('name = "toml"\nlog_level = "error"\nlog_format = "json"\nadmin = ["me:hush-hush"]\n')
    done = hived(
        tmp_path,
        "check",
        "--config",
        "hived.toml",
        "--log-level",
        "debug",
        "-dnc",
        "net:hush-hush",
        HIVED_NAME="env",
    )
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    for line in ("name = env", "log_level = debug", "log_format = json", "networks = net", "admins = me"):
        assert line in lines
    assert "hush" not in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["hived.toml"]


def test_check_looks_at_the_state_key(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    words = ("check", "--data-dir", str(state))
    assert hived(tmp_path, *words).returncode == 0
    (state / "hive.db").touch()
    missing = hived(tmp_path, *words)
    assert (missing.returncode, missing.stderr.count("\n")) == (1, 1)
    assert "is missing" in missing.stderr
    (state / "state.key").write_bytes(bytes(31))
    assert "31 bytes instead of 32" in hived(tmp_path, *words).stderr
    # systemd may hand another one in, as it does to the service.
    handed = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    (tmp_path / "state-key").write_bytes(bytes(32))
    assert hived(tmp_path, *words, **handed).returncode == 0
    (tmp_path / "state-key").write_bytes(bytes(33))
    assert "33 bytes instead of 32" in hived(tmp_path, *words, **handed).stderr
    (state / "state.key").write_bytes(bytes(32))
    assert hived(tmp_path, *words).returncode == 0


@pytest.mark.root
def test_check_of_a_directory_that_cannot_be_looked_into(tmp_path: Path) -> None:
    """Root becomes the node's user, who may not get there."""
    tmp_path.chmod(0o700)
    state = tmp_path / "state"
    state.mkdir()
    os.chown(state, 65534, 65534)
    done = hived(tmp_path, "check", "--data-dir", str(state))
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "Permission denied, as user nobody" in done.stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--listen", "nonsense"], "nonsense"),
        (["--announce", "/ip4/1.2.3.4/udp/1"], "udp"),
        (["--bootstrap", "nonsense"], "identity"),
        (["--config", "nowhere.toml"], "no such file"),
        (["--name", "a b"], "node name"),
        (["--log-level", "loud"], "loud"),
        (["--nonsense"], "--nonsense"),
        (["--listen"], "argument"),
        (["extra"], "extra"),
    ],
)
def test_check_of_what_is_wrong(
    tmp_path: Path,
    words: list[str],
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """In this process: no secret is among the words, for which hived would execute itself anew."""
    monkeypatch.setattr(sys, "argv", ["hived", "check", *words])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        cli.main()
    told = capfd.readouterr()
    done = subprocess.CompletedProcess(words, int(str(caught.value.code)), told.out, told.err)
    assert says in one_line(done, 2)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["walk"], "hash-password"),
        (["check", "-dnc", "net"], "no password"),
        (["check", "-rc=me:hash_x"], "hash"),
    ],
)
def test_wrong_command_lines_of_a_process(tmp_path: Path, words: list[str], says: str) -> None:
    assert says in one_line(hived(tmp_path, *words), 2)


def test_a_password_in_argv_that_is_no_text(tmp_path: Path) -> None:
    words: list[str | bytes] = [
        "run",
        "--data-dir",
        "d",
        "--listen",
        "/ip4/127.0.0.1/tcp/0",
        "--admin",
        b"me:\xff\xfe",
    ]
    one_line(hived(tmp_path, *words), 2)
