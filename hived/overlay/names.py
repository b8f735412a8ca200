"""NODE as people type it, to a peer ID (CLI.md, Rules for every command). Pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import not_found, usage
from .identity import PEER_ID_CHARS, PEER_ID_PREFIX, is_peer_id

MIN_PART = 6
SUFFIX_PART = 8
CLAIM_PART = 6


@dataclass(frozen=True)
class Names:
    """Known peers (peer ID to the name it claims), aliases by peer ID, and name owners by name."""

    claimed: Mapping[str, str]
    aliases: Mapping[str, str]
    owners: Mapping[str, str]

    def shown(self, peer_id: str) -> str:
        """A peer's name; NAME~XXXXXX when another peer was first seen with it."""
        name = self.claimed.get(peer_id, "")
        if name and self.owners.get(name, peer_id) != peer_id:
            return f"{name}~{peer_id[-CLAIM_PART:]}"
        return name

    def resolve(self, text: str) -> str:
        """The one peer that ``text`` means. Raises HiveError: not_found, or usage when several fit."""
        # First, for no node may pass for another by taking its peer ID for a name.
        if is_peer_id(text):
            return text
        for peer_id, alias in self.aliases.items():
            if alias == text:
                return peer_id
        named = [peer_id for peer_id in self.claimed if self.shown(peer_id) == text]
        matches = list(dict.fromkeys([*named, *self._parts(text)]))
        if len(matches) == 1:
            return matches[0]
        what = f"finding node {text} failed"
        if matches:
            listed = ", ".join(f"{self.shown(peer_id) or '-'} {peer_id}" for peer_id in sorted(matches))
            raise usage(what, f"it may be any of: {listed}", "Write more of the peer ID")
        raise not_found(what, "no such node is known here", "See hivectl nodes")

    def _parts(self, text: str) -> list[str]:
        known = set(self.claimed) | set(self.aliases)
        if len(text) == SUFFIX_PART:
            found = [peer_id for peer_id in known if peer_id.endswith(text)]
            if found:
                return found
        part = text.removeprefix(PEER_ID_PREFIX)
        if MIN_PART <= len(part) <= PEER_ID_CHARS:
            return [peer_id for peer_id in known if part in peer_id.removeprefix(PEER_ID_PREFIX)]
        return []
