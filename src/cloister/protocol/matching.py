"""Whether four orders make a deal: the pure twin of the hub's ``matchOrders`` (reference 1.6, 1.10).

``match_orders`` makes the hub's checks in the hub's order and refuses with the hub's codes, but says which value is
wrong. What the chain knows is an argument (``MatchingFacts``), taken at one block.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from cloister.errors import Conflict, VerificationError
from cloister.protocol.codec import ZERO_ADDRESS, Address, Bytes32
from cloister.protocol.eip712 import Domain
from cloister.protocol.orders import (
    NO_DATASET_ORDER,
    AppOrder,
    DatasetOrder,
    Order,
    RequestOrder,
    WorkerpoolOrder,
    verify_order_signature,
)
from cloister.protocol.tags import FRAMEWORKS, TDX, TEE, Tag, tag_names

WORKERPOOL_STAKE_PERCENT: Final = 30
"""What a workerpool's owner locks of its price for each task."""


@dataclass(frozen=True, slots=True)
class MatchingFacts:
    """What the chain knows at one block.

    ``owners`` holds the owners of registered apps, datasets and workerpools, by entry. ``consumed`` counts the volume
    used by order hash (missing means 0). ``presigned`` names who presigned an order hash. ``contracts`` holds the
    signers that are contracts, ``contract_signed`` the order hashes whose signature such a signer accepts (ERC-1271).
    ``members`` holds (group, address) pairs that a group contract (ERC-734) confirms.
    """

    domain: Domain
    category_count: int
    owners: Mapping[Address, Address]
    consumed: Mapping[Bytes32, int] = field(default_factory=dict)
    presigned: Mapping[Bytes32, Address] = field(default_factory=dict)
    contracts: frozenset[Address] = frozenset()
    contract_signed: frozenset[Bytes32] = frozenset()
    members: frozenset[tuple[Address, Address]] = frozenset()


class MatchRefused(Conflict):  # the word of the field
    """The hub would refuse these orders. ``match_code`` is its number (``0x06``), ``reason`` its revert string."""

    code = "match-refused"

    def __init__(self, match_code: int, message: str) -> None:
        super().__init__(f"the orders do not match (0x{match_code:02x}): {message}", code=f"match-0x{match_code:02x}")
        self.match_code = match_code
        self.reason = f"iExecV5-matchOrders-0x{match_code:02x}"


@dataclass(frozen=True, slots=True)
class Match:
    """The deal that the four orders make. Amounts are nRLC. Built only by ``match_orders``."""

    app_hash: Bytes32
    dataset_hash: Bytes32
    workerpool_hash: Bytes32
    request_hash: Bytes32
    volume: int
    bot_first: int
    tag: Tag
    trust: int
    task_price: int
    """What one task costs."""
    total_price: int
    """What the sponsor must have staked."""
    pool_stake: int
    """What the workerpool's owner must have staked."""


def result_tag(app: AppOrder, dataset: DatasetOrder, request: RequestOrder) -> Tag:
    """Return what the deal demands; a dataset's framework bits are ignored since PoCo 6.2."""
    return app.tag | dataset.tag.without(FRAMEWORKS) | request.tag


def _shown(tag: Tag) -> str:
    """Name a tag's bits for a message; bits without a name show as hex."""
    try:
        return f"[{', '.join(tag_names(tag))}]"
    except Exception:  # noqa: BLE001  # only how a refusal reads
        return str(tag)


def restriction_allows(restriction: Address, address: Address, members: frozenset[tuple[Address, Address]]) -> bool:
    """Whether a restriction lets an address through: it is none, the very address, or a group that has it."""
    return restriction in (ZERO_ADDRESS, address) or (restriction, address) in members


def groups_asked(
    app: AppOrder, dataset: DatasetOrder, workerpool: WorkerpoolOrder, request: RequestOrder
) -> list[tuple[Address, Address]]:
    """Return the (restriction, address) pairs that only the chain can decide, because they may be groups."""
    return [
        (restriction, address)
        for _, _, restriction, address in _restrictions(app, dataset, workerpool, request)
        if restriction not in (ZERO_ADDRESS, address)
    ]


