"""The secret management service: keeps keys at rest and releases them to attested enclaves only."""
