"""Where session tokens lie, and who may read them."""

from __future__ import annotations

from pathlib import Path

import pytest

from hivectl import tokens
from hived.errors import HiveError
from tests.unit.hivectl.server import LOCAL, REMOTE


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return tmp_path / "hive"


def test_a_token_is_kept_for_its_peer_alone(state: Path) -> None:
    assert not tokens.any_saved()
    assert tokens.load(LOCAL) is None
    tokens.save(LOCAL, "one")
    tokens.save(LOCAL, "two")
    assert tokens.any_saved()
    assert tokens.load(LOCAL) == "two"
    assert tokens.load(REMOTE) is None
    assert [path.name for path in state.iterdir()] == [f"{LOCAL}.token"]


def test_nobody_else_can_read_it(state: Path) -> None:
    state.mkdir(mode=0o755)
    tokens.save(LOCAL, "secret")
    assert state.stat().st_mode & 0o777 == 0o700
    assert (state / f"{LOCAL}.token").stat().st_mode & 0o777 == 0o600


def test_a_forgotten_token_leaves_the_peer_known(state: Path) -> None:
    assert not tokens.is_known(LOCAL)
    tokens.save(LOCAL, "secret")
    tokens.remember(LOCAL)
    assert tokens.is_known(LOCAL)
    tokens.remember(REMOTE)
    tokens.remember(LOCAL)
    tokens.forget(LOCAL)
    tokens.forget(LOCAL)
    assert tokens.load(LOCAL) is None
    assert tokens.is_known(LOCAL)
    assert (state / "known_peers").read_text().split() == [LOCAL, REMOTE]
    assert not tokens.any_saved()


@pytest.mark.parametrize("content", ["", "\n", "two\nlines", "ä", "\x00", b"\xff\xfe"])
def test_a_damaged_file_is_no_token(state: Path, content: str | bytes) -> None:
    tokens.save(LOCAL, "x")
    data = content if isinstance(content, bytes) else content.encode()
    (state / f"{LOCAL}.token").write_bytes(data)
    assert tokens.load(LOCAL) is None


@pytest.mark.parametrize("peer_id", ["", "../x", "a/b", ".", "ä", "a" * 129, "a\n"])
def test_a_peer_id_names_no_other_file(peer_id: str) -> None:
    with pytest.raises(HiveError, match="is not a peer ID"):
        tokens.save(peer_id, "x")


def test_a_failure_to_write_is_said_and_leaves_nothing(state: Path) -> None:
    (state / f"{LOCAL}.token").mkdir(parents=True)
    with pytest.raises(HiveError, match="keeping the session failed"):
        tokens.save(LOCAL, "x")
    with pytest.raises(HiveError, match="reading the session token failed"):
        tokens.load(LOCAL)
    with pytest.raises(HiveError, match="removing the session token failed"):
        tokens.forget(LOCAL)
    assert [path.name for path in state.iterdir()] == [f"{LOCAL}.token"]


def test_the_directory_by_the_xdg_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/joe")
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    assert tokens.state_dir() == Path("/home/joe/.local/state/hive")
    monkeypatch.delenv("XDG_STATE_HOME")
    assert tokens.state_dir() == Path("/home/joe/.local/state/hive")


def test_a_token_is_of_the_way_it_was_given_by(state: Path) -> None:
    """A session on a node is bound to where it came from: its own socket, or a node in between."""
    tokens.save(REMOTE, "direct")
    tokens.save(REMOTE, "through", LOCAL)
    assert (tokens.load(REMOTE), tokens.load(REMOTE, LOCAL)) == ("direct", "through")
    tokens.forget(REMOTE)
    assert (tokens.load(REMOTE), tokens.load(REMOTE, LOCAL)) == (None, "through")
    with pytest.raises(HiveError):
        tokens.load(REMOTE, "../elsewhere")
