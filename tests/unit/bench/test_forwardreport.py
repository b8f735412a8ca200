"""Samples to medians, ratios and verdicts."""

from __future__ import annotations

from typing import Any

import pytest

from bench import forwardreport
from bench.forwarding import ALL_TESTS, chosen
from bench.forwardreport import GOALS, ROWS, TITLES, Goal, ratio, reached, summary, table


def samples(test: str, name: str, field: str, *values: float | str) -> list[dict[str, Any]]:
    """One sample a round; a text is why it failed."""
    return [
        {"round": number, "test": test, "forwarder": name}
        | ({"failed": value} if isinstance(value, str) else {field: value})
        for number, value in enumerate(values)
    ]


def document(found: list[dict[str, Any]], **left_out: str) -> dict[str, Any]:
    about = {"processor": "P", "cores": 2, "kernel": "6", "load_average": 0.25}
    versions = {"hive": "hived 1", "socat": None}
    return {
        "command": "make bench",
        "machine": about,
        "versions": versions,
        "left_out": left_out,
        "samples": found,
        "summary": summary(found),
    }


def test_median_and_spread() -> None:
    found = summary(samples("up1", "hive", "mb_s", 5.0, 1.0, "broke", 3.0))
    assert found["up1"]["hive"]["mb_s"] == {"median": 3.0, "least": 1.0, "most": 5.0, "rounds": 3}
    assert found["up1"]["hive"]["failed"] == 1


def test_ratios_are_of_medians() -> None:
    found = samples("up1", "hive", "mb_s", 100.0, 300.0, 120.0) + samples(
        "up1", "ssh-gcm", "mb_s", 90.0, 100.0, 400.0
    )
    goal = Goal("up1", "mb_s", 1.1, ("ssh-gcm",), least=True)
    assert ratio(summary(found), goal) == (1.2, "ssh -L aes128-gcm")
    assert reached(goal, 1.1)
    assert not reached(goal, 1.09)
    assert not reached(Goal("echo", "p50_us", 1.25, ("ssh-gcm",)), 1.26)


def test_the_better_of_two_counts() -> None:
    goal = next(goal for goal in GOALS if goal.test == "connect16")
    found = samples("connect16", "hive", "a_second", 90.0) + samples("connect16", "ssh", "a_second", 100.0)
    assert ratio(summary(found), goal) == (0.9, "ssh -L")
    found += samples("connect16", "ssh-gcm", "a_second", 180.0)
    assert ratio(summary(found), goal) == (0.5, "ssh -L aes128-gcm")


def test_what_is_compared_with_itself_or_with_nothing() -> None:
    found = samples("beside-up1", "hive", "p50_us", 450.0) + samples("echo", "hive", "p50_us", 150.0)
    goal = next(goal for goal in GOALS if goal.test == "beside-up1")
    assert ratio(summary(found), goal) == (3.0, "its own idle figure")
    idle = next(goal for goal in GOALS if goal.field == "far_kib")
    assert ratio(summary(samples("idle", "hive", "far_kib", 3.5)), idle) == (3.5, "")
    assert ratio(summary(samples("idle", "hive", "far_kib", "broke")), idle) is None


def test_the_table_says_what_failed_and_what_is_not_reached() -> None:
    found = samples("up1", "hive", "mb_s", 90.0, 110.0) + samples("up1", "ssh-gcm", "mb_s", 100.0, 100.0)
    found += samples("up1", "kubo", "mb_s", "not installed", "not installed")
    found += samples("echo", "hive", "p50_us", 1500.0, "broke") + samples("echo", "ssh-gcm", "p50_us", 1300.0)
    found += [{**sample, "p99_us": 1.0} for sample in found if "p50_us" in sample]
    text = table(document(found, **{"lossy-up1": "not run as root"}))
    assert "| | ssh -L aes128-gcm | Kubo p2p | Hive |" in text
    assert "| up, 1 connection, MB/s | 100 (100 to 100) | failed | 100 (90 to 110) |" in text
    assert "1,500 (1,500 to 1,500), 1 failed" in text
    assert "- Kubo p2p failed: not installed (up, 1 connection)" in text
    assert "- 80 ms, 1 % loss: up, 1 connection: left out, not run as root." in text
    assert "| up, 1 connection, MB/s | ssh -L aes128-gcm | at least 1.1 | 1.00 | NOT reached |" in text
    assert "| echo alone, p50, us | ssh -L aes128-gcm | at most 1.25 | 1.15 | reached |" in text
    assert "| up, 1 connection, MB/s | Kubo p2p | at least 2 | | not measured |" in text
    assert "socat" not in text


def test_both_forms_of_hive_are_judged() -> None:
    found = samples("echo", "hive", "p50_us", 130.0) + samples("echo", "hive-native", "p50_us", 120.0)
    found += samples("echo", "ssh-gcm", "p50_us", 100.0)
    found = [{**sample, "p99_us": 1.0} for sample in found]
    text = table(document(found))
    assert "| | to | promised | Hive | | Hive, compiled | |" in text
    assert "| ssh -L aes128-gcm | at most 1.25 | 1.30 | NOT reached | 1.20 | reached |" in text


def test_each_row_and_goal_belongs_to_a_test() -> None:
    assert {row.test for row in ROWS} == set(TITLES) == set(ALL_TESTS)
    assert {(goal.test, goal.field) for goal in GOALS} <= {(row.test, row.field) for row in ROWS}


def test_the_command_can_be_typed_again() -> None:
    assert forwardreport.command(["--out", "bench/results"]) == "make bench"
    words = ["--rounds", "1", "--out", "x", "--only", "hive"]
    assert forwardreport.command(words) == "make bench ARGS='--rounds 1 --only hive'"


def test_parts_are_chosen_by_name() -> None:
    assert chosen("echo,up1", ("up1", "down1", "echo")) == ("up1", "echo")
    with pytest.raises(Exception, match="no 'ech'; there are up1, echo"):
        chosen("ech", ("up1", "echo"))
