"""Tests that cannot run here are named with their reason; with CI=true they fail instead.

The rule holds for every skip, whether it comes from ``@pytest.mark.requires(...)`` or from ``pytest.skip``.
"""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest

# The tests are of the sources; test_native.py is of their compiled form.
os.environ.setdefault("HIVE_NATIVE", "off")

from tests.needs import missing


def _strict() -> bool:
    return os.environ.get("CI", "").lower() in {"true", "1"}


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    """The skip's reason: pytest keeps it as (file, line, "Skipped: REASON")."""
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return text.removeprefix("Skipped: ")


def _fail_if_strict(report: pytest.TestReport | pytest.CollectReport) -> None:
    if report.skipped and _strict() and not hasattr(report, "wasxfail"):
        report.longrepr = f"left out, and CI=true allows none: {_reason(report)}"
        report.outcome = "failed"


def pytest_runtest_setup(item: pytest.Item) -> None:
    names = [name for mark in item.iter_markers("requires") for name in mark.args]
    if item.get_closest_marker("root"):
        names.append("root")
    for name in names:
        try:
            reason = missing(name)
        except KeyError:
            pytest.fail(f"requires({name!r}): tests/needs.py knows no such need", pytrace=False)
        if reason:
            pytest.skip(reason)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _fail_if_strict(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _fail_if_strict(report)
    return report


def _tell_figures(terminalreporter: pytest.TerminalReporter) -> None:
    """What tests have measured, without a judgement: ``record_property("figure", "NAME: VALUE")``."""
    figures = [
        value
        for report in terminalreporter.stats.get("passed", [])
        for name, value in report.user_properties
        if name == "figure" and report.when == "call"
    ]
    if figures:
        terminalreporter.section("figures")
        for figure in figures:
            terminalreporter.line(str(figure))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    _tell_figures(terminalreporter)
    left_out = [
        report for report in terminalreporter.stats.get("skipped", []) if not hasattr(report, "wasxfail")
    ]
    if not left_out:
        return
    terminalreporter.section(f"left out: {len(left_out)}")
    # A whole lab that cannot be here is a hundred tests.
    alike: dict[tuple[str, str], list[str]] = {}
    for report in left_out:
        alike.setdefault((report.nodeid.split("::")[0], _reason(report)), []).append(report.nodeid)
    for (file, reason), names in alike.items():
        terminalreporter.line(f"{names[0] if len(names) == 1 else f'{file}, {len(names)} tests'}: {reason}")
