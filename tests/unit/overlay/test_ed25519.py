"""SPAKE2 in libsodium's arithmetic: the bytes of the spake2 package's own, and no point outside the group."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl import bindings
from spake2 import SPAKE2_A, SPAKE2_B
from spake2.parameters.ed25519 import ParamsEd25519

from hived.overlay.ed25519 import ORDER, PARAMS, Element, Group, NotAnElementError

SCALARS = st.integers(0, ORDER - 1) | st.sampled_from([1, 2, ORDER - 1, ORDER, ORDER + 1, -1])
# All points of small order, RFC 7748 and the signs of x = 0 besides.
SMALL = [
    bytes(32),
    b"\x01" + bytes(31),
    bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
    bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"),
    b"\xec" + b"\xff" * 30 + b"\x7f",
    b"\xed" + b"\xff" * 30 + b"\x7f",
    b"\xee" + b"\xff" * 30 + b"\x7f",
]


@pytest.mark.parametrize(("a", "b"), [(PARAMS, ParamsEd25519), (ParamsEd25519, PARAMS), (PARAMS, PARAMS)])
def test_both_arithmetics_agree(a: Any, b: Any) -> None:
    one, other = SPAKE2_A(b"k", b"x", b"y", params=a), SPAKE2_B(b"k", b"x", b"y", params=b)
    shares = one.start(), other.start()
    assert one.finish(shares[1]) == other.finish(shares[0])


@given(SCALARS, SCALARS)
def test_the_same_points(first: int, second: int) -> None:
    plain, ours = ParamsEd25519.group, PARAMS.group
    if first % ORDER and second % ORDER:
        expected = plain.Base.scalarmult(first)
        point = ours.Base.scalarmult(first)
        assert point.to_bytes() == expected.to_bytes()
        assert point.scalarmult(second).to_bytes() == expected.scalarmult(second).to_bytes()
        assert point.add(PARAMS.M).to_bytes() == expected.add(ParamsEd25519.M).to_bytes()


def test_the_neutral_element_is_no_product() -> None:
    with pytest.raises(NotAnElementError):
        PARAMS.M.scalarmult(ORDER)


@pytest.mark.parametrize("small", SMALL)
@pytest.mark.parametrize("sign", [0, 0x80])
def test_small_and_mixed_orders_are_refused(small: bytes, sign: int) -> None:
    encoded = small[:31] + bytes([small[31] | sign])
    with pytest.raises(NotAnElementError):
        Group().bytes_to_element(encoded)
    if not sign:
        # Small order added to a point of the group: what is left is not in it any more.
        mixed = bindings.crypto_core_ed25519_add(PARAMS.M.to_bytes(), encoded)
        if mixed != PARAMS.M.to_bytes():
            with pytest.raises(NotAnElementError):
                Group().bytes_to_element(mixed)
            with pytest.raises(NotAnElementError):
                Element(mixed).scalarmult(5)


@given(st.binary(max_size=40) | st.binary(min_size=32, max_size=32))
def test_any_bytes_are_a_point_or_refused(encoded: bytes) -> None:
    """What is taken, the plain arithmetic takes too."""
    try:
        point = Group().bytes_to_element(encoded)
    except NotAnElementError:
        return
    assert ParamsEd25519.group.bytes_to_element(encoded).to_bytes() == point.to_bytes()
