"""What a fuzz target is: a function of bytes that raises where hived breaks a promise."""

from __future__ import annotations

import signal
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

T = TypeVar("T")
CORPUS = Path(__file__).parent / "corpus"
INPUT_SECONDS = 10
"""No input may take longer, on the slowest machine that runs the tests."""


@dataclass(frozen=True)
class Target:
    """``run`` takes any bytes up to ``most_bytes``; ``seeds`` are inputs to begin with."""

    name: str
    run: Callable[[bytes], None]
    seeds: Callable[[], list[bytes]]
    most_bytes: int = 4096

    def corpus(self) -> list[Path]:
        """The kept inputs."""
        return sorted((CORPUS / self.name).glob("*"))


class Script:
    """Reads an input as a list of decisions; where it has ended, everything is 0."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        """Whether there is more."""
        return self._at < len(self._data)

    def take(self, count: int) -> bytes:
        part = self._data[self._at : self._at + count]
        self._at += count
        return part

    def byte(self) -> int:
        return (self.take(1) or b"\0")[0]

    def number(self) -> int:
        """16 bits."""
        return self.byte() << 8 | self.byte()

    def piece(self) -> bytes:
        """Bytes with their length in front."""
        return self.take(self.number())

    def rest(self) -> bytes:
        return self.take(len(self._data))


class HangError(Exception):
    """An input took longer than it may."""


@contextmanager
def alarm(seconds: float = INPUT_SECONDS) -> Iterator[None]:
    """Raises HangError in the block after ``seconds``; on the main thread only."""

    def ring(number: int, frame: FrameType | None) -> None:
        raise HangError(f"not done after {seconds} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def at_once(call: Coroutine[Any, Any, T]) -> T:
    """The result of an async call that has nothing to wait for."""
    try:
        call.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    call.close()
    raise AssertionError("it waits")
