"""The forwarders of one round on loopback: started when first asked for, and anew after one has failed."""

from __future__ import annotations

import contextlib
from pathlib import Path

from bench.forwarders import Forwarder, Route, running
from bench.loads import Loads
from bench.processes import BenchError

# So often one is started in a round.
STARTS = 3


class Fleet:
    """Forwarders to one target; all end with :meth:`close`."""

    def __init__(self, directory: Path, target: int, loads: Loads) -> None:
        self._directory = directory
        self._target = target
        self._loads = loads
        self._alive: dict[str, tuple[Forwarder, contextlib.ExitStack]] = {}
        self._starts: dict[str, int] = {}

    def get(self, name: str) -> Forwarder:
        """A forwarder that runs and is warm; BenchError when it cannot be had."""
        if name not in self._alive:
            count = self._starts[name] = self._starts.get(name, 0) + 1
            if count > STARTS:
                raise BenchError("failed too often in this round")
            with contextlib.ExitStack() as stack:
                inner = self._directory / f"{name}-{count}"
                forwarder = stack.enter_context(running(name, inner, Route(), self._target))
                self._loads.warm(forwarder)
                self._alive[name] = forwarder, stack.pop_all()
        return self._alive[name][0]

    def drop(self, name: str) -> None:
        """End one that failed: what it still does would be in the way of the next test."""
        if name in self._alive:
            self._alive.pop(name)[1].close()

    def close(self) -> None:
        """End all."""
        with contextlib.ExitStack() as stack:
            for name in self._alive:
                stack.callback(self._alive[name][1].close)
        self._alive.clear()