def _restrictions(
    app: AppOrder, dataset: DatasetOrder, workerpool: WorkerpoolOrder, request: RequestOrder
) -> list[tuple[int, str, Address, Address]]:
    """Return (code, name, restriction, address) in the contract's order."""
    checks = [
        (0x12, "the request's workerpool", request.workerpool, workerpool.workerpool),
        (0x13, "the app order's dataset restriction", app.datasetrestrict, dataset.dataset),
        (0x14, "the app order's workerpool restriction", app.workerpoolrestrict, workerpool.workerpool),
        (0x15, "the app order's requester restriction", app.requesterrestrict, request.requester),
    ]
    if not dataset.dataset.is_zero:
        checks += [
            (0x16, "the dataset order's app restriction", dataset.apprestrict, app.app),
            (0x17, "the dataset order's workerpool restriction", dataset.workerpoolrestrict, workerpool.workerpool),
            (0x18, "the dataset order's requester restriction", dataset.requesterrestrict, request.requester),
        ]
    return [
        *checks,
        (0x19, "the workerpool order's app restriction", workerpool.apprestrict, app.app),
        (0x1A, "the workerpool order's dataset restriction", workerpool.datasetrestrict, dataset.dataset),
        (0x1B, "the workerpool order's requester restriction", workerpool.requesterrestrict, request.requester),
    ]


def _check_terms(app: AppOrder, dataset: DatasetOrder, workerpool: WorkerpoolOrder, request: RequestOrder) -> None:
    """Codes 0x02 to 0x07: trust, prices, tags."""
    if request.trust > workerpool.trust:
        raise MatchRefused(0x02, f"the workerpool offers trust {workerpool.trust}, {request.trust} is asked")
    prices = (
        (0x03, "app", app.appprice, request.appmaxprice),
        (0x04, "dataset", dataset.datasetprice, request.datasetmaxprice),
        (0x05, "workerpool", workerpool.workerpoolprice, request.workerpoolmaxprice),
    )
    for code, name, price, most in prices:
        if price > most:
            raise MatchRefused(code, f"the {name} costs {price} nRLC, the request pays at most {most}")
    tag = result_tag(app, dataset, request)
    if not (missing := tag.without(workerpool.tag)).is_zero:
        raise MatchRefused(0x06, f"the workerpool order lacks the tags {_shown(missing)}")
    if tag.has(TEE) and not app.tag.has(TEE):
        raise MatchRefused(0x07, "the app order lacks the tag [tee]")


def _check_parties(
    app: AppOrder,
    dataset: DatasetOrder,
    workerpool: WorkerpoolOrder,
    request: RequestOrder,
    members: frozenset[tuple[Address, Address]],
) -> None:
    """Codes 0x10 to 0x1b: everyone deals with whom they named."""
    if request.app != app.app:
        raise MatchRefused(0x10, f"the request names app {request.app}, the app order {app.app}")
    if request.dataset != dataset.dataset:
        raise MatchRefused(0x11, f"the request names dataset {request.dataset}, the dataset order {dataset.dataset}")
    for code, name, restriction, address in _restrictions(app, dataset, workerpool, request):
        if not restriction_allows(restriction, address, members):
            raise MatchRefused(code, f"{name} is {restriction}, which does not admit {address}")


def _check_authority(order: Order, signer: Address, order_hash: Bytes32, code: int, facts: MatchingFacts) -> None:
    """Whether ``signer`` presigned or signed the order; its codes are 0x21, 0x31, 0x41, 0x50."""
    if not signer.is_zero and facts.presigned.get(order_hash) == signer:
        return
    if signer in facts.contracts:
        if order_hash not in facts.contract_signed:
            raise MatchRefused(
                code, f"the contract {signer} does not accept the signature of {order.kind} {order_hash}"
            )
        return
    try:
        verify_order_signature(order, signer, facts.domain)
    except VerificationError as error:
        raise MatchRefused(code, error.message) from error


def _owner(facts: MatchingFacts, entry: Address, code: int, name: str) -> Address:
    owner = facts.owners.get(entry, ZERO_ADDRESS)
    if owner.is_zero:
        raise MatchRefused(code, f"no {name} is registered at {entry}")
    return owner


