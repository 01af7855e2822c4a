"""Attestation: what an enclave's hardware signs, and how it is judged (RATS, RFC 9334).

This room is pure: it opens no file or socket and reads no clock. Times, keys and reference values are arguments.
"""
