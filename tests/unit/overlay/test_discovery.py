"""The tags of networks on a LAN, and when they are announced. tests/netns/test_lan.py has the rest."""

from __future__ import annotations

import hashlib
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hived.overlay.discovery import DAY, TAG_CHARS, Discovery, tag, tags, told_tags

NOON = 20_000 * DAY + DAY // 2
NAMES = st.text(min_size=1, max_size=63)


@given(NAMES, st.integers(0, 100_000))
def test_a_tag_shows_neither_name_nor_day(name: str, day: int) -> None:
    made = tag(name, day)
    assert len(made) == TAG_CHARS
    assert made != tag(name, day + 1)
    assert made != tag(name + "x", day)
    assert made not in hashlib.sha256(name.encode()).hexdigest()


@given(st.sets(NAMES, max_size=5), st.sampled_from([-1, 0, 1]))
def test_a_clock_may_be_a_day_off(names: set[str], days: int) -> None:
    known = tags(names, NOON)
    assert {known[tag(name, 20_000 + days)] for name in names} == names
    assert not {tag(name, 20_002) for name in names} & set(known)


def test_nothing_is_announced_where_nobody_could_come() -> None:
    """Listeners on loopback only, no network, or switched off."""
    networks: list[str] = []
    listening = ["/ip4/127.0.0.1/tcp/4483", "/ip6/::1/tcp/4483"]
    discovery = Discovery("12D3KooWx", lambda: networks, lambda: listening)
    assert discovery._port() == 0
    listening.append("/ip4/0.0.0.0/tcp/4484")
    assert discovery._port() == 4484
    # What would be said is another thing now: it is looked at anew.
    discovery._saying = discovery._said()
    discovery.changed()
    assert not discovery._kick.is_set()
    networks.append("net")
    discovery.changed()
    assert discovery._kick.is_set()


@pytest.mark.parametrize("count", [0, 1, 14, 15, 28, 29, 56, 57, 200])
def test_a_node_of_many_networks_is_announced_with_as_many_as_fit(count: int) -> None:
    """A string of an announcement has 255 bytes, and zeroconf raises where it has more."""
    networks = [f"net{number}" for number in range(count)]
    listening = ["/ip4/0.0.0.0/tcp/4484"]
    info = Discovery("12D3KooWx", lambda: networks, lambda: listening)._announcement()
    known = tags(networks, time.time())
    assert len({known[told] for told in told_tags(info) if told}) == min(count, 56)
