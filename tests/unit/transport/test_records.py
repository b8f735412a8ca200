"""Records: what is sealed opens once, in order, unaltered, and no key sees a nonce twice."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM as AesGcm
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from hypothesis import given, settings
from hypothesis import strategies as st

from hived.transport.records import MAX_NONCE, MAX_RECORD_BYTES, BadRecordError, Opener, Sealer
from hived.transport.suites import AESGCM, AESGCM_LONG, NOISE, TAG_BYTES, Suite

KEY = bytes(range(32))
SUITES = [NOISE, AESGCM, AESGCM_LONG]
suites = pytest.mark.parametrize("suite", SUITES, ids=lambda suite: suite.protocol)
any_suite = st.sampled_from(SUITES)


def seal(sealer: Sealer, plain: bytes) -> bytes:
    """A record with its prefix."""
    out = memoryview(bytearray(sealer.overhead + len(plain)))
    assert sealer.seal(memoryview(plain), out) == len(out)
    return bytes(out)


def opened(opener: Opener, record: bytes) -> bytes:
    """What a record with its prefix says."""
    plain = memoryview(bytearray(MAX_RECORD_BYTES))
    length = opener.head(record)
    assert length == len(record) - opener.prefix
    return bytes(plain[: opener.open(memoryview(record)[opener.prefix :], plain)])


def aead(suite: Suite, key: bytes) -> AesGcm | ChaCha20Poly1305:
    return AesGcm(key) if suite.aes else ChaCha20Poly1305(key)


def nonce(suite: Suite, number: int) -> bytes:
    """Noise revision 34, sections 12.3 and 12.4."""
    return bytes(4) + number.to_bytes(8, "big" if suite.aes else "little")


def rekeyed(suite: Suite, key: bytes) -> bytes:
    """Section 4.2: the first 32 bytes of ENCRYPT(k, 2^64 - 1, no data, 32 zeros)."""
    return aead(suite, key).encrypt(nonce(suite, 2**64 - 1), bytes(32), b"")[:32]


@settings(max_examples=60, deadline=None)
@given(any_suite, st.integers(0, AESGCM_LONG.max_plain), st.binary(min_size=1, max_size=9))
def test_any_length_survives(suite: Suite, length: int, pattern: bytes) -> None:
    plain = (pattern * length)[: min(length, suite.max_plain)]
    sealer, opener = Sealer(suite, KEY), Opener(suite, KEY)
    for _ in range(3):
        assert opened(opener, seal(sealer, plain)) == plain


@suites
def test_the_longest_and_one_more(suite: Suite) -> None:
    sealer, opener = Sealer(suite, KEY), Opener(suite, KEY)
    longest = bytes(suite.max_plain)
    assert opened(opener, seal(sealer, longest)) == longest
    with pytest.raises(ValueError, match="payload"):
        seal(sealer, longest + b"!")
    # Nothing was counted for the one that was refused.
    assert opened(opener, seal(sealer, b"next")) == b"next"


@suites
@pytest.mark.parametrize("first", [0, 1, 255, 256, 2**32 - 1, 2**32, 2**56 + 3])
def test_a_record_is_what_the_specification_says(suite: Suite, first: int) -> None:
    suite = replace(suite, rekey_after=None)
    sealer, opener = Sealer(suite, KEY, first), Opener(suite, KEY, first)
    for number in range(first, first + 3):
        record = seal(sealer, b"the same")
        sealed = aead(suite, KEY).encrypt(nonce(suite, number), b"the same", b"")
        assert record == len(sealed).to_bytes(suite.prefix, "big") + sealed
        assert opened(opener, record) == b"the same"


@settings(max_examples=40, deadline=None)
@given(
    any_suite, st.integers(1, 7), st.lists(st.sampled_from(["record", "too long", "no room"]), max_size=30)
)
def test_no_key_sees_a_nonce_twice(suite: Suite, step: int, attempts: list[str]) -> None:
    """Whatever fails in between: the same payload never gives the same bytes, as it would with both again."""
    sealer = Sealer(replace(suite, rekey_after=step), KEY)
    made: list[bytes] = []
    for attempt in attempts:
        if attempt == "record":
            made.append(seal(sealer, b"same"))
        elif attempt == "too long":
            with pytest.raises(ValueError):
                sealer.seal(memoryview(bytes(suite.max_plain + 1)), memoryview(bytearray(MAX_RECORD_BYTES)))
        else:
            with pytest.raises(ValueError):
                sealer.seal(memoryview(b"same"), memoryview(bytearray(sealer.overhead)))
    assert len(set(made)) == len(made)


@pytest.mark.parametrize("suite", [AESGCM, AESGCM_LONG], ids=lambda suite: suite.protocol)
def test_the_key_is_replaced_and_the_counter_goes_on(suite: Suite) -> None:
    suite = replace(suite, rekey_after=5)
    sealer, opener, key = Sealer(suite, KEY), Opener(suite, KEY), KEY
    for number in range(23):
        if number and number % 5 == 0:
            key = rekeyed(suite, key)
        record = seal(sealer, b"data")
        assert record[suite.prefix :] == aead(suite, key).encrypt(nonce(suite, number), b"data", b"")
        assert opened(opener, record) == b"data"
    assert key == rekeyed(suite, rekeyed(suite, rekeyed(suite, rekeyed(suite, KEY))))


@pytest.mark.parametrize("suite", [AESGCM, AESGCM_LONG], ids=lambda suite: suite.protocol)
def test_the_bound_of_the_suite_itself(suite: Suite) -> None:
    edge = 2**20
    sealer, opener = Sealer(suite, KEY, edge - 1), Opener(suite, KEY, edge - 1)
    before, behind = seal(sealer, b"data"), seal(sealer, b"data")
    assert before[suite.prefix :] == aead(suite, KEY).encrypt(nonce(suite, edge - 1), b"data", b"")
    replaced = rekeyed(suite, KEY)
    assert behind[suite.prefix :] == aead(suite, replaced).encrypt(nonce(suite, edge), b"data", b"")
    assert opened(opener, before) == opened(opener, behind) == b"data"


def test_other_implementations_never_replace_it() -> None:
    sealer = Sealer(NOISE, KEY, 2**20 - 1)
    seal(sealer, b"data")
    assert seal(sealer, b"data")[2:] == aead(NOISE, KEY).encrypt(nonce(NOISE, 2**20), b"data", b"")


@suites
def test_the_last_nonce_is_reserved(suite: Suite) -> None:
    sealer, opener = Sealer(suite, KEY, MAX_NONCE - 1), Opener(suite, KEY, MAX_NONCE - 1)
    assert opened(opener, seal(sealer, b"last")) == b"last"
    record = aead(suite, KEY).encrypt(nonce(suite, MAX_NONCE), b"more", b"")
    for _ in range(2):
        with pytest.raises(BadRecordError, match="nonces"):
            seal(sealer, b"more")
        with pytest.raises(BadRecordError, match="nonces"):
            opener.open(memoryview(record), memoryview(bytearray(4)))


@settings(max_examples=100, deadline=None)
@given(any_suite, st.binary(max_size=40), st.data())
def test_what_was_altered_does_not_open_and_nothing_does_afterwards(
    suite: Suite, plain: bytes, data: st.DataObject
) -> None:
    sealer, opener = Sealer(suite, KEY), Opener(suite, KEY)
    assert opened(opener, seal(sealer, b"good")) == b"good"
    good = seal(sealer, plain)[suite.prefix :]
    how = data.draw(st.sampled_from(["bit", "shorter", "longer"]))
    if how == "bit":
        bit = data.draw(st.integers(0, len(good) * 8 - 1))
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
    elif how == "shorter":
        bad = bytearray(good[: data.draw(st.integers(0, len(good) - 1))])
    else:
        bad = bytearray(good + data.draw(st.binary(min_size=1, max_size=9)))
    room = memoryview(bytearray(100))
    for record in (bytes(bad), good):
        with pytest.raises(BadRecordError):
            opener.open(memoryview(record), room)


@suites
def test_too_long_a_message_is_refused_even_if_its_tag_is_right(suite: Suite) -> None:
    opener, room = Opener(suite, KEY), memoryview(bytearray(suite.max_record + 1))
    sealed = aead(suite, KEY).encrypt(nonce(suite, 0), bytes(suite.max_plain + 1), b"")
    good = aead(suite, KEY).encrypt(nonce(suite, 0), b"good", b"")
    for record in (sealed, good):
        with pytest.raises(BadRecordError):
            opener.open(memoryview(record), room)


@pytest.mark.parametrize("suite", [AESGCM, AESGCM_LONG], ids=lambda suite: suite.protocol)
def test_no_replaced_key_sees_the_reserved_nonce(suite: Suite) -> None:
    """The last key's turn is shorter than the others'."""
    often = replace(suite, rekey_after=4)
    sealer, opener = Sealer(often, KEY, MAX_NONCE - 6), Opener(often, KEY, MAX_NONCE - 6)
    for _ in range(6):
        assert opened(opener, seal(sealer, b"data")) == b"data"
    for _ in range(2):
        with pytest.raises(BadRecordError, match="nonces"):
            seal(sealer, b"more")
        with pytest.raises(BadRecordError, match="nonces"):
            opener.open(memoryview(bytes(20)), memoryview(bytearray(20)))


@suites
def test_replayed_skipped_and_reflected(suite: Suite) -> None:
    sealer = Sealer(suite, KEY)
    first, second = seal(sealer, b"1"), seal(sealer, b"2")
    replayed = Opener(suite, KEY)
    assert opened(replayed, first) == b"1"
    with pytest.raises(BadRecordError):
        opened(replayed, first)
    with pytest.raises(BadRecordError):
        opened(Opener(suite, KEY), second)
    with pytest.raises(BadRecordError):
        opened(Opener(suite, bytes(32)), first)


@suites
@pytest.mark.parametrize("length", [0, TAG_BYTES - 1, -1])
def test_a_length_that_no_record_has(suite: Suite, length: int) -> None:
    # A prefix of two bytes cannot say too much.
    if length < 0 and suite.prefix == 2:
        assert Opener(suite, KEY).head(b"\xff\xff") == suite.max_record
        return
    opener = Opener(suite, KEY)
    wrong = length if length >= 0 else suite.max_record + 1
    with pytest.raises(BadRecordError, match=f"{wrong} bytes"):
        opener.head(b"??" + wrong.to_bytes(suite.prefix, "big"), 2)
    with pytest.raises(BadRecordError):
        opened(opener, seal(Sealer(suite, KEY), b"good"))


@settings(max_examples=60, deadline=None)
@given(any_suite, st.lists(st.binary(max_size=50), max_size=8), st.data())
def test_records_in_any_pieces(suite: Suite, plains: list[bytes], data: st.DataObject) -> None:
    """As a reader sees them: pieces into a buffer, whole records out of it."""
    sealer, opener = Sealer(suite, KEY), Opener(suite, KEY)
    wire = b"".join(seal(sealer, plain) for plain in plains)
    buffer, got, at = b"", [], 0
    while at < len(wire):
        piece = data.draw(st.integers(1, len(wire) - at))
        buffer += wire[at : at + piece]
        at += piece
        while len(buffer) >= opener.prefix:
            end = opener.prefix + opener.head(buffer)
            if end > len(buffer):
                break
            got.append(opened(opener, buffer[:end]))
            buffer = buffer[end:]
    assert (got, buffer) == (plains, b"")
