"""Compile the data plane with mypyc: scripts/native.py [FOLDER], by default hived/_native.

What runs is what the sources say, faster: the same modules, classes and tests. hived takes the result only
while the sources are the ones it was made from (hived/transport/native.py).
"""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

TREE = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TREE))

from hived.transport.native import FOLDER, LIBRARY, MANIFEST, ROOT, SUFFIX, digests  # noqa: E402

# What the data plane's thread runs for each message or new connection.
MODULES = [
    f"{room}/{name}.py"
    for room, names in {
        "transport": (
            "budget bytequeue carrier departed frames greeting inbox joint keepalive limits mailbox outbox"
            " plane reader records session socketend splice stream suites tunnel writer"
        ),
        "proxy": "acceptor counters egressend header ingressend",
    }.items()
    for name in names.split()
]
_SETUP = """
from mypyc.build import mypycify
from setuptools import setup

setup(
    name="hive-native",
    packages=[],
    py_modules=[],
    ext_modules=mypycify({modules!r}, opt_level="3", group_name="hive_native", target_dir={target!r}),
    script_args=["-q", "build_ext", "--build-lib", {target!r}, "--build-temp", {target!r}],
)
"""


def refused(source: str) -> list[tuple[int, str]]:
    """Lines that mypyc 2.4 compiles to something else than they say, and what to write instead."""
    tree = ast.parse(source)
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Slice):
            bounds = [bound for bound in (node.lower, node.upper, node.step) if bound is not None]
            if any(_calls(bound) for bound in bounds):
                found.append((bounds[0].lineno, "call it first, then slice: it would be called twice"))
        elif isinstance(node, ast.FunctionDef):
            caught: dict[str, str] = {}
            for handler in ast.walk(node):
                if isinstance(handler, ast.ExceptHandler) and handler.name and handler.type:
                    kind = ast.unparse(handler.type)
                    if caught.setdefault(handler.name, kind) != kind:
                        found.append(
                            (handler.lineno, f"another name for this {handler.name}: its type would clash")
                        )
    return found


def _calls(expression: ast.expr) -> bool:
    calls = (node for node in ast.walk(expression) if isinstance(node, ast.Call))
    return any(not (isinstance(call.func, ast.Name) and call.func.id == "len") for call in calls)


def main() -> int:
    """Check, compile, and put the result in its place in one step."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else FOLDER).resolve()
    for name in MODULES:
        for line, instead in refused((ROOT / name).read_text()):
            print(f"native: hived/{name}:{line}: {instead}")
            return 1
    before = digests(ROOT, MODULES)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".native-") as scratch:
        built = Path(scratch) / "built"
        setup = _SETUP.format(modules=[f"hived/{name}" for name in MODULES], target=str(built))
        done = subprocess.run(
            [sys.executable, "-c", setup],
            cwd=TREE,
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        if done.returncode:
            sys.stdout.write(done.stdout.decode(errors="replace"))
            print("native: the compiler failed; hived runs as Python without it")
            return 1
        result = Path(scratch) / "result"
        for name in MODULES:
            target = (result / name).with_suffix(SUFFIX)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(built / "hived" / Path(name).with_suffix(SUFFIX), target)
        shutil.copy(built / (LIBRARY + SUFFIX), result)
        files = [str(file.relative_to(result)) for file in result.rglob("*" + SUFFIX)]
        manifest = {"suffix": SUFFIX, "sources": before, "files": digests(result, files)}
        (result / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
        if folder.exists():
            shutil.rmtree(folder)
        result.rename(folder)
    print(f"native: {len(MODULES)} modules compiled into {os.path.relpath(folder, TREE)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
