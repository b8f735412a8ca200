"""The format of a backup: what it keeps, what each kind of damage is called, and what hostile files cost."""

from __future__ import annotations

import hashlib
import json
import time
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hived import schema
from hived.errors import HiveError, Kind
from hived.store import backup
from hived.store.backup import DIGEST_BYTES, MAGIC, Content, Header

PASSPHRASE = "correct horse battery staple"
CONTENT = Content(
    "12D3KooWx", "alpha", "0.1.0", 1.5, ["net"], ["/ip4/192.0.2.1/tcp/1"], b"k" * 32, b"d" * 5000
)
FILE = backup.encrypt(CONTENT, PASSPHRASE)
HEADER_AT = len(MAGIC) + 3
HEADER_END = HEADER_AT + int.from_bytes(FILE[HEADER_AT - 2 : HEADER_AT], "big")


def summed(body: bytes) -> bytes:
    """With the digest that fits."""
    return body + hashlib.sha256(body).digest()


def with_header(**changes: Any) -> bytes:
    header = {**json.loads(FILE[HEADER_AT:HEADER_END]), **changes}
    encoded = json.dumps(header).encode()
    head = MAGIC + b"\x01" + len(encoded).to_bytes(2, "big") + encoded
    return summed(head + FILE[HEADER_END:-DIGEST_BYTES])


def refusal(data: bytes, passphrase: str = PASSPHRASE) -> HiveError:
    with pytest.raises(HiveError) as caught:
        backup.decrypt(data, passphrase)
    return caught.value


def test_it_comes_back_as_it_was() -> None:
    assert backup.decrypt(FILE, PASSPHRASE) == CONTENT
    assert backup.encrypt(CONTENT, PASSPHRASE) != FILE


@settings(max_examples=3, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), st.binary())
def test_any_passphrase_and_database(passphrase: str, database: bytes) -> None:
    content = msgspec.structs.replace(CONTENT, database=database)
    assert backup.decrypt(backup.encrypt(content, passphrase), passphrase) == content


def test_nothing_of_the_node_is_to_be_read() -> None:
    for text in (CONTENT.peer_id, CONTENT.name, "net", "192.0.2.1", "k" * 32, "d" * 32, PASSPHRASE):
        assert text.encode() not in FILE


def test_a_content_does_not_print_its_secrets() -> None:
    assert repr(CONTENT) == "Content(12D3KooWx)"


@pytest.mark.parametrize("passphrase", [PASSPHRASE[:-1], PASSPHRASE + " ", PASSPHRASE.upper(), ""])
def test_another_passphrase(passphrase: str) -> None:
    error = refusal(FILE, passphrase)
    assert (error.kind, error.why) == (Kind.DENIED, "the passphrase is wrong")


@given(st.integers(0, len(FILE) - 1), st.integers(1, 255))
def test_a_changed_byte_is_damage_and_no_wrong_passphrase(at: int, flip: int) -> None:
    data = bytearray(FILE)
    data[at] ^= flip
    started = time.process_time()
    error = refusal(bytes(data))
    assert error.kind is Kind.USAGE
    assert "passphrase" not in error.line()
    if at < len(MAGIC):
        assert error.why == "the file is no backup of a node"
    elif at == len(MAGIC):
        assert "it is of format" in error.why
    else:
        assert error.why.startswith("the file is damaged (")
    assert time.process_time() - started < 1  # no key was derived for it


@given(st.integers(0, len(FILE) - 1))
def test_a_truncated_file(size: int) -> None:
    error = refusal(FILE[:size])
    assert error.kind is Kind.USAGE
    assert "damaged" in error.why or "no backup" in error.why


@given(st.binary(max_size=200))
def test_garbage(data: bytes) -> None:
    for text in (data, MAGIC + data, MAGIC + b"\x01" + data, summed(MAGIC + b"\x01" + data)):
        assert refusal(text).kind is Kind.USAGE


def test_a_later_format() -> None:
    error = refusal(summed(MAGIC + b"\x02" + FILE[len(MAGIC) + 1 : -DIGEST_BYTES]))
    assert error.why == "it is of format 2, and this version knows 1"


@pytest.mark.parametrize(
    "changes",
    [
        {"memory_kib": 256 * 1024 + 1},
        {"memory_kib": 2**40},
        {"memory_kib": 0},
        {"memory_kib": -1},
        {"passes": 17},
        {"passes": 2**32},
        {"passes": 0},
        {"lanes": 17},
        {"lanes": 0},
        {"salt": "AAAA"},
        {"salt": "A" * 400},
        {"nonce": "AAAA"},
        {"kdf": "argon2d"},
        {"cipher": "none"},
        {"more": 1},
        {"memory_kib": "65536"},
    ],
)
def test_a_hostile_header_costs_nothing(changes: dict[str, Any]) -> None:
    error = refusal(with_header(**changes))
    assert (error.kind, error.why[:32]) == (Kind.USAGE, "the file is damaged (its header:")


def test_a_header_is_authenticated() -> None:
    """Whoever mends the checksum too still cannot make the key cheaper to guess."""
    assert refusal(with_header(passes=7)).kind is Kind.DENIED
    spaced = FILE[HEADER_AT:HEADER_END] + b" "
    head = MAGIC + b"\x01" + len(spaced).to_bytes(2, "big") + spaced
    assert refusal(summed(head + FILE[HEADER_END:-DIGEST_BYTES])).kind is Kind.DENIED


@pytest.mark.full
def test_the_costliest_header_is_bearable() -> None:
    """256 MiB and seconds: what a hostile file can ask for at the most."""
    started = time.process_time()
    data = with_header(memory_kib=256 * 1024, passes=16, lanes=16)
    assert refusal(data).kind is Kind.DENIED
    assert time.process_time() - started < 60


def test_the_key_costs_no_less_than_a_log_in() -> None:
    """RFC 9106's second recommendation is the least."""
    header = msgspec.json.decode(FILE[HEADER_AT:HEADER_END], type=Header)
    assert (header.memory_kib >= 65536, header.passes >= 3, len(header.salt)) == (True, True, 16)


@pytest.mark.parametrize("field", ["name", "created", "networks", "key", "database"])
def test_content_of_the_wrong_shape(monkeypatch: pytest.MonkeyPatch, field: str) -> None:
    """From somebody who knows the passphrase: still a line, not a defect."""
    wrong = {"name": "a b", "created": 1e300, "networks": ["a/b"], "key": 7, "database": None}
    data = {**msgspec.structs.asdict(CONTENT), field: wrong[field]}
    monkeypatch.setattr(msgspec.msgpack, "encode", lambda _, encode=msgspec.msgpack.encode: encode(data))
    assert "damaged" in refusal(backup.encrypt(CONTENT, PASSPHRASE)).why


def test_a_database_that_no_request_can_carry() -> None:
    content = msgspec.structs.replace(CONTENT, database=bytes(schema.MAX_BACKUP))
    with pytest.raises(HiveError, match="too large"):
        backup.encrypt(content, PASSPHRASE)
