"""What all connections together may hold of this process's memory."""

from __future__ import annotations

from .limits import MIB


class Budget:
    """``windows``: all receive windows; ``buffered``: what has come and nobody has taken. In bytes.

    Windows grow only while there is room for all of them. ``pressed``: so much is buffered
    that they shrink again. ``exhausted``: whoever sends more to a stream that nobody reads loses it.
    """

    def __init__(
        self, max_windows: int = 512 * MIB, pressure: int = 64 * MIB, max_buffered: int = 512 * MIB
    ) -> None:
        self.windows = 0
        self.buffered = 0
        self._max_windows = max_windows
        self._pressure = pressure
        self._max_buffered = max_buffered

    def allows(self, growth: int) -> bool:
        """Whether a window may become so many bytes larger."""
        return self.windows + growth <= self._max_windows and not self.pressed

    @property
    def pressed(self) -> bool:
        return self.buffered > self._pressure

    @property
    def exhausted(self) -> bool:
        return self.buffered > self._max_buffered
