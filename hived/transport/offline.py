"""py-libp2p 0.8.1 looks for a DNS configuration while it is imported, and fails without one.

A machine without /etc/resolv.conf (a container, a rack without DNS) is no reason for
hived not to start: it is imported here first, with a resolver that reads no file then.
Names in addresses are resolved by the system's own resolver, not by this one.
"""

from __future__ import annotations

import functools
import importlib

import dns.asyncresolver
import dns.resolver


def import_libp2p() -> None:
    """Import libp2p, with or without a DNS configuration."""
    resolver = dns.asyncresolver.Resolver
    try:
        resolver()
    except (dns.resolver.NoResolverConfiguration, OSError):
        unconfigured = functools.partial(resolver, configure=False)
        setattr(dns.asyncresolver, "Resolver", unconfigured)  # noqa: B010 - mypy refuses the plain form
    try:
        importlib.import_module("libp2p")
    finally:
        setattr(dns.asyncresolver, "Resolver", resolver)  # noqa: B010 - mypy refuses the plain form
