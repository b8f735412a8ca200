"""What is made of a network's name and password."""

from __future__ import annotations

import pytest

from hived.overlay import networkkeys


def test_the_network_id_comes_from_the_name_only() -> None:
    """Nothing visible to strangers is derived from K."""
    assert len(networkkeys.network_id("net")) == networkkeys.NETWORK_ID_BYTES
    assert networkkeys.network_id("net") == networkkeys.network_id("net")
    assert len({networkkeys.network_id(name) for name in ("a", "b", "A", "ab", "")}) == 5


def test_the_key_is_fixed_for_ever() -> None:
    """Two versions of Hive must come to one K: a changed vector shuts every older node out."""
    key = networkkeys.derive_key("my-network", "correct-horse-battery-staple")
    assert key.hex() == "77b53ce5d4568c56febc1cbf86cb25be47a1dfb7a437c3af0c96d95cc8678d60"


def test_the_key_depends_on_name_and_password() -> None:
    keys = {networkkeys.derive_key(*pair) for pair in (("a", "b"), ("b", "a"), ("a", "c"))}
    assert len(keys) == 3
    assert {len(key) for key in keys} == {networkkeys.KEY_BYTES}


@pytest.mark.parametrize("password", ["", "ä€\U0001f41d", "x" * 1024, "a\0b"])
def test_any_password(password: str) -> None:
    assert len(networkkeys.derive_key("net", password)) == networkkeys.KEY_BYTES


def test_generated_passwords() -> None:
    """128 bits, safe in shells, never like an option."""
    made = {networkkeys.generate_password() for _ in range(2000)}
    assert len(made) == 2000
    assert all(len(password) == 22 and not password.startswith("-") for password in made)
    assert all(password.replace("-", "").replace("_", "").isalnum() for password in made)