def match_orders(
    app: AppOrder,
    dataset: DatasetOrder | None,
    workerpool: WorkerpoolOrder,
    request: RequestOrder,
    facts: MatchingFacts,
) -> Match:
    """Prove that the hub would make a deal of these orders, stakes aside, and say which.

    Raises:
        MatchRefused: with the code of the hub's first objection, 0x00 to 0x60.
    """
    data = NO_DATASET_ORDER if dataset is None else dataset
    if request.category != workerpool.category:
        raise MatchRefused(
            0x00, f"the request's category is {request.category}, the workerpool's {workerpool.category}"
        )
    if request.category >= facts.category_count:
        raise MatchRefused(0x01, f"there is no category {request.category}")
    _check_terms(app, data, workerpool, request)
    _check_parties(app, data, workerpool, request, facts.members)

    has_dataset = not data.dataset.is_zero
    app_hash, dataset_hash = app.hash(facts.domain), data.hash(facts.domain)
    workerpool_hash, request_hash = workerpool.hash(facts.domain), request.hash(facts.domain)
    _check_authority(app, _owner(facts, app.app, 0x20, "app"), app_hash, 0x21, facts)
    if has_dataset:
        _check_authority(data, _owner(facts, data.dataset, 0x30, "dataset"), dataset_hash, 0x31, facts)
    pool_owner = _owner(facts, workerpool.workerpool, 0x40, "workerpool")
    _check_authority(workerpool, pool_owner, workerpool_hash, 0x41, facts)
    _check_authority(request, request.requester, request_hash, 0x50, facts)

    orders: list[tuple[Order, Bytes32]] = [(app, app_hash), (workerpool, workerpool_hash), (request, request_hash)]
    if has_dataset:
        orders.insert(1, (data, dataset_hash))
    left = {order.kind: remaining_volume(order, order_hash, facts) for order, order_hash in orders}
    volume = min(left.values())
    if volume == 0:
        used_up = ", ".join(kind for kind, count in left.items() if count == 0)
        raise MatchRefused(0x60, f"{used_up} is fully consumed")

    task_price = app.appprice + (data.datasetprice if has_dataset else 0) + workerpool.workerpoolprice
    return Match(
        app_hash=app_hash,
        dataset_hash=dataset_hash,
        workerpool_hash=workerpool_hash,
        request_hash=request_hash,
        volume=volume,
        bot_first=facts.consumed.get(request_hash, 0),
        tag=result_tag(app, data, request),
        trust=max(request.trust, 1),
        task_price=task_price,
        total_price=task_price * volume,
        pool_stake=workerpool.workerpoolprice * WORKERPOOL_STAKE_PERCENT // 100 * volume,
    )


def remaining_volume(order: Order, order_hash: Bytes32, facts: MatchingFacts) -> int:
    """How much of the order is left."""
    return max(0, order.volume - facts.consumed.get(order_hash, 0))


def solvability(match: Match, *, sponsor_stake: int, pool_owner_stake: int) -> None:
    """Check that both sides have staked what the deal locks. The texts are those of iExec's clients.

    Raises:
        Conflict: ``stake-too-low`` (the requester) or ``pool-stake-too-low`` (the workerpool's owner).
    """
    if match.pool_stake > pool_owner_stake:
        raise Conflict(
            f"workerpool required stake ({match.pool_stake}) is greater than workerpool owner's account stake "
            f"({pool_owner_stake}). Orders can't be matched. If you are the workerpool owner, you should deposit to "
            "top up your account",
            code="pool-stake-too-low",
        )
    advice = "Orders can't be matched. If you are the requester, you should deposit to top up your account"
    if match.task_price > sponsor_stake:
        raise Conflict(
            f"Cost per task ({match.task_price}) is greater than requester account stake ({sponsor_stake}). {advice}",
            code="stake-too-low",
        )
    if match.total_price > sponsor_stake:
        raise Conflict(
            f"Total cost for {match.volume} tasks ({match.total_price}) is greater than requester account stake "
            f"({sponsor_stake}). {advice}",
            code="stake-too-low",
        )


def check_tdx(tag: Tag) -> None:
    """Refuse a deal that iExec's current clients would refuse: it must have both tee and tdx.

    Raises:
        Conflict: in their words.
    """
    if not tag.has(TEE | TDX):
        raise Conflict(
            "Resulting deal tag must have both [tee] and [tdx] tags active. Matching orders have incompatible tags.",
            code="deal-not-tee-tdx",
        )
