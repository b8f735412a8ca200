"""What the programs that open something at a person's terminal have in common."""

from __future__ import annotations

import argparse
import signal
import sys
from types import FrameType

from tests.needs import missing


def options(parser: argparse.ArgumentParser, need: str) -> argparse.Namespace:
    """What was typed, with the ``command`` that ends the line; the program ends where ``need`` is not met.

    From now on it also ends in order when the terminal does, or somebody kills it.
    """
    typed = parser.parse_args()
    if reason := missing(need):
        sys.exit(f"{parser.prog}: {reason}. Type: sudo make {parser.prog}")
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stop)
    if typed.command[:1] == ["--"]:
        del typed.command[0]
    return typed


def leave_interrupts() -> None:
    """Ctrl-C at the terminal is for what runs there. A handler, unlike SIG_IGN, is not inherited."""
    signal.signal(signal.SIGINT, lambda *_: None)


def _stop(number: int, _: FrameType | None) -> None:
    sys.exit(128 + number)
