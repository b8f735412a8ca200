"""Machines on one switch.

    with Rack(directory) as rack:
        one, two = rack.machine("one", base), rack.machine("two", base)
        one.boot()
        one.run("ping two")

The switch leads nowhere else: the machines, the test, and whoever the test plugs in.
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

from tests.netns.keeper import Keeper
from tests.netns.link import End
from tests.netns.namespace import Namespace
from tests.netns.switch import Switch
from tests.system.machine import Machine

_NETWORK = "192.168.50"


class Rack:
    """Machines that last as long as the ``with``, and end a moment after its process, however that ends."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.machines: list[Machine] = []
        self._keeper = Keeper()
        self._hosts = 0
        try:
            self._switch = Switch(Namespace("switch", self._keeper))
        except BaseException:
            self._keeper.close()
            raise

    def __enter__(self) -> Rack:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def plug(self, name: str) -> tuple[Namespace, str]:
        """One more network namespace on the switch, and its address there."""
        namespace = Namespace(name, self._keeper)
        self._hosts += 1
        self._switch.plug(End(namespace, "eth0"), f"port{self._hosts}")
        address = f"{_NETWORK}.{self._hosts + 9}"
        namespace.ip(f"address add {address}/24 dev eth0")
        return namespace, address

    def machine(self, name: str, *layers: Path, nests: bool = False) -> Machine:
        """One more machine, off, with these file systems, upper ones first; for containers where it nests."""
        namespace, address = self.plug(name)
        machine = Machine(self.directory, name, namespace, layers, address, nests=nests)
        self.machines.append(machine)
        return machine

    def close(self) -> None:
        """Cut the power of all."""
        for machine in self.machines:
            machine.close()
        self._keeper.close()
