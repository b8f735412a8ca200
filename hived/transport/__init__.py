"""The data plane under py-libp2p: security and the stream multiplexer."""

from . import native

native.prefer(__name__, __path__)

from .lean import import_lean  # noqa: E402 - whatever is imported from here on may be compiled

import_lean()
