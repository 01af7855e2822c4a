"""Content-addressed storage: the same identifiers as an IPFS node, kept locally or on a node."""
