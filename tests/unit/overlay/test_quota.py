"""Token buckets, and who may make how many new authors known."""

from __future__ import annotations

from hived.overlay.quota import HOUR, MAX_FIRST_AUTHORS, MAX_NEW_AUTHORS, Allowance, Introductions


def taken(bucket: Allowance, key: str, now: float, tries: int = 1000) -> int:
    return sum(bucket.take(key, now) for _ in range(tries))


def test_a_burst_then_a_rate() -> None:
    bucket = Allowance(burst=5, rate=0.5)
    assert taken(bucket, "a", 0.0) == 5
    assert taken(bucket, "a", 1.9) == 0
    assert taken(bucket, "a", 2.0) == 1
    assert taken(bucket, "b", 2.0) == 5
    assert taken(bucket, "a", 1000.0) == 5


def test_a_charge_may_go_below_nothing_but_not_for_ever() -> None:
    bucket = Allowance(burst=5, rate=1)
    bucket.charge("a", 0.0, 1000)
    assert bucket.left("a", 0.0) == -5
    assert not bucket.take("a", 5.0)
    assert bucket.take("a", 6.0)


def test_keys_do_not_grow_without_bound() -> None:
    bucket = Allowance(burst=1, rate=0)
    for number in range(30_000):
        bucket.take(number, 0.0)
    assert len(bucket._left) <= 20_000
    assert not bucket.take(29_999, 0.0)


def introduced(quota: Introductions, member: str, now: float, touch: float, network: str = "net") -> int:
    return sum(quota.allow(network, member, f"{member}{number}", now, touch) for number in range(11_000))


def test_a_hundred_an_hour_from_each_member_of_each_network() -> None:
    quota, long = Introductions(), HOUR * 5
    assert introduced(quota, "a", 0.0, long) == MAX_NEW_AUTHORS
    assert introduced(quota, "b", 0.0, long) == MAX_NEW_AUTHORS
    assert introduced(quota, "a", 0.0, long, "other") == MAX_NEW_AUTHORS
    assert introduced(quota, "a", HOUR / 2, long) == MAX_NEW_AUTHORS // 2
    assert introduced(quota, "a", HOUR * 3, long) == MAX_NEW_AUTHORS


def test_a_newcomer_may_be_told_of_many() -> None:
    quota = Introductions()
    assert introduced(quota, "a", 0.0, 0.0) == MAX_FIRST_AUTHORS
    assert introduced(quota, "a", 0.0, HOUR + 1) == MAX_NEW_AUTHORS


def test_itself_does_not_count() -> None:
    quota = Introductions()
    introduced(quota, "a", 0.0, HOUR * 2)
    assert quota.allow("net", "a", "a", 0.0, HOUR * 2)
