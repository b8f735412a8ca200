"""A short form of ``make bench``: all its parts run, and what comes out is whole. No time is judged."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench import fleet, forwarders, forwarding, forwardreport, lossypath, usage
from bench.forwarders import Forwarder, Route
from bench.loads import Loads, build, load, target
from bench.processes import BenchError, Processes, processes

ROOT = Path(__file__).parents[2]
# Where `make bench` keeps matplotlib: without it there is all but the chart.
SITE = ROOT / "build/bench/site"


def start(out: Path, *words: str) -> subprocess.Popen[str]:
    """The benchmark as a process of its own: it sets limits and signals."""
    return subprocess.Popen(
        [sys.executable, "-m", "bench.forwarding", "--rounds", "1", "--seconds", "0.1", "--out", out, *words],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([os.environ.get("PYTHONPATH", ""), str(SITE)])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.requires("ssh", "sshd")
def test_the_whole_benchmark_in_short(tmp_path: Path) -> None:
    tests = "idle,up1,down16,echo,beside-up1,connect16"
    with start(tmp_path, "--only", "hive,direct,ssh-gcm", "--tests", tests, "--idle", "20") as running:
        _, said = running.communicate(timeout=100)
    assert running.returncode == 0, said
    document = json.loads((tmp_path / "forwarding.json").read_text())
    assert not [sample for sample in document["samples"] if "failed" in sample]
    found = document["summary"]
    assert set(found) == set(tests.split(","))
    for of in found.values():
        assert set(of) == {"hive", "direct", "ssh-gcm"}
    for test, field in (("up1", "mb_s"), ("down16", "mb_s"), ("echo", "p50_us"), ("connect16", "a_second")):
        assert all(of[field]["median"] > 0 for of in found[test].values()), found[test]
    assert found["beside-up1"]["hive"]["bulk_mb_s"]["median"] > 0
    assert found["up1"]["hive"]["cpu_s_gib"]["median"] > 0
    assert all(of["bytes"]["least"] >= 16 << 20 for of in found["up1"].values())
    table = (tmp_path / "forwarding.md").read_text()
    assert "| up, 1 connection, MB/s | " in table
    assert "failed" not in table
    assert " reached |" in table
    assert (tmp_path / "forwarding.png").exists() == SITE.exists()


@pytest.mark.requires("ssh", "sshd")
def test_all_that_it_started_ends_with_it(tmp_path: Path) -> None:
    """Also when it is stopped in the middle of a test."""
    words = ("--only", "direct,ssh-gcm", "--tests", "echo,up1", "--rounds", "99")
    with start(tmp_path, *words) as running, contextlib.ExitStack() as stack:
        assert running.stderr is not None
        for line in running.stderr:
            if '"up1"' in line:
                break
        watched = []
        for pid in usage.tree(running.pid):
            with contextlib.suppress(ProcessLookupError):
                watched.append(os.pidfd_open(pid))
                stack.callback(os.close, watched[-1])
        running.send_signal(signal.SIGTERM)
        running.communicate(timeout=30)
        # The benchmark itself, ssh, two sshd, a target.
        assert len(watched) >= 5
        # A pidfd becomes readable when its process ends (pidfd_open(2)).
        assert all(select.select([fd], [], [], 10)[0] for fd in watched)
    assert running.returncode == 143


@contextlib.contextmanager
def broken(directory: Path, started: Processes, route: Route, port: int) -> Iterator[Forwarder]:
    """A forwarder that nobody answers behind."""
    yield Forwarder(1)


def test_what_fails_is_noted_and_the_rest_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[Path] = []

    @contextlib.contextmanager
    def absent(directory: Path, started: Processes, route: Route, port: int) -> Iterator[Forwarder]:
        """One that does not start."""
        tried.append(directory)
        raise BenchError("it is not installed")
        yield Forwarder(1)

    monkeypatch.setitem(forwarders.FORWARDERS, "socat", broken)
    monkeypatch.setitem(forwarders.FORWARDERS, "kubo", absent)
    build()
    lines: list[str] = []
    tests = ("up1", "echo", "beside-up1", "connect1")
    run = forwarding.Run(3, ("direct", "socat", "kubo"), tests, Loads(0.05), lines.append)
    run.all()
    assert [json.loads(line) for line in lines] == run.samples
    assert len(run.samples) == 3 * 4 * 3
    found = forwardreport.summary(run.samples)
    assert found["echo"]["direct"]["failed"] == 0
    assert found["echo"]["direct"]["p50_us"]["rounds"] == 3
    assert found["echo"]["socat"] == {"failed": 3, "why": "load: cannot connect: Connection refused"}
    assert found["up1"]["kubo"]["failed"] == 3
    assert run.samples[2]["failed"] == "it is not installed"
    # It is not started for ever, nor left at the first failure; the third round does not test it any more.
    assert len(tried) == 2 * fleet.STARTS + 1


@pytest.mark.requires("tun")
def test_the_long_path_is_long_and_lossy(tmp_path: Path) -> None:
    build()

    def over(loss: float, test: str, *numbers: float) -> dict[str, Any]:
        directory = tmp_path / f"{test}-{loss}"
        directory.mkdir()
        with (
            lossypath.path(directory / "path", 0.05, loss, 1) as path,
            processes(directory / "log") as started,
        ):
            port = target(started, path.far, lossypath.FAR)
            return load(test, port, *numbers, namespace=path.near, address=lossypath.FAR)

    calm = over(0, "echo", 5, 10)
    assert calm["p50_us"] >= 50_000
    # A lost packet of an echo waits for a retransmission.
    assert over(0.15, "echo", 12, 30)["max_us"] >= 2 * calm["p50_us"]
