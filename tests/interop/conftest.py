"""Fixtures: a peer of each other implementation, for all tests of a worker that leave it as it was."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from hived.overlay.identity import Identity
from tests.integration.nodes import Node, cluster
from tests.interop.stock import Stock, js_libp2p, kubo


@pytest.fixture(scope="session")
def js(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stock]:
    with js_libp2p(tmp_path_factory.mktemp("js")) as peer:
        yield peer


@pytest.fixture(scope="session")
def go_identity() -> Identity:
    return Identity.from_seed(os.urandom(32))


@pytest.fixture(scope="session")
def go(tmp_path_factory: pytest.TempPathFactory, go_identity: Identity) -> Iterator[Stock]:
    """Kubo with an Ed25519 key, which hived's own peers have."""
    pair = go_identity.key_pair
    # As go-libp2p keeps a key: type Ed25519 and 64 bytes in protobuf, those of the seed and the public key.
    key = b"\x08\x01\x12\x40" + pair.private_key.to_bytes() + pair.public_key.to_bytes()
    identity = (go_identity.peer_id, base64.b64encode(key).decode())
    with kubo(tmp_path_factory.mktemp("kubo"), *identity) as peer:
        yield peer


@pytest.fixture
def one(tmp_path: Path) -> Iterator[Node]:
    """A real hived in no network."""
    with cluster(tmp_path, "alpha") as (alpha,):
        yield alpha
