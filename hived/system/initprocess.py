"""Duties of process 1, which hived is in a container: to heed signals early, and to reap orphans.

The kernel gives process 1 no default action for a signal, and every process whose parent has died.
"""

from __future__ import annotations

import os
import signal

_STOPS = (signal.SIGTERM, signal.SIGINT)


def is_init() -> bool:
    """Whether this is process 1 of its PID namespace."""
    return os.getpid() == 1


def defer_signals() -> None:
    """Have SIGTERM and SIGINT wait for :func:`heed_signals`, also over an exec.

    Process 1 loses a signal that it neither handles nor blocks, and so would start on after a stop.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)


def heed_signals() -> None:
    """SIGTERM and SIGINT end process 1 at once, until the daemon listens for them itself.

    So do those that waited, in any process: the image's entry point defers them before there is a Python.
    Nothing is begun then that kill -9 could not end.
    """
    if is_init():
        for number in _STOPS:
            signal.signal(number, lambda number, frame: os._exit(0))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPS)


async def reap() -> None:
    """Wait for every child that ends. hived starts none itself: they are orphans. Until cancelled."""
    import trio  # not before the flags are known to be right

    with trio.open_signal_receiver(signal.SIGCHLD) as signals:
        _reap_ended()
        async for _ in signals:
            _reap_ended()


def _reap_ended() -> None:
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            return
