"""Messages that iExec's services and contracts have signed, and that ours accept as they are (reference 3.0-3.2, 5.4).

Functions return the 32 bytes to be signed. Those of the first group are signed as personal messages (EIP-191 over the
bytes: ``PrivateKey.sign_message``); a challenge is typed data and signed as it is (``sign_digest``).
"""

from __future__ import annotations

import hmac
import string
from typing import Final

from cloister.errors import DecodeError, VerificationError, quoted
from cloister.protocol.codec import Address, Bytes32, keccak256, parse_hex, to_hex
from cloister.protocol.eip712 import Domain, typed_data_digest
from cloister.protocol.signatures import message_digest, recover_address

CHALLENGE_LETTERS: Final = 32
"""Random letters and digits at the end of a login text."""
_ALPHANUMERICS: Final = string.ascii_letters + string.digits

SMS_DOMAIN: Final = keccak256(b"IEXEC_SMS_DOMAIN")

MARKET_CHALLENGE: Final = "iExec Gateway"
"""Name of the market's login domain."""
MARKET_CHALLENGE_TEXT: Final = "Sign this message to log into iExec Gateway: "
"""What stands before the 32 random letters and digits of the market's challenge."""
SCHEDULER_CHALLENGE: Final = "iExec Core"
"""Name of the scheduler's login domain."""
RESULTS_CHALLENGE: Final = "iExec Result Repository"
"""Name of the result repository's login domain."""

_CHALLENGE_TYPES: Final = {"Challenge": (("challenge", "string"),)}


def scheduler_authorization(worker: Address, task_id: Bytes32, enclave: Address) -> bytes:
    """What a workerpool's owner (or the teebroker) signs so that ``worker`` may contribute with ``enclave``."""
    return keccak256(worker.raw + task_id.raw + enclave.raw)


def tee_challenge_authorization(task_id: Bytes32) -> bytes:
    """What a workerpool's owner signs to be given the enclave challenge of a task: no worker, no enclave yet."""
    return keccak256(task_id.raw)


def worker_authorization(task_id: Bytes32, worker: Address) -> bytes:
    """What the enclave key signs toward its worker (pre- and post-compute of iExec's stack)."""
    return keccak256(task_id.raw + worker.raw)


def _text(value: str) -> bytes:
    return keccak256(value.encode("utf-8"))


def sms_web3_challenge(address: Address, value: str) -> bytes:
    """What the on-chain owner of ``address`` signs to store its secret."""
    return keccak256(SMS_DOMAIN + address.raw + _text(value))


def sms_web2_challenge(owner: Address, name: str, value: str) -> bytes:
    """What ``owner`` signs to store a secret under a name."""
    return keccak256(SMS_DOMAIN + owner.raw + _text(name) + _text(value))


def sms_app_challenge(app: Address, value: str) -> bytes:
    """What the owner of ``app`` signs to store the developer secret, whose name is always ``1``."""
    return sms_web2_challenge(app, "1", value)


def requester_secret_challenge(requester: Address, name: str, value: str) -> bytes:
    """What ``requester`` signs to store a requester secret; the form is that of a web2 secret."""
    return sms_web2_challenge(requester, name, value)


def verify_personal_signature(message: bytes, signature: bytes, signer: Address) -> Address:
    """Return ``signer`` when it personal_signed ``message``.

    Raises:
        VerificationError: malformed, malleable or by somebody else.
    """
    recovered = recover_address(message_digest(message), signature)
    if recovered != signer:
        raise VerificationError(f"signed by {recovered}, expected {signer}", code="wrong-signer")
    return signer


def derive_challenge_letters(key: bytes, message: bytes) -> str:
    """The random part of a login text: 32 alphanumerics from HMAC-SHA-512 of ``message``, so that nothing need be stored."""
    number = int.from_bytes(hmac.digest(key, message, "sha512"), "big")
    letters = []
    for _ in range(CHALLENGE_LETTERS):
        number, digit = divmod(number, len(_ALPHANUMERICS))
        letters.append(_ALPHANUMERICS[digit])
    return "".join(letters)


def challenge_digest(name: str, chain_id: int, text: str) -> bytes:
    """Return the EIP-712 hash of a login challenge."""
    return typed_data_digest(_CHALLENGE_TYPES, "Challenge", Domain(name, "1", chain_id), {"challenge": text})


def challenge_typed_data(name: str, chain_id: int, text: str) -> dict[str, object]:
    """Return a login challenge as the typed data that a wallet signs; ``chainId`` is a string there, as iExec's is."""
    domain = Domain(name, "1", chain_id)
    return {
        "types": {
            "EIP712Domain": [{"name": member, "type": kind} for member, kind in domain.members()],
            "Challenge": [{"name": "challenge", "type": "string"}],
        },
        "domain": {"name": name, "version": "1", "chainId": str(chain_id)},
        "primaryType": "Challenge",
        "message": {"challenge": text},
    }


def build_challenge_header(digest: bytes, signature: bytes, address: Address) -> str:
    """Write the login header ``<hash>_<signature>_<address>``."""
    return f"{to_hex(digest)}_{to_hex(signature)}_{address}"


def parse_challenge_header(header: str) -> tuple[Bytes32, bytes, Address]:
    """Read a login header into hash, signature and address. Proves nothing: see ``verify_challenge_header``.

    Raises:
        DecodeError: another form.
    """
    parts = header[:400].split("_")
    if len(parts) != 3:
        raise DecodeError(f"expected hash_signature_address, got {quoted(header)}")
    return Bytes32(parts[0]), parse_hex(parts[1], cap=65), Address(parts[2])


def verify_challenge_header(header: str, *, name: str, chain_id: int, text: str, address: Address) -> Address:
    """Return ``address`` when the header answers the challenge ``text`` that was given to it.

    Raises:
        DecodeError: the header does not parse.
        VerificationError: another challenge, another address, or a wrong signature.
    """
    digest, signature, claimed = parse_challenge_header(header)
    expected = challenge_digest(name, chain_id, text)
    if digest.raw != expected or claimed != address:
        raise VerificationError("the login answers another challenge", code="wrong-challenge")
    recovered = recover_address(expected, signature)
    if recovered != address:
        raise VerificationError(f"signed by {recovered}, expected {address}", code="wrong-signer")
    return address
