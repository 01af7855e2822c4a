"""The formats of iExec's clients: AES-256-CBC content and RSA result archives. Read always, written on request."""

from cloister.sealing.cbc import IV_SIZE, open_cbc, seal_cbc, sealed_cbc_size
from cloister.sealing.rsa_results import (
    MAX_SEALED_RESULT,
    open_result_rsa,
    parse_result_private_key,
    parse_result_public_key,
    seal_result_rsa,
)

__all__ = [
    "IV_SIZE",
    "MAX_SEALED_RESULT",
    "open_cbc",
    "open_result_rsa",
    "parse_result_private_key",
    "parse_result_public_key",
    "seal_cbc",
    "seal_result_rsa",
    "sealed_cbc_size",
]
