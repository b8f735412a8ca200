"""How many nodes one member may make known."""

from __future__ import annotations

from hived.overlay.quota import MAX_NEW_AUTHORS, WINDOW_SECONDS, Introductions


def test_a_hundred_an_hour_from_each_member_of_each_network() -> None:
    quota = Introductions()
    assert all(quota.allow("net", "mallory", f"a{n}", 0.0) for n in range(MAX_NEW_AUTHORS))
    assert not quota.allow("net", "mallory", "one more", WINDOW_SECONDS)
    assert quota.allow("net", "alice", "one more", 0.0)
    assert quota.allow("other", "mallory", "one more", 0.0)
    assert quota.allow("net", "mallory", "one more", WINDOW_SECONDS + 0.1)


def test_one_line_an_hour() -> None:
    quota = Introductions()
    for hour in (0.0, WINDOW_SECONDS + 1.0):
        for number in range(MAX_NEW_AUTHORS):
            assert quota.allow("net", "mallory", f"a{number}", hour)
        assert not quota.allow("net", "mallory", "one more", hour)
        assert quota.worth_a_line("net", "mallory")
        assert not quota.allow("net", "mallory", "one more", hour)
        assert not quota.worth_a_line("net", "mallory")


def test_itself_does_not_count() -> None:
    quota = Introductions()
    assert all(quota.allow("net", "alice", "alice", 0.0) for _ in range(MAX_NEW_AUTHORS))
    assert quota.allow("net", "alice", "bob", 0.0)
