"""To which members a node keeps a connection of its own accord (DESIGN.md, Node records and sync)."""

from __future__ import annotations

import random
from collections.abc import Collection, Set

FULL_MESH = 64
NEIGHBOURS = 16


def neighbours(members: Collection[str], linked: Set[str], rng: random.Random) -> set[str]:
    """All members up to 64; beyond that 16 random ones, those first that are ``linked`` already.

    Others are dialled on demand.
    """
    if len(members) <= FULL_MESH:
        return set(members)
    kept = sorted(linked & frozenset(members))
    rng.shuffle(kept)
    if len(kept) >= NEIGHBOURS:
        return set(kept[:NEIGHBOURS])
    others = [member for member in members if member not in linked]
    return {*kept, *rng.sample(others, min(len(others), NEIGHBOURS - len(kept)))}
