"""The program that runs inside the enclave: attest, get keys, open, run the iApp in a sandbox of its own, seal,
sign.
"""
