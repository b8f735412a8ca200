"""Argon2 hashes: spelt, read, and computed away from the event loop."""

from __future__ import annotations

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import trio_test

from hived.api import passwords
from hived.api.passwords import MAX_WAITING, PREFIX, HashingThread
from hived.errors import HiveError, Kind

PHC = passwords.hash_password("secret")


def test_round_trip() -> None:
    assert passwords.verify_password(PHC, "secret")
    assert not passwords.verify_password(PHC, "Secret")
    assert PHC.startswith("$argon2id$")
    text = passwords.encode_hash(PHC)
    assert text.removeprefix(PREFIX).replace("-", "").replace("_", "").isalnum()
    assert passwords.decode_hash(text) == passwords.decode_hash(PHC) == PHC


def test_hashes_are_salted() -> None:
    assert passwords.hash_password("secret") != PHC


@pytest.mark.parametrize("text", ["", "secret", "hash", "$1$md5", "Hash_x", " hash_x"])
def test_plain_passwords(text: str) -> None:
    assert passwords.decode_hash(text) is None


@given(
    st.text()
    | st.text().map(lambda t: PREFIX + t)
    | st.binary().map(lambda b: passwords.encode_hash(b.decode("latin-1")))
    | st.text().map(lambda t: "$argon2" + t)
)
def test_any_text(text: str) -> None:
    try:
        found = passwords.decode_hash(text)
    except HiveError as error:
        if error.kind is not Kind.USAGE:
            raise
    else:
        assert found is None or found.startswith("$argon2")


HEAD = "$argon2id$v=19$m=65536,t=3,p=4$"


@given(st.text(max_size=30))
def test_a_hash_that_was_read_can_be_verified(tail: str) -> None:
    """Whatever decode_hash lets in, a log-in against it is a yes or a no, not a defect."""
    try:
        phc = passwords.decode_hash("$argon2id$v=19$m=8,t=1,p=1$" + tail)
    except HiveError:
        return
    assert phc is not None
    assert passwords.verify_password(phc, "x") is False


@pytest.mark.parametrize(
    "phc",
    [
        HEAD + "c2FsdHNhbHQ$!!!",
        "$argon2id$v=19$m=4194304,t=3,p=4$c2FsdHNhbHQ$aGFzaGhhc2g",
        "$argon2id$v=19$m=x$y$z",
        "$argon2id$",
    ],
)
def test_hashes_that_are_none_or_cost_too_much(phc: str) -> None:
    try:
        found = passwords.decode_hash(phc)
    except HiveError as error:
        if error.kind is not Kind.USAGE:
            raise
    else:
        assert not passwords.verify_password(found or "", "x")


@trio_test
async def test_the_thread() -> None:
    hashing = HashingThread()
    phc = await hashing.hash("x")
    assert await hashing.verify(phc, "x")
    assert not await hashing.verify(phc, "y")
    assert not await hashing.verify(None, "")  # an unknown user, also with the dummy's own password


@trio_test
async def test_the_queue_is_bounded() -> None:
    hashing = HashingThread()
    results: list[str] = []

    async def one() -> None:
        try:
            await hashing._run(lambda: None)
            results.append("done")
        except HiveError as error:
            if error.kind is not Kind.DENIED:
                raise
            results.append("refused")

    async with trio.open_nursery() as nursery:
        for _ in range(MAX_WAITING + 5):
            nursery.start_soon(one)
    assert sorted(results) == ["done"] * MAX_WAITING + ["refused"] * 5


@trio_test
async def test_a_caller_that_vanishes_keeps_its_place_until_its_job_is_done() -> None:
    hashing = HashingThread()
    done: list[bool] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hashing._run, lambda: done.append(True))
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert done == [True]
    assert hashing._waiting == 0
