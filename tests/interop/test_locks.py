"""js/package-lock.json: every package has a version and a hash, and none an address."""

from __future__ import annotations

import json
from pathlib import Path

ROOT = Path(__file__).parent / "js"


def test_the_lock_of_js() -> None:
    text = (ROOT / "package-lock.json").read_text()
    assert "://" not in text
    assert '"resolved"' not in text
    packages = json.loads(text)["packages"]
    wanted = json.loads((ROOT / "package.json").read_text())["dependencies"]
    # The entry without a name is the project itself.
    assert packages.pop("")["dependencies"] == wanted
    for name, package in packages.items():
        assert package["integrity"].startswith("sha512-"), name
    for name, version in wanted.items():
        assert packages[f"node_modules/{name}"]["version"] == version
