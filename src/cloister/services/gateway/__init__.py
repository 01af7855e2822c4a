"""The gateway: an IPFS node's HTTP face (upload by Kubo's RPC, download by path) over the local store."""
