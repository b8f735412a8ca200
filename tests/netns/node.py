"""A real hived in a network namespace."""

from __future__ import annotations

from pathlib import Path

from tests.integration.nodes import Node
from tests.netns.namespace import Namespace

PORT = 4483


class PlacedNode(Node):
    """A hived that runs in a namespace; ``ctl`` finds it as any other, for its socket is a file."""

    def __init__(
        self, directory: Path, name: str, namespace: Namespace, *flags: str, listen: tuple[str, ...]
    ) -> None:
        super().__init__(directory, name, *flags)
        self.namespace, self.listen = namespace, listen
        self.env["HIVED_MDNS"] = "on"

    def command(self, *extra: str) -> list[str]:
        # In a session of its own: Ctrl-C at a terminal is not for it. The process ID stays.
        return ["setsid", *self.namespace.inside, *super().command(*extra)]
