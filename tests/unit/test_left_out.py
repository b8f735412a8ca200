"""tests/conftest.py itself, run on small suites: what cannot run is named, and fails in CI."""

from __future__ import annotations

from pathlib import Path

import pytest

CONFTEST = Path(__file__).parents[1] / "conftest.py"
ROOT = CONFTEST.parents[1]

pytest_plugins = ["pytester"]

SUITE = """
import pytest

@pytest.mark.requires("unicorn")
def test_needs_a_unicorn():
    raise AssertionError("must not run")

def test_skips_by_itself():
    pytest.skip("no moon tonight")

@pytest.mark.xfail(reason="known")
def test_known():
    raise AssertionError

def test_runs():
    pass
"""


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A suite with our conftest, in which the need "unicorn" is known and absent."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delenv("CI", raising=False)
    pytester.makeini("[pytest]\nmarkers =\n    requires\n    root\n")
    pytester.makeconftest(
        CONFTEST.read_text()
        + "\nimport tests.needs\n"
        + "tests.needs._PROBES['unicorn'] = lambda: 'no unicorn here'\n"
    )
    return pytester


def test_names_what_it_leaves_out(suite: pytest.Pytester) -> None:
    suite.makepyfile(SUITE)
    result = suite.runpytest_subprocess()
    result.assert_outcomes(passed=1, skipped=2, xfailed=1)
    result.stdout.fnmatch_lines(
        [
            "*left out: 2*",
            "*::test_needs_a_unicorn: no unicorn here",
            "*::test_skips_by_itself: no moon tonight",
        ]
    )
    assert result.ret == 0


def test_names_a_file_once(suite: pytest.Pytester) -> None:
    suite.makepyfile(
        'import pytest\n@pytest.mark.requires("unicorn")\n@pytest.mark.parametrize("n", [1, 2, 3])\n'
        "def test_needs_a_unicorn(n):\n    pass\n"
    )
    suite.runpytest_subprocess().stdout.fnmatch_lines(
        ["*left out: 3*", "test_names_a_file_once.py, 3 tests: no unicorn here"]
    )


def test_fails_in_ci(suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    suite.makepyfile(SUITE)
    result = suite.runpytest_subprocess()
    assert result.ret == 1
    outcomes = result.parseoutcomes()
    # What is missed in the set-up phase counts as an error, a skip in the test's own body as a failure.
    assert (outcomes["passed"], outcomes["errors"], outcomes["failed"]) == (1, 1, 1)
    result.stdout.fnmatch_lines(["*left out, and CI=true allows none: no unicorn here*"])


def test_a_whole_module_left_out_fails_in_ci(suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    suite.makepyfile("import pytest\npytest.skip('nothing of it runs here', allow_module_level=True)\n")
    suite.runpytest_subprocess().stdout.fnmatch_lines(["*left out: 1*", "*: nothing of it runs here"])
    monkeypatch.setenv("CI", "true")
    assert suite.runpytest_subprocess().ret != 0


def test_an_unknown_need_is_an_error(suite: pytest.Pytester) -> None:
    suite.makepyfile("import pytest\n@pytest.mark.requires('typo')\ndef test_it(): pass\n")
    result = suite.runpytest_subprocess()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*tests/needs.py knows no such need*"])
