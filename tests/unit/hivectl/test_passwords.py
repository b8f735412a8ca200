"""Where a password comes from, and what is no password."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from hivectl import passwords, prompts
from hived.errors import HiveError, Kind


def _stdin(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data), encoding="utf-8"))


@pytest.mark.parametrize(
    ("data", "password"),
    [(b"x\n", "x"), (b"x", "x"), (b" x \r\n", " x "), (b"x\ny\n", "x"), ("ä€\n".encode(), "ä€")],
)
def test_it_is_the_first_line_with_its_spaces(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, data: bytes, password: str
) -> None:
    _stdin(monkeypatch, data)
    assert passwords.given(None, True, None) == password
    (tmp_path / "f").write_bytes(data)
    assert passwords.given(None, False, str(tmp_path / "f")) == password


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "is empty"),
        (b"\nx", "is empty"),
        (b"x" * 1025, "longer than 1024"),
        (b"\xff\n", "not UTF-8 text"),
    ],
)
def test_what_is_no_password(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, data: bytes, why: str) -> None:
    _stdin(monkeypatch, data)
    (tmp_path / "f").write_bytes(data)
    for stdin, file in ((True, None), (False, str(tmp_path / "f"))):
        with pytest.raises(HiveError, match=why) as caught:
            passwords.given(None, stdin, file)
        assert caught.value.kind is Kind.USAGE


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(HiveError, match="Is a directory"):
        passwords.given(None, False, str(tmp_path))


def test_no_stdin_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", None)
    assert not prompts.interactive()
    with pytest.raises(HiveError, match="standard input is empty"):
        passwords.from_stdin()


def test_one_source_only() -> None:
    assert passwords.given("x", False, None) == "x"
    assert passwords.given(None, False, None) is None
    for named in (("x", True, None), ("x", False, "f"), (None, True, "f"), ("", True, "")):
        with pytest.raises(HiveError, match="exclude each other"):
            passwords.given(*named)


def test_the_answer_of_a_closed_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    _stdin(monkeypatch, b"")
    with pytest.raises(HiveError, match="the terminal was closed"):
        prompts.ask("User", "admin")
