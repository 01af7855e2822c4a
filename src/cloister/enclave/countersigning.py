"""Having a receipt countersigned: the SMS is asked through the host, which sees a digest."""

from __future__ import annotations

from cloister.attestation.countersignature import check_receipt_digest, verify_countersignature
from cloister.enclave.causes import Cause, TaskError
from cloister.enclave.host import HostChannel
from cloister.enclave.session import EnclaveKeys, Session
from cloister.errors import CloisterError
from cloister.protocol.codec import Bytes32
from cloister.protocol.countersigning import CountersignRequest


def fetch_countersignature(host: HostChannel, session: Session, keys: EnclaveKeys, digest: bytes) -> bytes:
    """Ask for the countersignature of the receipt with this digest (32 bytes), and prove that the attested SMS gave it for
    this receipt.

    Raises:
        TaskError: the SMS refuses or cannot be reached, or the answer is not its own. A result without a receipt that
        can be checked is not given.
    """
    request = CountersignRequest(session.release.task_id, keys.challenge.address, Bytes32.from_raw(digest))
    try:
        given = host.ask("countersign", request.signed_by(keys.challenge).to_json())
        check_receipt_digest(verify_countersignature(given.body, sms=session.binding.sms), digest)
    except CloisterError as error:
        message = f"the receipt is not countersigned: {error.message}"
        raise TaskError(Cause.POST_COMPUTE_FAILED_UNKNOWN_ISSUE, message, may_pass=True) from error
    return given.body
