"""py-libp2p without what its packages import for themselves.

Importing ``libp2p`` imports all of it: QUIC, pubsub, a DHT, metrics, HTTP clients; of py-libp2p 0.8.1 that
is 22 MB and a DNS configuration, without which it fails (a container, a rack without DNS). hived uses keys,
IDs, records and messages. So its packages are empty here at first: a module out of one of them is imported
as ever, and a package's own content is made when somebody asks for a name in it.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

_ROOT = "libp2p"


class _Packages(MetaPathFinder):
    """Finds the packages of py-libp2p."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name.partition(".")[0] != _ROOT:
            return None
        spec = PathFinder.find_spec(name, path)
        if spec is not None and spec.loader is not None and spec.submodule_search_locations is not None:
            spec.loader = _Late(spec.loader)
        return spec


class _Late(Loader):
    """Loads a package when it is asked for a name that is no module in it."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        loader, name = self._loader, module.__name__

        def find(wanted: str) -> object:
            if wanted.startswith("__") and wanted != "__version__":
                raise AttributeError(wanted)
            if PathFinder.find_spec(f"{name}.{wanted}", module.__path__) is not None:
                return importlib.import_module(f"{name}.{wanted}")
            if module.__dict__.pop("__getattr__", None) is not None:
                loader.exec_module(module)
            try:
                return module.__dict__[wanted]
            except KeyError:
                raise AttributeError(f"module {name!r} has no attribute {wanted!r}") from None

        module.__dict__["__getattr__"] = find


def import_lean() -> None:
    """From now on. What is imported already stays as it is."""
    if not any(isinstance(finder, _Packages) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Packages())
