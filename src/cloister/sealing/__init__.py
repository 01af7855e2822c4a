"""Formats of ciphertext: content streams, key envelopes, sealed results, and the formats of iExec's clients. Pure."""
