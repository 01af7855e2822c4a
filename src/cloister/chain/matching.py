"""Collects, at one block, what ``protocol.matching`` must know of the chain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cloister.chain.hub import Hub
from cloister.chain.registries import RegistryReads
from cloister.chain.rpc import Block, Read, TransactionReverted, block_parameter
from cloister.errors import DecodeError
from cloister.protocol.codec import Address, Bytes32, parse_hex, to_hex
from cloister.protocol.matching import MatchingFacts, groups_asked
from cloister.protocol.orders import NO_DATASET_ORDER, AppOrder, DatasetOrder, Order, RequestOrder, WorkerpoolOrder


def _answers(hub: Hub, reads: Sequence[Read[bool]], block: int) -> list[bool]:
    """Ask many yes-or-no questions; a contract that fails to answer says no, as it does on the hub."""
    answers = hub.rpc.try_batch(
        ("eth_call", ({"to": str(read.to), "data": to_hex(read.data)}, block_parameter(block))) for read in reads
    )
    flags: list[bool] = []
    for read, answer in zip(reads, answers, strict=True):
        if isinstance(answer, TransactionReverted):
            flags.append(False)
            continue
        if isinstance(answer, Exception):
            raise answer
        try:
            flags.append(read.decode(parse_hex(answer)))
        except DecodeError:
            flags.append(False)
    return flags


def _contract_signers(
    hub: Hub, orders: Sequence[Order], signers: Sequence[Address | None], block: int
) -> tuple[frozenset[Address], frozenset[Bytes32]]:
    """Return which signers are contracts, and the hashes of the orders whose signature such a signer accepts."""
    known = [(order, signer) for order, signer in zip(orders, signers, strict=True) if signer is not None]
    codes = hub.rpc.batch(("eth_getCode", (signer, block_parameter(block))) for _, signer in known)
    by_contract = [pair for pair, code in zip(known, codes, strict=True) if code != "0x"]
    domain = hub.domain
    accepted = _answers(
        hub, [hub.reads.is_signed(signer, order.hash(domain), order.sign) for order, signer in by_contract], block
    )
    hashes = [order.hash(domain) for (order, _), flag in zip(by_contract, accepted, strict=True) if flag]
    return frozenset(signer for _, signer in by_contract), frozenset(hashes)


def load_matching_facts(
    hub: Hub,
    app: AppOrder,
    dataset: DatasetOrder | None,
    workerpool: WorkerpoolOrder,
    request: RequestOrder,
    *,
    block: Block,
) -> MatchingFacts:
    """Read the facts of four orders in four round trips, all at one block.

    Raises what ``JsonRpc`` raises.
    """
    number = block if isinstance(block, int) else hub.rpc.block_number()
    data = NO_DATASET_ORDER if dataset is None else dataset
    has_dataset = not data.dataset.is_zero
    domain = hub.domain
    orders: list[Order] = [app, workerpool, request]
    if has_dataset:
        orders.append(data)
    hashes = {order.kind: order.hash(domain) for order in orders}

    registries = [RegistryReads(address) for address in hub.registries(block=number)]
    entries = [app.app, data.dataset, workerpool.workerpool]
    registered = _answers(
        hub, [registry.is_registered(entry) for registry, entry in zip(registries, entries, strict=True)], number
    )
    known = [entry for entry, flag in zip(entries, registered, strict=True) if flag]
    reads: list[Read[Any]] = [hub.reads.category_count()]
    reads += [hub.reads.consumed(item) for item in hashes.values()]
    reads += [hub.reads.presigned(item) for item in hashes.values()]
    reads += [hub.reads.owner_of(entry) for entry in known]
    values = iter(hub.rpc.read_all(reads, block=number))
    category_count: int = next(values)
    consumed: dict[Bytes32, int] = {item: next(values) for item in hashes.values()}
    presigned: dict[Bytes32, Address] = {item: next(values) for item in hashes.values()}
    owners: dict[Address, Address] = {entry: next(values) for entry in known}
    signers = [request.requester if order is request else owners.get(order.resource) for order in orders]
    contracts, accepted = _contract_signers(hub, orders, signers, number)

    asked = groups_asked(app, data, workerpool, request)
    belongs = _answers(hub, [hub.reads.group_has(group, member) for group, member in asked], number)
    return MatchingFacts(
        domain=domain,
        category_count=category_count,
        owners=owners,
        consumed=consumed,
        presigned=presigned,
        contracts=contracts,
        contract_signed=accepted,
        members=frozenset(pair for pair, flag in zip(asked, belongs, strict=True) if flag),
    )
