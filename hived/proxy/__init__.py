"""Egress and ingress proxies, and the reconciler that keeps them as the store says."""

from ..transport import native

native.prefer(__name__, __path__)
