"""The rules for names and ports, and that requests name no unknown field."""

from __future__ import annotations

import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hived import schema

REQUESTS = [
    item for item in vars(schema).values() if isinstance(item, type) and issubclass(item, schema.Request)
]
ANSWERS = [
    item for item in vars(schema).values() if isinstance(item, type) and issubclass(item, schema.Answer)
]


@given(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", fullmatch=True))
def test_good_names(name: str) -> None:
    assert schema.check_name(name) == name.isascii()


@given(st.text(max_size=70) | st.from_regex(schema.NAME_PATTERN))
def test_names_are_judged_as_the_contract_says(name: str) -> None:
    """CLI.md: 1 to 63 of a-z A-Z 0-9 . _ -, starting with a letter or digit; ASCII only."""
    contract = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", name)
    assert schema.check_name(name) == bool(contract)


@pytest.mark.parametrize(
    "name", ["", "-a", ".a", "_a", "a b", "a/b", "a:b", "a\n", "\na", "ä", "a" * 64, "a\0"]
)
def test_bad_names(name: str) -> None:
    assert not schema.check_name(name)


@pytest.mark.parametrize("kind", [item for item in REQUESTS if item is not schema.Request])
def test_requests_refuse_unknown_fields(kind: type[schema.Request]) -> None:
    with pytest.raises(msgspec.ValidationError, match="unknown field"):
        msgspec.json.decode(b'{"no_such_field": 1}', type=kind)


@pytest.mark.parametrize("kind", ANSWERS)
def test_answers_come_with_types_that_json_can_say(kind: type[schema.Answer]) -> None:
    """A JSON schema of each answer exists: OpenAPI is made from it."""
    assert msgspec.json.schema(kind)


@pytest.mark.parametrize("port", [0, -1, 65536, 1.5, "80", None, True])
def test_ports_out_of_range(port: object) -> None:
    body = msgspec.json.encode({"direction": "egress", "peer": "x", "port": port, "peer_port": 80})
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(body, type=schema.AddProxy)


@pytest.mark.parametrize("port", [1, 65535])
def test_ports_in_range(port: int) -> None:
    body = msgspec.json.encode({"direction": "ingress", "peer": "x", "port": port, "peer_port": port})
    assert msgspec.json.decode(body, type=schema.AddProxy).port == port
