"""What a router does with packets, as rules for nft(8)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

LAN, WAN = "lan0", "wan0"

Mode = Literal["none", "full", "prc", "remap", "sym", "udp-blocking"]
Reject = Literal["drop", "rst"]
MODES: tuple[Mode, ...] = get_args(Mode)

# Apart from the ports that programs bind here and those that Linux picks for outgoing connections.
REMAPPED = (61000, 65535)


@dataclass(frozen=True)
class Nat:
    """How a router treats the hosts behind it and the strangers before it.

    ``mode``, in RFC 4787's words where it has some:

    - ``none``: no NAT and no firewall; the LAN has public addresses.
    - ``full``: a full cone. A host's port keeps its number outside, and whoever sends to it there gets
      in, from the host's first packet on until the router is flushed (endpoint-independent mapping and
      filtering).
    - ``prc``: a port-restricted cone, what most homes have. The port keeps its number, unless another host of
      the LAN uses it for the same far end; only a far end that was sent to gets in (endpoint-independent
      mapping; address- and port-dependent filtering).
    - ``remap``: as prc, but the port's number outside is another one, the same for all far ends.
    - ``sym``: symmetric. Each far end sees another, random port, so that nobody can foretell it.
    - ``udp-blocking``: as prc for TCP; UDP passes in neither direction, as in many offices.

    ``reject`` is the answer to a TCP SYN that does not get in: none (``drop``), or a reset (``rst``). Of two
    hosts that connect to each other at the same time, the first is reset where the second is slow.

    ``udp=False`` blocks UDP in any mode.

    ``forwards``: ports that lead to a host of the LAN, as people configure it in their router.

    IPv6 is not translated; but in all modes except none only what belongs to connections from within
    gets in.
    """

    mode: Mode = "prc"
    reject: Reject = "drop"
    udp: bool = True
    forwards: tuple[tuple[int, str], ...] = ()

    def __post_init__(self) -> None:
        for value, known in ((self.mode, MODES), (self.reject, get_args(Reject))):
            if value not in known:
                raise ValueError(f"{value!r}: not one of {', '.join(known)}")

    def rules(self) -> str:
        lines = ["flush ruleset", *self._filter()]
        if self.mode != "none":
            lines += self._nat()
        return "\n".join([*lines, ""])

    def _filter(self) -> list[str]:
        unwanted = [f'iifname "{WAN}" drop']
        if self.reject == "rst":
            unwanted.insert(0, f'iifname "{WAN}" meta l4proto tcp reject with tcp reset')
        forward, arriving = ["ct state established,related accept", "ct state invalid drop"], []
        if not self.udp or self.mode == "udp-blocking":
            forward.insert(0, "meta l4proto udp drop")
        if self.mode == "none":
            forward.append("accept")
        else:
            forward += [f'iifname "{LAN}" accept', "ct status dnat accept", *unwanted]
            # What no mapping leads further is for the router itself.
            arriving = [
                f'iifname "{WAN}" ct state established,related accept',
                f'iifname "{WAN}" meta l4proto {{ icmp, icmpv6 }} accept',
                *unwanted,
            ]
        return [
            "table inet filter {",
            "chain forward {",
            "type filter hook forward priority filter; policy drop;",
            *forward,
            "}",
            "chain input {",
            "type filter hook input priority filter; policy accept;",
            *arriving,
            "}",
            "}",
        ]

    def _nat(self) -> list[str]:
        outward = f'oifname "{WAN}"'
        before = [
            f'iifname "{WAN}" meta l4proto {{ tcp, udp }} th dport {port} dnat to {host}'
            for port, host in self.forwards
        ]
        maps: list[str] = []
        after = [f"{outward} masquerade"]
        if self.mode == "full":
            # Which host had a port first: it gets what comes for that port from anybody.
            maps = [
                "map cone {",
                "typeof meta l4proto . th dport : ip daddr",
                "flags dynamic",
                "size 65535",
                "}",
            ]
            before.append(f'iifname "{WAN}" dnat to meta l4proto . th dport map @cone')
            note = "add @cone { meta l4proto . th sport : ip saddr }"
            after.insert(0, f"{outward} meta l4proto {{ tcp, udp }} {note}")
        elif self.mode == "remap":
            # A port out of the range for a host's first connection; the kernel gives its next ones the same.
            first, last = REMAPPED
            after.insert(0, f"{outward} meta l4proto {{ tcp, udp }} masquerade to :{first}-{last}")
        elif self.mode == "sym":
            after.insert(0, f"{outward} meta l4proto {{ tcp, udp }} masquerade fully-random")
        return [
            "table ip nat {",
            *maps,
            "chain before {",
            "type nat hook prerouting priority dstnat; policy accept;",
            *before,
            "}",
            "chain after {",
            "type nat hook postrouting priority srcnat; policy accept;",
            *after,
            "}",
            "}",
        ]
