"""The delays that follow failed passwords; all with a clock of our own."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hived.overlay.guesses import FORGET_SECONDS, MAX_DELAY, MAX_SOURCES, Guesses


def test_delays_grow_to_a_ceiling() -> None:
    guesses = Guesses()
    now, delays = 0.0, []
    for _ in range(12):
        assert guesses.wait("x", now) == 0
        delays.append(guesses.failed("x", now))
        assert guesses.wait("x", now) == delays[-1]
        now += delays[-1]
    assert delays[:8] == [0.5, 1, 2, 4, 8, 16, 32, 60]
    assert set(delays[8:]) == {MAX_DELAY}
    assert guesses.failures("x") == 12


def test_sources_do_not_hinder_each_other() -> None:
    guesses = Guesses()
    guesses.failed("x", 0)
    assert guesses.wait("x", 0) > 0
    assert guesses.wait("y", 0) == 0
    assert guesses.failures("y") == 0


def test_a_try_closes_the_door_while_it_runs() -> None:
    """Who failed before cannot begin many tries at once; who never failed can."""
    guesses = Guesses()
    guesses.begin("x", 0)
    assert guesses.wait("x", 0) == 0
    guesses.failed("x", 0)
    guesses.failed("x", 1)
    assert guesses.wait("x", 2.5) == 0
    guesses.begin("x", 2.5)
    assert guesses.wait("x", 2.5) == 1.0


def test_the_right_password_forgives() -> None:
    guesses = Guesses()
    guesses.failed("x", 0)
    guesses.succeeded("x")
    guesses.succeeded("never seen")
    assert (guesses.wait("x", 0), guesses.failures("x"), guesses.failed("x", 0)) == (0, 0, 0.5)


def test_time_forgives() -> None:
    guesses = Guesses()
    for _ in range(5):
        guesses.failed("x", 0)
    assert guesses.failed("x", FORGET_SECONDS + 1) == 0.5
    guesses.failed("y", 0)
    assert guesses.wait("y", FORGET_SECONDS + 1) == 0
    assert guesses.failures("y") == 0


def test_the_table_is_bounded() -> None:
    """The oldest source goes; a flood of new ones costs no more memory."""
    guesses = Guesses()
    for number in range(MAX_SOURCES + 10):
        guesses.failed(str(number), 0)
    assert guesses.failures("9") == 0
    assert guesses.failures("10") == 1
    assert guesses.failures(str(MAX_SOURCES + 9)) == 1


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["wait", "begin", "failed", "succeeded"]), st.sampled_from("ab"), st.floats(0, 1000)
    )
)


@given(STEPS, st.floats(0.01, 2), st.floats(2, 100))
def test_a_wait_is_never_negative_or_beyond_the_ceiling(
    steps: list[tuple[str, str, float]], first: float, ceiling: float
) -> None:
    guesses, now = Guesses(first, ceiling), 0.0
    for what, source, passed in steps:
        now += passed
        arguments = (source,) if what == "succeeded" else (source, now)
        getattr(guesses, what)(*arguments)
        # The sums of large times round.
        assert 0 <= guesses.wait(source, now) <= ceiling + 1e-6
