"""hived in a container, as docs/containers.md runs it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.integration.nodes import Node, Result
from tests.system import image
from tests.system.podman import Podman

STATE = "/var/lib/hive"
# What the image is made for, and its health check and signals must do with.
LOCKED_DOWN = ("--read-only", "--cap-drop=all", "--security-opt=no-new-privileges")
# Long enough that only a hived that does not stop by itself is killed.
STOP_SECONDS = 60


class Container(Node):
    """A container from the image, with its state in the volume of its name.

    ``options``: more of `podman run`. Its ``log`` is what the container writes.
    """

    def __init__(self, podman: Podman, directory: Path, name: str, *options: str, volume: str = "") -> None:
        super().__init__(directory, name)
        self.podman, self.volume = podman, volume or name
        self._options = options
        self._made = False

    def command(self, *extra: str) -> list[str]:
        """In the foreground: with the container ends its podman, with the same exit code."""
        if self._made:
            return self.podman.command("start", "--attach", self.name)
        self._made = True
        return self.podman.command("run", *self.options, image.NAME, *extra)

    @property
    def options(self) -> list[str]:
        """Those of `podman run`, or of `podman create`."""
        return [
            *("--pull=never", f"--name={self.name}", f"--hostname={self.name}", *LOCKED_DOWN),
            *(f"--volume={self.volume}:{STATE}", "--env=HIVED_MDNS=off", *self._options),
        ]

    def hivectl(self, *arguments: str) -> list[str]:
        return self.podman.command("exec", "--interactive", self.name, "hivectl", *arguments)

    def exec(self, *command: str, user: str = "", check: bool = True) -> Result:
        """Run a command in the container."""
        more = [f"--user={user}"] if user else []
        return self.podman.run("exec", *more, self.name, *command, check=check)

    def inspect(self) -> dict[str, Any]:
        found: list[dict[str, Any]] = self.podman.json("container", "inspect", self.name)
        return found[0]

    def healthy(self) -> bool:
        """What the image's own health check finds."""
        return self.podman.run("healthcheck", "run", self.name, check=False).code == 0

    def stop(self, seconds: float = STOP_SECONDS) -> int:
        """`podman stop`: SIGTERM, and SIGKILL when that has not helped in time; the exit code."""
        assert self.process is not None
        self.podman.run("stop", f"--time={seconds:.0f}", self.name, seconds=seconds + 20)
        return self.process.wait(10)

    def remove(self) -> None:
        """Remove the container, by force if it runs; the volume stays."""
        self.podman.run("rm", "--force", "--time=0", self.name)
        self._made = False
        if self.process is not None:
            self.process.wait(10)

    def close(self) -> None:
        self.remove()
        super().close()
