"""The compiled form of the data plane: used where it is there, needed nowhere.

``make native`` makes it with mypyc from the same sources as they stand (scripts/native.py), into
``hived/_native``. It is taken only when it was made from exactly the sources beside it and for this
Python; else everything runs as Python. The environment's HIVE_NATIVE names another folder, or is "off".
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import sys
import sysconfig
from functools import cache
from pathlib import Path

# Of ``hived``: its modules by their paths from there.
ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "_native"
MANIFEST = "manifest.json"
# mypyc puts all of the code into one library of this name, and a stub for each module beside it.
LIBRARY = "hive_native__mypyc"
SUFFIX: str = sysconfig.get_config_var("EXT_SUFFIX") or ".so"


def prefer(package: str, path: list[str]) -> None:
    """Let a package's compiled modules be found before those in Python. ``path``: its ``__path__``."""
    folder = found()
    if folder is not None:
        path.insert(0, str(folder / package.rpartition(".")[2]))


@cache
def found() -> Path | None:
    """The folder of the compiled form that is in use; None for none."""
    wanted = os.environ.get("HIVE_NATIVE", "")
    folder = Path(wanted) if wanted else FOLDER
    if wanted == "off" or not _fits(folder):
        return None
    spec = importlib.util.spec_from_file_location(LIBRARY, folder / (LIBRARY + SUFFIX))
    if spec is None or spec.loader is None:
        return None
    try:
        library = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(library)
    except ImportError:
        return None  # of another C library, say: what runs as Python does not mind
    sys.modules[LIBRARY] = library
    return folder


def digests(folder: Path, names: list[str]) -> dict[str, str]:
    """SHA-256 of files, by their paths from ``folder``. Raises OSError."""
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}


def _fits(folder: Path) -> bool:
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        sources, files = manifest["sources"], manifest["files"]
        whole = sources == digests(ROOT, list(sources)) and files == digests(folder, list(files))
        return bool(manifest["suffix"] == SUFFIX and whole)
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return False
