"""NODE as people type it: one peer, or a line that says why not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hived.errors import HiveError, Kind
from hived.overlay.identity import Identity
from hived.overlay.names import Names

PEERS = [Identity.from_seed(bytes([n]) * 32).peer_id for n in range(1, 9)]
A, B, C = PEERS[:3]
NAMES = Names({A: "alpha", B: "beta", C: "alpha"}, {B: "box"}, {"alpha": A, "beta": B})


def test_by_every_spelling() -> None:
    """Peer ID, a part of it, its last 8 characters, alias, name; CLI.md."""
    for text in (A, A.removeprefix("12D3KooW"), A[8:14], A[20:30], A[-8:], "alpha"):
        assert NAMES.resolve(text) == A, text
    assert NAMES.resolve("box") == NAMES.resolve("beta") == B


def test_an_unknown_peer_id_is_itself() -> None:
    assert NAMES.resolve(PEERS[7]) == PEERS[7]


def test_a_later_claimant_is_shown_with_its_end() -> None:
    assert (NAMES.shown(A), NAMES.shown(C), NAMES.shown(PEERS[5])) == ("alpha", f"alpha~{C[-6:]}", "")
    assert NAMES.resolve(f"alpha~{C[-6:]}") == C


def test_an_alias_goes_before_a_name() -> None:
    assert Names({A: "x", B: "y"}, {B: "x"}, {}).resolve("x") == B


def refused(names: Names, text: str) -> HiveError:
    with pytest.raises(HiveError) as caught:
        names.resolve(text)
    return caught.value


@pytest.mark.parametrize("text", ["", "nobody", "12D3KooW", "zzzzzz", A[8:13], A + "x", "al"])
def test_nobody(text: str) -> None:
    assert refused(NAMES, text).kind is Kind.NOT_FOUND


def test_several_are_listed() -> None:
    """Two that claim one name of which the owner is unknown; and a part that two peer IDs hold."""
    error = refused(Names({A: "x", B: "x"}, {}, {}), "x")
    assert error.kind is Kind.USAGE
    assert A in error.line()
    assert B in error.line()
    made_up = ["12D3KooW" + "abcdef" + str(n) * 38 for n in (1, 2)]
    error = refused(Names(dict.fromkeys(made_up, ""), {}, {}), "abcdef")
    assert error.kind is Kind.USAGE
    assert all(peer_id in error.line() for peer_id in made_up)


def test_no_name_takes_a_peer_ids_place() -> None:
    """A hostile member may call itself what it likes, also as another's peer ID is spelt."""
    assert Names({A: "alpha", B: A}, {}, {A: B}).resolve(A) == A


def test_no_name_takes_the_place_of_a_part_of_a_peer_id() -> None:
    assert refused(Names({A: "alpha", B: A[-8:]}, {}, {A[-8:]: B}), A[-8:]).kind is Kind.USAGE


TEXT = (
    st.text(max_size=60) | st.sampled_from([*PEERS, "x", "y"]) | st.sampled_from(PEERS).map(lambda p: p[8:15])
)


@given(
    st.dictionaries(st.sampled_from(PEERS), TEXT),
    st.dictionaries(st.sampled_from(PEERS), TEXT),
    st.dictionaries(TEXT, st.sampled_from(PEERS)),
    TEXT,
)
def test_any_table_and_any_text(
    claimed: dict[str, str], aliases: dict[str, str], owners: dict[str, str], text: str
) -> None:
    """One peer that has to do with the text, or one of the two errors."""
    names = Names(claimed, aliases, owners)
    try:
        found = names.resolve(text)
    except HiveError as error:
        if error.kind not in (Kind.NOT_FOUND, Kind.USAGE):
            raise
        return
    assert found in PEERS
    assert aliases.get(found) == text or names.shown(found) == text or text in found
