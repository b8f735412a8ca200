"""The data plane under py-libp2p: security and the stream multiplexer."""

from .offline import import_libp2p

import_libp2p()
