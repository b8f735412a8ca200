"""scripts/manpages.py: the pages hold every command, option and setting, and format without complaint."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from hivectl.cli import root as hivectl
from hivectl.options import GLOBAL_OPTIONS
from hived import config
from hived.cli import cli as hived
from scripts.manpages import TOML, main, pages, settings, text

# 200 columns, no hyphenation and no overstrikes: a row of the page is a line of the text.
GROFF = ["groff", "-man", "-ww", "-Tascii", "-P-cbou", "-rLL=200n", "-rHY=0", "-rCHECKSTYLE=10"]
NAMES = ["hived.8", "hivectl.1", "hived.toml.5"]


@pytest.fixture(scope="module")
def rendered() -> dict[str, str]:
    """The pages as they are read, and no warning while they were formatted."""
    found = {}
    for name, page in pages().items():
        done = subprocess.run([*GROFF, "-"], input=page, capture_output=True, text=True, check=True)
        assert done.stderr == ""
        found[name] = done.stdout
    return found


def told(group: click.Group, path: str) -> Iterator[tuple[str, click.Command]]:
    """(path, command) of all that is under a group."""
    with click.Context(group, info_name=path) as ctx:
        for name in group.list_commands(ctx):
            command = group.get_command(ctx, name)
            assert command is not None
            yield f"{path} {name}", command
            if isinstance(command, click.Group):
                yield from told(command, f"{path} {name}")


def flowing(words: str) -> str:
    """Without line breaks, and without the backticks that became bold."""
    return " ".join(words.replace("`", "").replace("\b", "").split())


@pytest.mark.requires("groff")
@pytest.mark.parametrize(("name", "group"), [("hived.8", hived), ("hivectl.1", hivectl)])
def test_every_command_and_option(rendered: dict[str, str], name: str, group: click.Group) -> None:
    # A heading is indented by three columns, a chapter's not at all, text by more.
    parts = re.split(
        r"^ {3}(?=\S)", re.sub(r"^(?=\S)", "   ", rendered[name], flags=re.MULTILINE), flags=re.MULTILINE
    )
    sections = {part.partition("\n")[0].split(" [")[0]: flowing(part) for part in parts}
    for path, command in told(group, name.split(".")[0]):
        section = sections[path]
        assert flowing(command.help or "") in section
        if same := re.search(r"The options are those of (.*)\.$", section):
            section = sections[same[1]]
        for option in command.params:
            if isinstance(option, click.Option) and not option.hidden:
                place = sections["OPTIONS"] if option in GLOBAL_OPTIONS else section
                for spelling in option.opts:
                    assert re.search(rf"(?<!\S){spelling}(?![^\s,])", place), (path, spelling)
                assert flowing(option.help or "") in place, (path, option.opts)


@pytest.mark.requires("groff")
def test_every_setting(rendered: dict[str, str]) -> None:
    lines = [line.strip() for line in rendered["hived.toml.5"].splitlines()]
    for name in config.setting_names():
        assert any(line.startswith(f"{name} = ") for line in lines), name


@pytest.mark.requires("mandoc")
@pytest.mark.parametrize("name", NAMES)
def test_mandoc_has_no_warning(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(pages()[name])
    done = subprocess.run(
        ["mandoc", "-T", "lint", "-W", "warning", name],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.returncode) == ("", 0)


def test_a_setting_without_a_comment_is_named() -> None:
    toml = TOML.read_text().replace('# mdns = "on"', "")
    with pytest.raises(ValueError, match=r"does not explain mdns$"):
        settings(toml)


@pytest.mark.requires("groff")
def test_text_is_printed_as_it_is() -> None:
    plain = ".TH 'a' `b` \\fB ~^ \"c\" --d\n'quote"
    page = f".TH A 1\n.SH B\n.nf\n{text(plain)}\n"
    done = subprocess.run([*GROFF, "-"], input=page, capture_output=True, text=True, check=True)
    assert (
        plain.splitlines()
        == [line.strip() for line in done.stdout.splitlines() if line.startswith("     ")][:2]
    )


def test_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["manpages.py", str(tmp_path / "man")])
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    assert main() == 0
    assert sorted(path.name for path in (tmp_path / "man").iterdir()) == sorted(NAMES)
    assert '"1970-01-02"' in (tmp_path / "man/hived.8").read_text()
