"""The authorization that a workerpool gives a worker, as iExec's workers send it (reference 3.2 and 3.4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cloister.errors import DecodeError
from cloister.protocol.authorization import scheduler_authorization
from cloister.protocol.codec import (
    ZERO_ADDRESS,
    Address,
    Bytes32,
    check_keys,
    parse_address,
    parse_hex,
    parse_json,
    parse_uint,
    parse_word,
)
from cloister.protocol.tasks import task_id as task_id_of

BODY_CAP: Final = 16 * 1024
"""Largest authorization, in bytes of JSON."""

SIGNATURE_BYTES: Final = 65


@dataclass(frozen=True, slots=True)
class WorkerpoolAuthorization:
    """A worker, a task, an enclave key (zero for none) and a signature over the three that is not proven yet."""

    task_id: Bytes32
    worker: Address
    enclave_challenge: Address
    signature: bytes

    def message(self) -> bytes:
        """The 32 bytes that the workerpool's owner and the worker personal_sign."""
        return scheduler_authorization(self.worker, self.task_id, self.enclave_challenge)


def parse_authorization(body: bytes) -> WorkerpoolAuthorization:
    """Read ``{chainTaskId, dealId?, taskIndex?, workerWallet, enclaveChallenge, signature: {value}}``.

    Raises:
        DecodeError, TooLarge: not that, or a deal and index that do not make the task.
    """
    given = check_keys(
        "authorization",
        parse_json(body, cap=BODY_CAP),
        required=("chainTaskId", "workerWallet", "signature"),
        optional=("dealId", "taskIndex", "enclaveChallenge"),
    )
    task_id = parse_word("chainTaskId", given["chainTaskId"])
    if given.get("dealId") is not None:
        deal, index = parse_word("dealId", given["dealId"]), parse_uint("taskIndex", given.get("taskIndex", 0))
        if not deal.is_zero and task_id_of(deal, index) != task_id:
            raise DecodeError(f"task {task_id} is not number {index} of deal {deal}")
    challenge = given.get("enclaveChallenge")
    return WorkerpoolAuthorization(
        task_id=task_id,
        worker=parse_address("workerWallet", given["workerWallet"]),
        enclave_challenge=parse_address("enclaveChallenge", challenge) if challenge else ZERO_ADDRESS,
        signature=_parse_signature(given["signature"]),
    )


def _parse_signature(value: object) -> bytes:
    text = check_keys("signature", value, required=("value",))["value"]
    if not isinstance(text, str):
        raise DecodeError("signature: expected 0x and hex digits")
    return parse_hex(text, length=SIGNATURE_BYTES)
