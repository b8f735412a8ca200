"""Fixtures for tests on real nodes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.nodes import Node, cluster, join

NETWORK = "my-network"


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Node, Node]]:
    """Two nodes in one network, shared by the tests of a module that leave them as they were."""
    with cluster(tmp_path_factory.mktemp("pair"), "alpha", "beta") as (alpha, beta):
        join(NETWORK, alpha, beta)
        yield alpha, beta


@pytest.fixture
def two(tmp_path: Path) -> Iterator[tuple[Node, Node]]:
    """Two nodes in one network, for one test that changes or kills them."""
    with cluster(tmp_path, "alpha", "beta") as (alpha, beta):
        join(NETWORK, alpha, beta)
        yield alpha, beta


@pytest.fixture
def one(tmp_path: Path) -> Iterator[Node]:
    """One node in no network."""
    with cluster(tmp_path, "alpha") as (alpha,):
        yield alpha
