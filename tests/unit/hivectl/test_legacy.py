"""Every old spelling of CLI.md becomes its conventional form; conventional lines stay as they are."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

import click
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hivectl import legacy
from hivectl.cli import root
from hived.errors import HiveError, Kind

SPELLINGS = [
    ("login", "login"),
    ("id -base64", "id --base64"),
    ("register -b64 ID -network my-network", "register ID --network my-network"),
    ("register -network my-network -b64 ID", "register ID --network my-network"),
    ("register --b64=ID", "register ID"),
    ("nodes -ls", "nodes ls"),
    ("nodes --ls", "nodes ls"),
    ('proxy --direction egress --target "PEER:1984" --port 8084', "proxy add egress 8084 PEER:1984"),
    ('proxy --direction ingress --origin "PEER:8084" --port 1984', "proxy add ingress PEER:8084 1984"),
    ("proxy -direction egress -target PEER:1984 -port 8084", "proxy add egress 8084 PEER:1984"),
    ("proxy -port=1984 --origin=PEER:8084 -direction=ingress", "proxy add ingress PEER:8084 1984"),
    ("proxy --kind tcp --direction egress --target P:1 --port 2", "proxy add egress 2 P:1"),
    (
        "--json proxy --direction egress --bind 127.0.0.1 --target P:1 --network n --port 2 --node far",
        "--json proxy add egress 2 P:1 --bind 127.0.0.1 --network n --node far",
    ),
    ("-node far -socket /s nodes -ls", "--node far --socket /s nodes ls"),
    ("--network n proxy --direction egress --target P:1 --port 2", "proxy add egress 2 P:1 --network n"),
]

CONVENTIONAL = [
    "",
    "--version",
    "nodes",
    "nodes ls --network n --watch",
    "register ID --network n",
    "proxy add egress 8084 PEER:1984 --bind 127.0.0.1",
    "proxy add ingress PEER:8084 1984 --to localhost",
    "networks join n --password -port",
    "networks join n --password -network",
    "nodes show -- -port",
    "nodes -netwrok n",
    "networks create n --password=-ls",
]

REFUSED = [
    ("proxy --direction ingress -tls true -key-prefix P --origin PEER:443 -port 8080", "no TLS proxies yet"),
    ("proxy add ingress PEER:443 8080 --tls P", "no TLS proxies yet"),
    ("proxy --direction egress --target user:pass --port 2222 --kind ssh", "no SSH proxies yet"),
    ("proxy add ssh 2222 --user U --password-stdin", "no SSH proxies yet"),
    ("proxy --direction egress --port 1", "--direction egress --target TARGET --port PORT"),
    ("proxy --direction sideways --target P:1 --port 1", "--direction ingress --origin ORIGIN --port PORT"),
    ("proxy --direction egress --target P:1 --port", "its old spelling is"),
    ("proxy --direction egress --target P:1 --port 1 --port 2", "--port is given twice"),
    ("register -b64 -network", "--b64 has no value"),
]


@pytest.mark.parametrize(("old", "new"), SPELLINGS)
def test_old_becomes_conventional(old: str, new: str) -> None:
    assert legacy.rewrite(shlex.split(old)) == shlex.split(new)


@pytest.mark.parametrize("line", CONVENTIONAL)
def test_conventional_stays(line: str) -> None:
    assert legacy.rewrite(shlex.split(line)) == shlex.split(line)


@pytest.mark.parametrize(("line", "why"), REFUSED)
def test_refused_as_wrong_usage_with_the_reason(line: str, why: str) -> None:
    with pytest.raises(HiveError) as caught:
        legacy.rewrite(shlex.split(line))
    assert caught.value.kind is Kind.USAGE
    assert why in caught.value.line()


def _options(command: click.Command) -> Iterator[click.Option]:
    yield from (param for param in command.params if isinstance(param, click.Option))
    if isinstance(command, click.Group):
        ctx = click.Context(command)
        for name in command.list_commands(ctx):
            child = command.get_command(ctx, name)
            assert child is not None
            yield from _options(child)


def test_the_tables_of_options_are_those_of_the_commands() -> None:
    names: dict[bool, set[str]] = {True: set(), False: set()}
    for option in _options(root):
        names[option.is_flag or option.count].update(name.lstrip("-") for name in option.opts)
    assert names[False] == legacy.NEW_VALUES
    assert names[True] <= legacy.FLAGS


words = st.one_of(
    st.sampled_from(sorted(legacy.VALUES | legacy.FLAGS)).flatmap(
        lambda name: st.sampled_from([name, f"-{name}", f"--{name}", f"--{name}=x", f"-{name}=-y"])
    ),
    st.sampled_from(
        ["proxy", "nodes", "register", "add", "egress", "ingress", "tcp", "P:1", "80", "--", "-"]
    ),
    st.text(max_size=5),
)


@given(st.lists(words, max_size=10))
def test_a_second_rewriting_changes_nothing(line: list[str]) -> None:
    try:
        once = legacy.rewrite(line)
    except HiveError:
        assume(False)
    else:
        assert legacy.rewrite(once) == once


@given(st.text(), st.text(), st.integers(1, 65535))
def test_the_values_come_through_unchanged(password: str, node: str, port: int) -> None:
    line = ["--node", node, "proxy", "--password", password, "-port", str(port), "-direction", "egress"]
    rewritten = legacy.rewrite([*line, "-target", "P:1"])
    assert rewritten == ["--node", node, "proxy", "add", "egress", str(port), "P:1", "--password", password]
