"""Whatever has started hived and waits for news of it: systemd, a caller in a shell, or nobody."""

from __future__ import annotations

from collections.abc import Callable

from .dbusunit import Unit
from .notify import Notifier
from .sockets import Sockets, handed_over


class Manager:
    """It outlives a node that starts anew. ``ready`` is called at each start."""

    def __init__(self, ready: Callable[[], None] = lambda: None) -> None:
        self.notifier = Notifier()
        self.sockets = Sockets(self.notifier, handed_over())
        self.unit = Unit()
        self._ready = ready
        self.was_ready = False

    def ready(self) -> None:
        """Everything listens."""
        self.was_ready = True
        self.sockets.sweep()
        self.notifier.ready()
        self._ready()
