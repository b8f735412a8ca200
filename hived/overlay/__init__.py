"""Who the nodes are and how they find, prove and reach each other."""

from .. import transport as transport  # first: it makes py-libp2p importable everywhere
