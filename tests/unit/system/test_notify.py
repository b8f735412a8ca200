"""What a service manager is told."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import pytest

from hived.system.notify import Notifier
from tests.unit.system.manager import service_manager


def test_states_are_those_of_sd_notify(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with service_manager(tmp_path, monkeypatch) as manager:
        notifier = Notifier()
        assert notifier.listened_to
        notifier.ready()
        notifier.status("two\nlines")
        notifier.stopping()
        notifier.alive()
        assert [manager.hears()[0] for _ in range(4)] == [
            "READY=1",
            "STATUS=two lines",
            "STOPPING=1",
            "WATCHDOG=1",
        ]
        before = time.monotonic_ns() // 1000
        notifier.reloading()
        state, _, when = manager.hears()[0].partition("\nMONOTONIC_USEC=")
        assert state == "RELOADING=1"
        assert before <= int(when) <= time.monotonic_ns() // 1000


def test_a_socket_goes_to_the_store_and_out_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        service_manager(tmp_path, monkeypatch) as manager,
        socket.create_server(("127.0.0.1", 0)) as listener,
    ):
        notifier = Notifier()
        notifier.keep("egress_127.0.0.1_80", listener)
        said, fds = manager.hears()
        assert said == "FDSTORE=1\nFDNAME=egress_127.0.0.1_80"
        with socket.socket(fileno=fds[0]) as copy:
            assert copy.getsockname() == listener.getsockname()
        notifier.release("egress_127.0.0.1_80")
        assert manager.hears()[0] == "FDSTOREREMOVE=1\nFDNAME=egress_127.0.0.1_80"


def test_children_are_not_services(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with service_manager(tmp_path, monkeypatch, watchdog=3):
        notifier = Notifier()
        assert notifier.watchdog == 3.0
        assert not {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} & os.environ.keys()


@pytest.mark.parametrize(("micros", "pid"), [("", None), ("0", None), ("x", None), ("3000000", 1)])
def test_no_watchdog(monkeypatch: pytest.MonkeyPatch, micros: str, pid: int | None) -> None:
    """None is asked for, or it is asked of another process."""
    monkeypatch.setenv("WATCHDOG_USEC", micros)
    if pid is not None:
        monkeypatch.setenv("WATCHDOG_PID", str(pid))
    assert Notifier().watchdog is None


def test_without_a_manager_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notifier = Notifier()
    assert not notifier.listened_to
    notifier.ready()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        notifier.keep("egress_127.0.0.1_80", listener)


def test_a_manager_that_is_gone_is_no_reason_to_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with service_manager(tmp_path, monkeypatch) as manager:
        notifier = Notifier()
        manager.close()
        notifier.ready()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            notifier.keep("egress_127.0.0.1_80", listener)
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    assert not Notifier().listened_to
