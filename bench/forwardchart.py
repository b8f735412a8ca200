"""The chart of the forwarders: throughput, echo, new connections and memory, a panel each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.forwardreport import NAMES

COLOURS = {
    "direct": "#c9c9c9",
    "socat": "#9a9a9a",
    "ssh": "#8fb3d9",
    "ssh-gcm": "#4a7fb5",
    "kubo": "#e0a030",
    "stock": "#7a4a9a",
    "hive": "#e59866",
    "hive-native": "#c0392b",
}
# Title, field, whether the axis is logarithmic, and its tests with what they are called there.
PANELS = (
    ("bulk, MB/s", "mb_s", False, {"up1": "up 1", "down1": "down 1", "up16": "up 16", "down16": "down 16"}),
    (
        "64-byte echo, p50, us",
        "p50_us",
        True,
        {"echo": "alone", "beside-up1": "beside 1", "beside-up16": "beside 16"},
    ),
    ("new connections a second", "a_second", False, {"connect1": "in turn", "connect16": "16 at once"}),
    ("CPU, s/GiB", "cpu_s_gib", False, {"up1": "up 1", "up16": "up 16"}),
    ("memory, an idle connection, KiB", "worse_kib", False, {"idle": "the larger end"}),
    (
        "80 ms, 1 % loss: echo, p50, us",
        "p50_us",
        False,
        {"lossy-echo": "alone", "lossy-beside": "beside 1 upload"},
    ),
)


def chart(document: dict[str, Any], path: Path) -> None:
    """Bars of the medians with lines from the least to the most; a panel without a sample is left out."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    found = document["summary"]
    panels = [panel for panel in PANELS if any(test in found for test in panel[3])]
    across = min(3, max(1, len(panels)))
    down = max(1, -(-len(panels) // across))
    figure, grid = pyplot.subplots(down, across, figsize=(3.6 * across, 2.7 * down + 0.4), squeeze=False)
    for axes in list(grid.flat)[len(panels) :]:
        axes.set_visible(False)
    for axes, (title, field, logarithmic, tests) in zip(grid.flat, panels, strict=False):
        _panel(axes, found, field, tests)
        axes.set_title(title, fontsize=9)
        if logarithmic:
            axes.set_yscale("log")
    bars = {name: colour for name, colour in COLOURS.items() if any(name in of for of in found.values())}
    handles = [pyplot.Rectangle((0, 0), 1, 1, color=colour) for colour in bars.values()]
    labels = [NAMES[name] for name in bars]
    figure.legend(handles, labels, loc="lower center", ncol=len(bars), frameon=False, fontsize=8)
    figure.tight_layout(rect=(0, 0.4 / (2.7 * down + 0.4), 1, 1))
    figure.savefig(path, dpi=90, metadata={"Software": None})
    pyplot.close(figure)


def _panel(axes: Any, found: dict[str, Any], field: str, tests: dict[str, str]) -> None:
    tests = {test: label for test, label in tests.items() if test in found}
    names = [name for name in COLOURS if any(found[test].get(name, {}).get(field) for test in tests)]
    if field in ("mb_s", "a_second"):
        # Several times as fast as all that does something, whose bars would vanish beside it.
        names = [name for name in names if name != "direct"]
    width = 0.8 / max(1, len(names))
    for place, name in enumerate(names):
        for at, test in enumerate(tests):
            values = found[test].get(name, {}).get(field)
            if not values or not values["median"]:
                continue
            below, above = values["median"] - values["least"], values["most"] - values["median"]
            axes.bar(
                at + (place - (len(names) - 1) / 2) * width,
                values["median"],
                width,
                color=COLOURS[name],
                yerr=[[below], [above]],
                error_kw={"linewidth": 0.7, "ecolor": "#333333"},
            )
    axes.set_xticks(range(len(tests)), list(tests.values()), fontsize=8)
    axes.tick_params(axis="y", labelsize=8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
