"""Egress and ingress proxies, and the reconciler that keeps them as the store says."""
