"""What is known of the unit, where there is none; with systemd: tests/system."""

from __future__ import annotations

import os

import pytest
from trio.testing import trio_test

from hived.system.dbusunit import Unit, under_systemd


def test_only_the_process_that_systemd_started_is_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell that a service has started passes the variable on."""
    monkeypatch.delenv("SYSTEMD_EXEC_PID", raising=False)
    assert not under_systemd()
    monkeypatch.setenv("SYSTEMD_EXEC_PID", str(os.getppid()))
    assert not under_systemd()
    monkeypatch.setenv("SYSTEMD_EXEC_PID", str(os.getpid()))
    assert under_systemd()


@trio_test
async def test_a_bus_that_is_not_there_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYSTEMD_EXEC_PID", str(os.getpid()))
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent/bus")
    assert await Unit().state() is None


@trio_test
async def test_without_systemd_nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SYSTEMD_EXEC_PID", raising=False)
    assert await Unit().state() is None
