"""Which members a node keeps connections to."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from hived.overlay.topology import FULL_MESH, NEIGHBOURS, neighbours


@given(st.integers(0, 200), st.sets(st.integers(0, 250)), st.integers())
def test_all_when_few_and_some_when_many(count: int, linked: set[int], seed: int) -> None:
    members = [str(n) for n in range(count)]
    links = {str(n) for n in linked}
    chosen = neighbours(members, links, random.Random(seed))
    assert chosen <= set(members)
    assert len(chosen) == (count if count <= FULL_MESH else NEIGHBOURS)
    if count > FULL_MESH:
        # A link that is there is kept before a new one is made.
        kept = links & set(members)
        assert len(chosen & kept) == min(len(kept), NEIGHBOURS)
