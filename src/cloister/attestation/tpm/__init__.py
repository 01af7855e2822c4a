"""TPM 2.0: the payload of its evidence, quotes, signatures, event logs and what a boot consisted of."""
