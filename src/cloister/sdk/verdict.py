"""The verdict on a receipt: what a stranger may take from it, offline and beside the chain."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloister.attestation.receipt import BulkUse, DatasetUse, VerifiedReceipt
from cloister.attestation.transparency import SignedHead, verify_consistency
from cloister.errors import LocalError, VerificationError
from cloister.protocol.codec import Address, Bytes32, to_hex
from cloister.protocol.results import result_hash
from cloister.protocol.tasks import ContributionStatus, Task, TaskStatus, task_id
from cloister.sdk.home import LOCAL
from cloister.sdk.receipts import (
    ReferenceValues,
    check_receipt,
    load_reference_values,
    read_receipt,
    read_reference_values,
)

if TYPE_CHECKING:
    from cloister.chain.contracts import Hub, Registry
    from cloister.chain.rpc import JsonRpc
    from cloister.protocol.deals import Deal

_SEAL = object()


@dataclass(frozen=True, slots=True)
class ChainProof:
    """Proof that the chain says the same as a receipt, at one block. Built by ``verify_on_chain`` only."""

    block: int
    _seal: object

    def __post_init__(self) -> None:
        if self._seal is not _SEAL:
            raise LocalError("a chain proof is built by verify_on_chain() only")


@dataclass(frozen=True, slots=True)
class Verdict:
    """A receipt that holds. ``chain`` is None when no chain was asked, ``log`` (the log's head of today) when no log was."""

    verified: VerifiedReceipt
    chain: ChainProof | None
    log: SignedHead | None = None

    @property
    def warning(self) -> str | None:
        """The words that must stand beside anything that rests on this receipt."""
        return self.verified.warning

    def to_json(self) -> dict[str, Any]:
        """Every claim of the receipt and what is proven by whom, for machines."""
        claims, statement, appraisal = self.verified.claims, self.verified.statement, self.verified.appraisal
        binding, judgement, log = claims.binding, statement.facts.judgement, statement.log
        return {
            "verified": True,
            "warning": self.warning,
            "chain_id": binding.chain_id,
            "hub": to_hex(binding.hub),
            "sms": to_hex(binding.sms),
            "deal_id": to_hex(claims.deal_id),
            "index": claims.index,
            "task_id": to_hex(binding.task_id),
            "app": to_hex(claims.app),
            "app_digest": to_hex(binding.app_digest),
            "requester": to_hex(claims.requester),
            "worker": to_hex(claims.worker),
            "enclave_challenge": to_hex(binding.challenge),
            "dataset": None if claims.dataset is None else to_hex(claims.dataset.address),
            "dataset_checksum": None if claims.dataset is None else to_hex(claims.dataset.checksum),
            "grant": None if claims.dataset is None else _hex(claims.dataset.order_hash),
            "policy": None if claims.dataset is None else _hex(claims.dataset.policy_hash),
            "bulk": None if claims.bulk is None else [_item(item) for item in claims.bulk],
            "inputs": [{"name": item.name, "sha256": to_hex(item.sha256)} for item in claims.inputs],
            "result_digest": to_hex(claims.result_digest),
            "output_digest": to_hex(claims.output_digest),
            "cause": claims.cause,
            "started_at": _time(claims.started_at),
            "finished_at": _time(claims.finished_at),
            "evidence": {
                "kind": claims.evidence.kind.value,
                "sha256": to_hex(hashlib.sha256(claims.evidence.payload).digest()),
                "measurement": to_hex(appraisal.claims.measurement),
                "platform": to_hex(appraisal.claims.platform),
                "debug": appraisal.claims.debug,
                "nonce": to_hex(binding.nonce),
                "hpke_key_sha256": to_hex(binding.hpke_key_hash),
                "collateral_sha256": to_hex(hashlib.sha256(statement.collateral).digest()),
            },
            "appraisal": {
                "by": to_hex(binding.sms),
                "at": _time(judgement.appraised_at),
                "tcb": judgement.tcb,
                "marks": list(judgement.marks),
                "policy_sha256": to_hex(judgement.policy),
            },
            "countersigned_at": _time(statement.issued_at),
            "receipt_sha256": to_hex(statement.receipt),
            "log": {
                "index": log.index,
                "size": log.size,
                "root": to_hex(self.verified.head.root),
                "timestamp": _time(log.timestamp),
                "continued_to": None if self.log is None else self.log.size,
            },
            "chain": None if self.chain is None else {"verified": True, "block": self.chain.block},
        }


def verify_receipt(
    receipt: Path | str | bytes,
    *,
    network: str = LOCAL,
    roots: ReferenceValues | Path | str | None = None,
    rpc: str | None = None,
    log: str | None = None,
    result_digest: bytes | None = None,
) -> Verdict:
    """Prove a receipt (a file's path, or its bytes) offline; beside the chain too when ``rpc``, a node's URL, is given, and
    against the transparency log of today when ``log``, the SMS's URL, is.

    Trust comes from ``roots`` (reference values, or a file of them), else from what is pinned for ``network`` on this
    machine, or from what a network's URL says of itself. ``result_digest``: 32 bytes that the caller has from the chain.

    Raises:
        NotFound: no such file, or nothing is pinned. DecodeError, VerificationError, PolicyRejected: it does not hold;
        ``code`` names the reason and ``part`` the part of the receipt.
    """
    encoded = receipt if isinstance(receipt, bytes) else read_receipt(Path(receipt))
    if roots is None:
        values = load_reference_values(network)
    else:
        values = roots if isinstance(roots, ReferenceValues) else read_reference_values(Path(roots))
    verified = check_receipt(encoded, values, result_digest=result_digest)
    return Verdict(
        verified,
        None if rpc is None else verify_on_chain(verified, rpc),
        None if log is None else verify_in_log(verified, log),
    )


def verify_in_log(verified: VerifiedReceipt, url: str) -> SignedHead:
    """Prove that the log that the SMS shows today continues the one that the receipt's release is in. Returns its head.

    Raises:
        VerificationError: ``log-shrunk``, ``log-split``: it shows others another log than it showed this enclave.
        UnavailableError: it does not answer.
    """
    from cloister.clients.sms import SmsClient

    then, origin = verified.head, verified.head.origin
    client = SmsClient(url, chain_id=origin.chain_id, hub=Address.from_raw(origin.hub))
    head = client.log_head(Address.from_raw(origin.sms))
    path = client.log_consistency(then.size, head.size) if then.size < head.size else ()
    verify_consistency(then.size, head.size, path, then.root, head.root)
    return head


def verify_on_chain(verified: VerifiedReceipt, rpc_url: str) -> ChainProof:
    """Hold a receipt against the chain that it names, all at one block.

    The checks: the hub stands and its ``teebroker`` is the SMS that countersigned; the deal hired this app and this data for
    this requester, and made this task; the task completed with this result; this worker contributed it with this enclave's
    key; app and data have these checksums on chain.

    Raises:
        VerificationError (``chain-mismatch``): names every difference. UnavailableError: the node does not answer.
    """
    from cloister.chain.contracts import Hub
    from cloister.chain.rpc import JsonRpc

    rpc = JsonRpc(rpc_url)
    try:
        block = rpc.block_number()
        different = list(_compare(verified, rpc, Hub(rpc, Address.from_raw(verified.claims.binding.hub)), block))
    finally:
        rpc.close()
    if different:
        raise VerificationError(
            f"the chain says otherwise at block {block}: {'; '.join(different)}",
            code="chain-mismatch",
            hint="a node that is behind, or another chain, says otherwise too",
        )
    return ChainProof(block, _SEAL)


def _compare(verified: VerifiedReceipt, rpc: JsonRpc, hub: Hub, block: int) -> Iterator[str]:
    claims, binding = verified.claims, verified.claims.binding
    chain_id = rpc.chain_id
    if chain_id != binding.chain_id:
        yield f"the node serves chain {chain_id}, the receipt is of chain {binding.chain_id}"
        return
    if not rpc.code(hub.address, block=block):
        yield f"no hub stands at {hub.address}"
        return
    broker = hub.contract("teebroker", block=block)
    if broker.raw != binding.sms:
        yield f"the hub's teebroker is {broker}, the receipt's sms is {to_hex(binding.sms)}"
    deal = hub.deal(Bytes32.from_raw(claims.deal_id), block=block)
    if deal is None:
        yield f"there is no deal {to_hex(claims.deal_id)}"
        return
    yield from _compare_deal(verified, deal)
    task = hub.task(Bytes32.from_raw(binding.task_id), block=block)
    if task is None:
        yield f"there is no task {to_hex(binding.task_id)}"
    else:
        yield from _compare_task(verified, task, hub, block)
    yield from _compare_entries(verified, rpc, hub, block)


def _compare_deal(verified: VerifiedReceipt, deal: Deal) -> Iterator[str]:
    claims = verified.claims
    dataset = bytes(20) if claims.dataset is None else claims.dataset.address
    for name, theirs, ours in (
        ("app", deal.app.pointer, claims.app),
        ("dataset", deal.dataset.pointer, dataset),
        ("requester", deal.requester, claims.requester),
    ):
        if theirs.raw != ours:
            yield f"the deal's {name} is {theirs}, the receipt's is {to_hex(ours)}"
    if claims.index not in deal.indexes():
        yield f"the deal has no task of index {claims.index}"
    derived = task_id(Bytes32.from_raw(claims.deal_id), claims.index)
    if derived.raw != claims.binding.task_id:
        yield f"task {claims.index} of the deal is {derived}, the receipt's is {to_hex(claims.binding.task_id)}"


def _compare_task(verified: VerifiedReceipt, task: Task, hub: Hub, block: int) -> Iterator[str]:
    claims, identity = verified.claims, Bytes32.from_raw(verified.claims.binding.task_id)
    if task.status is not TaskStatus.COMPLETED:
        yield f"the task is {task.status.name}"
        return
    if task.deal_id.raw != claims.deal_id:
        yield f"the task is of deal {task.deal_id}"
    if task.result_digest.raw != claims.result_digest:
        yield f"the task's result digest is {task.result_digest}, the receipt's is {to_hex(claims.result_digest)}"
    worker = Address.from_raw(claims.worker)
    contribution = hub.contribution(identity, worker, block=block)
    if contribution.status in (ContributionStatus.UNSET, ContributionStatus.REJECTED):
        yield f"worker {worker} contributed no accepted result"
        return
    if contribution.enclave_challenge.raw != claims.binding.challenge:
        yield f"the contribution is of enclave {contribution.enclave_challenge}"
    if contribution.result_hash != result_hash(identity, Bytes32.from_raw(claims.result_digest)):
        yield "the contribution is of another result"


def _compare_entries(verified: VerifiedReceipt, rpc: JsonRpc, hub: Hub, block: int) -> Iterator[str]:
    from cloister.chain.contracts import Registry

    claims = verified.claims
    app = Registry(rpc, hub.contract("appregistry", block=block)).app(Address.from_raw(claims.app), block=block)
    if app is None:
        yield f"{to_hex(claims.app)} is no registered app"
    elif app.checksum.raw != claims.binding.app_digest:
        yield f"the app's checksum is {app.checksum}, the enclave ran {to_hex(claims.binding.app_digest)}"
    uses = [claims.dataset, *(item.released for item in claims.bulk or ())]
    datasets = Registry(rpc, hub.contract("datasetregistry", block=block))
    for use in {use.address: use for use in uses if use is not None}.values():
        yield from _compare_data(use, datasets, block)


def _compare_data(use: DatasetUse, datasets: Registry, block: int) -> Iterator[str]:
    entry = datasets.dataset(Address.from_raw(use.address), block=block)
    if entry is None:
        yield f"{to_hex(use.address)} is no registered data"
    elif entry.checksum.raw != use.checksum:
        yield f"the checksum of {entry.address} is {entry.checksum}, the receipt's is {to_hex(use.checksum)}"


def _item(item: BulkUse) -> dict[str, str | None]:
    """One item of a bulk slice: what was opened, under which grant, or why nothing was."""
    use = item.released
    return {
        "dataset": to_hex(item.address),
        "cause": item.cause,
        "checksum": None if use is None else to_hex(use.checksum),
        "order_hash": None if use is None else _hex(use.order_hash),
        "policy_hash": None if use is None else _hex(use.policy_hash),
        "sha256": _hex(item.sha256),
    }


def _hex(raw: bytes | None) -> str | None:
    return None if raw is None else to_hex(raw)


def _time(seconds: int) -> str:
    return datetime.fromtimestamp(min(seconds, 253402300799), UTC).isoformat()
