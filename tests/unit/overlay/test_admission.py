"""A flood of connections leaves room for others: by source, in total, and for members' addresses."""

from __future__ import annotations

from hived.overlay.admission import MEMBER_SECONDS, Admission


def admitted(door: Admission, sources: list[str], start: float, seconds: int, rate: int) -> dict[str, int]:
    """``rate`` connections a second from each source in turn; how many of each were let in."""
    counts = dict.fromkeys(sources, 0)
    for number in range(seconds * rate):
        for source in sources:
            counts[source] += door.admit(source, start + number / rate)
    return counts


def test_one_source_cannot_use_up_the_others_share() -> None:
    door = Admission()
    assert admitted(door, ["evil"], 0.0, 10, 200)["evil"] <= 20 + 10 * 4
    assert door.admit("new", 10.0)


def test_many_sources_are_bounded_in_total_and_take_turns() -> None:
    door = Admission()
    flood = admitted(door, [f"evil{number}" for number in range(200)], 0.0, 60, 2)
    assert 60 * 10 <= sum(flood.values()) <= 60 + 60 * 10
    assert min(flood.values()) >= 2


def test_who_comes_first_in_a_flood_is_let_in_and_again_a_minute_later() -> None:
    door = Admission()
    sources = [f"evil{number}" for number in range(200)]
    for minute in (0.0, 60.0, 120.0):
        admitted(door, sources, minute, 60, 2)
        assert door.admit("new", minute + 60)
        assert not door.admit("new", minute + 60)


def test_members_addresses_have_a_share_of_their_own() -> None:
    door = Admission()
    door.vouch("home", 0.0)
    for second in range(5):
        admitted(door, [f"evil{second}-{number}" for number in range(500)], float(second), 1, 1)
    assert not door.admit("new", 4.0)
    assert all(door.admit("home", 4.0) for _ in range(100))
    assert door.vouched() == ["home"]
    # It is lost a month after the last member came from there.
    admitted(door, [f"late{number}" for number in range(500)], MEMBER_SECONDS, 1, 1)
    assert not door.admit("home", MEMBER_SECONDS)


def test_the_memory_is_bounded() -> None:
    door = Admission()
    for number in range(30_000):
        door.vouch(str(number), 0.0)
        door.admit(f"x{number}", 0.0)
    assert len(door._vouched) <= 10_000
    assert len(door.strangers._admitted) <= 10_000
    assert len(door.stranger._left) <= 20_000


def test_who_was_in_once_cannot_lock_members_out() -> None:
    """From many addresses that it vouched for, an evicted member connects as fast as it can."""
    door = Admission()
    evil = [f"evil{number}" for number in range(200)]
    for source in (*evil, "home"):
        door.vouch(source, 0.0)
    for second in range(60):
        flood = admitted(door, evil, float(second), 1, 5)
        assert second < 10 or sum(flood.values()) <= 45
        assert second % 10 or door.admit("home", second + 0.999)


def test_one_site_has_a_part() -> None:
    """A /48 of IPv6 holds 65,536 sources, and is one customer's."""
    door = Admission()
    evil = [f"/ip6/2001:db8:1:{number:x}::/64" for number in range(5000)]
    assert sum(admitted(door, evil, 0.0, 60, 1).values()) <= 30 + 60 * 4
    assert door.admit("/ip6/2001:db8:2::/64", 60.0)
    assert door.admit("/ip4/192.0.2.1", 60.0)
