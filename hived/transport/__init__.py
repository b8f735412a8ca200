"""The data plane under py-libp2p: security and the stream multiplexer."""
