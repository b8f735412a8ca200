"""The state key, and values sealed with it that cannot be moved or altered."""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import trio_test

from hived.errors import HiveError
from hived.store import seal
from hived.store.networks import Networks
from hived.store.seal import KEY_BYTES, StateKey
from hived.store.settings import IdentityKeys
from tests.unit.store.stores import KEY, opened


@given(st.binary(), st.text(st.characters(exclude_categories=["Cs"])))
def test_round_trip(plain: bytes, place: str) -> None:
    assert KEY.open(KEY.seal(plain, place), place) == plain
    assert KEY.seal(plain, place) != KEY.seal(plain, place)


@given(st.binary(), st.data())
def test_no_altered_value_opens(plain: bytes, data: st.DataObject) -> None:
    sealed = bytearray(KEY.seal(plain, "network/a"))
    at = data.draw(st.integers(0, len(sealed) - 1))
    sealed[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(HiveError):
        KEY.open(bytes(sealed), "network/a")


@given(st.binary(max_size=60))
def test_garbage_does_not_open(sealed: bytes) -> None:
    with pytest.raises(HiveError):
        KEY.open(sealed, "network/a")


@trio_test
async def test_a_value_cannot_be_moved_to_another_row(tmp_path: Path) -> None:
    """Whoever can write the file still cannot give network b the key of network a."""
    async with opened(tmp_path) as database:
        networks = Networks(database, KEY)
        await networks.add("a", b"A" * 32)
        await networks.add("b", b"B" * 32)
        await database.execute(
            "UPDATE network SET sealed_key = (SELECT sealed_key FROM network WHERE name = 'a')"
            " WHERE name = 'b'"
        )
        with pytest.raises(HiveError, match="decrypting network"):
            await networks.all()
        await IdentityKeys(database, KEY).save(b"S" * 32, "peer")
        await database.execute(
            "UPDATE identity SET sealed_key = (SELECT sealed_key FROM network WHERE name = 'a')"
        )
        with pytest.raises(HiveError, match="decrypting identity"):
            await IdentityKeys(database, KEY).load()


@trio_test
async def test_another_state_key_is_told(tmp_path: Path) -> None:
    other = StateKey(os.urandom(KEY_BYTES), Path("other.key"))
    async with opened(tmp_path) as database:
        await Networks(database, KEY).add("a", b"A" * 32)
        with pytest.raises(HiveError, match=r"other\.key is not the key"):
            await Networks(database, other).all()


@trio_test
async def test_no_secret_is_in_the_files(tmp_path: Path) -> None:
    """Neither K nor the seed can be read from the database or its journal."""
    key, seed = os.urandom(32), os.urandom(32)
    async with opened(tmp_path) as database:
        await Networks(database, KEY).add("net", key)
        await IdentityKeys(database, KEY).save(seed, "peer")
        running = b"".join(path.read_bytes() for path in tmp_path.iterdir())  # noqa: ASYNC240
    closed = b"".join(path.read_bytes() for path in tmp_path.iterdir())  # noqa: ASYNC240 - a test may block
    for data in (running, closed):
        assert b"net" in data
        for secret in (key, seed):
            assert secret not in data
            assert secret.hex().encode() not in data


# The key file


def test_a_new_key_is_private_and_kept(tmp_path: Path) -> None:
    first = seal.load(tmp_path, None, database_exists=False)
    path = tmp_path / "state.key"
    assert (path.stat().st_size, stat.S_IMODE(path.stat().st_mode)) == (KEY_BYTES, 0o600)
    assert first.source == path
    second = seal.load(tmp_path, None, database_exists=True)
    assert second.open(first.seal(b"x", "p"), "p") == b"x"
    assert [entry.name for entry in tmp_path.iterdir()] == ["state.key"]


def test_a_systemd_credential_goes_first(tmp_path: Path) -> None:
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    credential = credentials / "state-key"
    assert seal.load(tmp_path, credential, False).source == tmp_path / "state.key"
    credential.write_bytes(b"k" * KEY_BYTES)
    loaded = seal.load(tmp_path, credential, True)
    assert loaded.source == credential
    assert StateKey(b"k" * KEY_BYTES, tmp_path).open(loaded.seal(b"x", "p"), "p") == b"x"


def test_a_database_without_its_key_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(HiveError, match="missing"):
        seal.load(tmp_path, None, database_exists=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size", [0, 1, KEY_BYTES - 1, KEY_BYTES + 1])
def test_a_key_of_another_length(tmp_path: Path, size: int) -> None:
    (tmp_path / "state.key").write_bytes(bytes(size))
    with pytest.raises(HiveError, match=f"holds {size} bytes"):
        seal.load(tmp_path, None, database_exists=True)


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
def test_a_key_that_is_no_file(tmp_path: Path, make: Callable[[Path], None]) -> None:
    """At once: nobody writes to the pipe."""
    make(tmp_path / "state.key")
    with pytest.raises(HiveError, match="no regular file"):
        seal.load(tmp_path, None, database_exists=True)


def test_sqlite_can_read_the_sealed_column(tmp_path: Path) -> None:
    """The sealed value is a plain BLOB: nonce, ciphertext and tag."""
    connection = sqlite3.connect(tmp_path / "x")
    (value,) = connection.execute("SELECT ?", (KEY.seal(b"x" * 32, "p"),)).fetchone()
    assert len(value) == 12 + 32 + 16
