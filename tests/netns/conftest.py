"""A lab for each test that asks for one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.netns.lab import Lab


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """An empty lab, which ends with the test. Who asks for it is marked with ``requires("natlab")``."""
    with Lab(tmp_path) as made:
        yield made
