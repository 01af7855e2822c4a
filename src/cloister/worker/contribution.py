"""What a worker sends to the hub for a result."""

from __future__ import annotations

from cloister.chain.contracts import Call, ContributionAndResult, Hub
from cloister.clients.scheduler import Lease
from cloister.protocol.codec import Address
from cloister.protocol.results import result_hash, result_seal
from cloister.worker.journal import SealedResult


def build_contribution(
    hub: Hub, lease: Lease, worker: Address, sealed: SealedResult, results: str, *, alone: bool
) -> Call:
    """Return the call that contributes a result; ``alone`` (trust 0 or 1) finalizes the task with it."""
    if alone:
        return hub.contribute_and_finalize(
            ContributionAndResult(
                lease.task_id,
                sealed.result_digest,
                results.encode(),
                sealed.results_callback,
                sealed.enclave_challenge,
                sealed.enclave_signature,
                sealed.authorization,
            )
        )
    return hub.contribute(
        lease.task_id,
        result_hash(lease.task_id, sealed.result_digest),
        result_seal(worker, lease.task_id, sealed.result_digest),
        sealed.enclave_challenge,
        sealed.enclave_signature,
        sealed.authorization,
    )
