"""matchOrders: every refusal by its code, what a deal records, what it locks, what it says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import boa
import pytest
from eth_abi.abi import decode
from eth_hash.auto import keccak
from tests.contracts.hub.actors import (
    NO_DATASET,
    TEE,
    TEE_TDX,
    ZERO,
    ZERO_32,
    Actor,
    compact,
    deal_id,
    malleated,
)
from tests.contracts.hub.chain import CATEGORY_SECONDS, MATCH, PARAMS, Chain, Offers, calldata, now, refused
from tests.contracts.hub.deployment import deploy_hub, double
from tests.contracts.hub.interface import DEAL

SOMEONE = "0x00000000000000000000000000000000000000aa"
SCONE_TEE, TDX_ONLY, GPU = (bit.to_bytes(32, "big") for bit in (3, 8, 256))
Change = Callable[[Offers], Offers]


def attempt(chain: Chain, offers: Offers) -> str | bytes | None:
    return refused(lambda: chain.match(offers))


def view_deal(chain: Chain, deal: bytes) -> dict[str, Any]:
    names = (
        "app dataset workerpool trust category tag requester beneficiary callback params "
        "startTime botFirst botSize workerStake schedulerRewardRatio sponsor"
    )
    return dict(zip(names.split(), chain.view("viewDeal(bytes32)", DEAL, deal), strict=True))


# Code, what is wrong, and the change that makes it so (before signing).
TERMS: list[tuple[str, str, dict[str, Any]]] = [
    ("00", "category differs", {"request_category": 1}),
    ("01", "no such category", {"request_category": 2, "workerpool_category": 2}),
    ("02", "too little trust", {"request_trust": 6}),
    ("03", "app too dear", {"app_appprice": 2}),
    ("04", "dataset too dear", {"dataset_datasetprice": 2}),
    ("05", "workerpool too dear", {"workerpool_workerpoolprice": 2}),
    ("06", "workerpool lacks the app's tag", {"app_tag": bytes([1] + 30 * [0] + [9])}),
    ("06", "workerpool lacks the dataset's tag", {"dataset_tag": GPU}),
    ("06", "workerpool lacks the request's tag", {"request_tag": GPU}),
    ("06", "workerpool lacks the framework of the request", {"request_tag": SCONE_TEE}),
    ("07", "app is not for enclaves, request is", {"app_tag": ZERO_32}),
    ("07", "app is not for enclaves, dataset is", {"app_tag": ZERO_32, "request_tag": ZERO_32}),
    ("10", "another app", {"request_app": SOMEONE}),
    ("11", "another dataset", {"request_dataset": SOMEONE}),
    ("12", "another workerpool", {"request_workerpool": SOMEONE}),
    ("13", "app refuses dataset", {"app_datasetrestrict": SOMEONE}),
    ("14", "app refuses workerpool", {"app_workerpoolrestrict": SOMEONE}),
    ("15", "app refuses requester", {"app_requesterrestrict": SOMEONE}),
    ("16", "dataset refuses app", {"dataset_apprestrict": SOMEONE}),
    ("17", "dataset refuses workerpool", {"dataset_workerpoolrestrict": SOMEONE}),
    ("18", "dataset refuses requester", {"dataset_requesterrestrict": SOMEONE}),
    ("19", "workerpool refuses app", {"workerpool_apprestrict": SOMEONE}),
    ("1a", "workerpool refuses dataset", {"workerpool_datasetrestrict": SOMEONE}),
    ("1b", "workerpool refuses requester", {"workerpool_requesterrestrict": SOMEONE}),
    ("20", "app not registered", {"app_app": SOMEONE, "request_app": SOMEONE}),
    ("30", "dataset not registered", {"dataset_dataset": SOMEONE, "request_dataset": SOMEONE}),
    ("40", "workerpool not registered", {"workerpool_workerpool": SOMEONE, "request_workerpool": SOMEONE}),
    ("60", "nothing left of the app", {"app_volume": 0}),
    ("60", "nothing left of the dataset", {"dataset_volume": 0}),
    ("60", "nothing left of the workerpool", {"workerpool_volume": 0}),
    ("60", "nothing left of the request", {"request_volume": 0}),
]


@pytest.mark.parametrize(
    ("code", "change"), [pytest.param(code, change, id=f"{code} {what}") for code, what, change in TERMS]
)
def test_refused_terms(chain: Chain, code: str, change: dict[str, Any]) -> None:
    offers = chain.orders(trust=5).with_(request_appmaxprice=1, request_datasetmaxprice=1, request_workerpoolmaxprice=1)
    assert attempt(chain, chain.signed(offers.with_(**change))) == f"iExecV5-matchOrders-0x{code}"


@pytest.mark.parametrize(("code", "order"), [("21", "app"), ("31", "dataset"), ("41", "workerpool"), ("50", "request")])
@pytest.mark.parametrize(
    "forgery", ["stranger", "empty s", "other chain", "other hub", "changed", "malleated", "bad v"]
)
def test_refused_signatures(chain: Chain, code: str, order: str, forgery: str) -> None:
    offers = chain.signed(chain.orders())
    genuine = getattr(offers, order)
    owner = {
        "app": chain.app_owner,
        "dataset": chain.data_owner,
        "workerpool": chain.pool_owner,
        "request": chain.requester,
    }[order]
    domain = chain.domain
    match forgery:
        case "stranger":
            sign = chain.attacker.sign(genuine.hash(domain))
        case "empty s":
            sign = genuine.sign[:32] + bytes(32) + b"\x1b"
        case "other chain":
            sign = owner.sign(genuine.hash(type(domain)(1, chain.hub)))
        case "other hub":
            sign = owner.sign(genuine.hash(type(domain)(domain.chain_id, SOMEONE)))
        case "changed":
            sign = owner.sign(genuine.with_(salt=b"\x01" * 32).hash(domain))
        case "malleated":
            sign = malleated(genuine.sign)
        case _:
            sign = genuine.sign[:64] + b"\x1d"
    assert attempt(chain, offers.with_(**{f"{order}_sign": sign})) == f"iExecV5-matchOrders-0x{code}"


@pytest.mark.parametrize("order", ["app", "dataset", "workerpool", "request"])
@pytest.mark.parametrize("length", [0, 1, 63, 66, 1024])
def test_signatures_of_a_wrong_length(chain: Chain, order: str, length: int) -> None:
    offers = chain.signed(chain.orders()).with_(**{f"{order}_sign": bytes(length)})
    assert attempt(chain, offers) == "invalid-signature-format"


def test_compact_signatures_are_the_same_use(chain: Chain) -> None:
    """EIP-2098 forms are accepted, and they are the same orders."""
    offers = chain.signed(chain.orders())
    short = offers.with_(
        **{f"{name}_sign": compact(getattr(offers, name).sign) for name in ("app", "dataset", "workerpool", "request")}
    )
    chain.match(short)
    assert attempt(chain, offers) == "iExecV5-matchOrders-0x60"


def test_previous_owner_of_a_dataset(chain: Chain) -> None:
    """Neither a signature nor a presignature of a former owner holds after the transfer."""
    buyer = Actor.named("buyer")
    offers = chain.signed(chain.orders())
    chain.send(
        chain.data_owner,
        f"manageDatasetOrder(({offers.dataset.abi()},uint8,bytes))",
        (offers.dataset.as_tuple(), 0, b""),
    )
    chain.datasets.transferFrom(
        chain.data_owner.address, buyer.address, int(chain.dataset, 16), sender=chain.data_owner.address
    )
    assert attempt(chain, offers) == "iExecV5-matchOrders-0x31"
    chain.match(offers.with_(dataset_sign=buyer.sign(offers.dataset.hash(chain.domain))))


def test_deal_as_recorded(chain: Chain) -> None:
    chain.fund(chain.requester, 1000)
    chain.fund(chain.pool_owner, 1000)
    chain.workerpools_policy(35, 5)
    offers = chain.signed(
        chain.orders(
            app_price=3,
            dataset_price=5,
            workerpool_price=107,
            volume=3,
            trust=4,
            callback=SOMEONE,
            beneficiary=Actor.named("heir").address,
        )
    )
    deal = chain.match(offers)
    assert deal == deal_id(offers.request.hash(chain.domain))
    assert view_deal(chain, deal) == {
        "app": (chain.app.lower(), chain.app_owner.address.lower(), 3),
        "dataset": (chain.dataset.lower(), chain.data_owner.address.lower(), 5),
        "workerpool": (chain.workerpool.lower(), chain.pool_owner.address.lower(), 107),
        "trust": 4,
        "category": 0,
        "tag": TEE_TDX,
        "requester": chain.requester.address.lower(),
        "beneficiary": Actor.named("heir").address.lower(),
        "callback": SOMEONE,
        "params": PARAMS,
        "startTime": now(),
        "botFirst": 0,
        "botSize": 3,
        "workerStake": 107 * 35 // 100,
        "schedulerRewardRatio": 5,
        "sponsor": chain.requester.address.lower(),
    }
    stake = 107 * 30 // 100 * 3
    assert chain.account(chain.requester) == (1000 - 115 * 3, 115 * 3)
    assert chain.account(chain.pool_owner) == (1000 - stake, stake)
    assert chain.account(chain.hub) == (115 * 3 + stake, 0)


@pytest.mark.parametrize("params", ["", "é" * 7, "x" * 12, "p" * 31, "p" * 32, "q" * 33, "r" * 16384])
@pytest.mark.parametrize("shape", ["bare", "all"])
def test_every_shape_of_a_deal_reads_back(chain: Chain, params: str, shape: str) -> None:
    tag = bytes.fromhex("80" + "00" * 29 + "0109") if shape == "all" else ZERO_32
    offers = chain.orders(
        dataset=shape == "all",
        tag=tag,
        callback=SOMEONE if shape == "all" else ZERO,
        beneficiary=SOMEONE if shape == "all" else None,
        params=params,
    )
    offers = chain.signed(offers)
    sponsor = Actor.named("sponsor")
    signature = ("sponsorMatchOrders" if shape == "all" else "matchOrders") + MATCH
    deal = chain.send(sponsor if shape == "all" else chain.requester, signature, *offers.as_tuples()).output
    read = view_deal(chain, deal)
    assert read["params"] == params
    assert read["tag"] == tag
    assert read["sponsor"] == (sponsor if shape == "all" else chain.requester).address.lower()
    assert read["callback"] == (SOMEONE if shape == "all" else ZERO)
    assert read["beneficiary"] == (SOMEONE if shape == "all" else chain.requester.address.lower())
    assert read["dataset"][:2] == (
        (chain.dataset.lower(), chain.data_owner.address.lower()) if shape == "all" else (ZERO, ZERO)
    )
    assert read["trust"] == 1


def test_params_beyond_the_cap(chain: Chain) -> None:
    assert attempt(chain, chain.signed(chain.orders(params="x" * 16385))) is None


def test_unknown_deal_is_all_zero(chain: Chain) -> None:
    zero = (ZERO, ZERO, 0)
    assert chain.view("viewDeal(bytes32)", DEAL, b"\x01" * 32) == (
        zero, zero, zero, 0, 0, ZERO_32, ZERO, ZERO, ZERO, "", 0, 0, 0, 0, 0, ZERO,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("app", "dataset", "request_", "expected"),
    [
        (TEE_TDX, TEE_TDX, TEE_TDX, TEE_TDX),
        (TEE_TDX, SCONE_TEE, TEE_TDX, TEE_TDX),
        (TEE_TDX, bytes(31) + b"\x0f", TEE, TEE_TDX),
        (TEE, bytes(31) + b"\x0e", ZERO_32, TEE),
        (ZERO_32, TDX_ONLY, ZERO_32, ZERO_32),
    ],
)
def test_framework_bits_of_a_dataset_do_not_count(
    chain: Chain, app: bytes, dataset: bytes, request_: bytes, expected: bytes
) -> None:
    offers = chain.orders().with_(app_tag=app, dataset_tag=dataset, request_tag=request_)
    assert view_deal(chain, chain.match(chain.signed(offers)))["tag"] == expected


def test_no_dataset(chain: Chain) -> None:
    """Whatever else stands in a dataset order without a dataset, it costs nothing and forbids nothing."""
    offers = chain.orders(dataset=False)
    odd = NO_DATASET.with_(apprestrict=SOMEONE, sign=b"", datasetprice=0)
    offers = chain.signed(Offers(offers.app, odd, offers.workerpool, offers.request))
    deal = chain.match(offers)
    assert view_deal(chain, deal)["dataset"] == (ZERO, ZERO, 0)


def test_volume_is_the_least_and_ids_follow_consumption(chain: Chain) -> None:
    offers = chain.orders().with_(
        app_volume=2**256 - 1, dataset_volume=2**53 - 1, workerpool_volume=2, request_volume=5
    )
    offers = chain.signed(offers)
    request = offers.request.hash(chain.domain)
    volume = "computeDealVolume" + MATCH
    for first, size in ((0, 2), (2, 2), (4, 1)):
        salt = bytes([first]) * 32
        workerpool = offers.workerpool.with_(salt=salt).signed(chain.pool_owner, chain.domain)
        now_offers = Offers(offers.app, offers.dataset, workerpool, offers.request)
        assert chain.view(volume, "uint256", *now_offers.as_tuples()) == size
        receipt = chain.send(chain.attacker, "matchOrders" + MATCH, *now_offers.as_tuples())
        assert receipt.output == deal_id(request, first)
        deal = view_deal(chain, receipt.output)
        assert (deal["botFirst"], deal["botSize"]) == (first, size)
        for order in (offers.app, offers.dataset, offers.request):
            assert chain.view("viewConsumed(bytes32)", "uint256", order.hash(chain.domain)) == first + size
        assert chain.view("viewConsumed(bytes32)", "uint256", workerpool.hash(chain.domain)) == size
    fresh = offers.with_(workerpool_salt=b"\xff" * 32)
    assert attempt(chain, chain.signed(fresh)) == "iExecV5-matchOrders-0x60"
    assert chain.view(volume, "uint256", *fresh.as_tuples()) == 0


@pytest.mark.parametrize("volume", [1, 3])
def test_request_used_up_at_once(chain: Chain, volume: int) -> None:
    """Such a request has no word in storage; it is spent all the same, and can still be closed."""
    offers = chain.signed(chain.orders(volume=volume).with_(app_volume=9, dataset_volume=9, workerpool_volume=9))
    request = offers.request.hash(chain.domain)
    chain.match(offers)
    assert chain.view("viewConsumed(bytes32)", "uint256", request) == volume
    assert chain.view("computeDealVolume" + MATCH, "uint256", *offers.as_tuples()) == 0
    assert attempt(chain, offers) == "iExecV5-matchOrders-0x60"
    assert chain.view("isClosed(bytes32)", "bool", request) is False
    chain.send(
        chain.requester,
        f"manageRequestOrder(({offers.request.abi()},uint8,bytes))",
        (offers.request.as_tuple(), 1, b""),
    )
    assert chain.view("isClosed(bytes32)", "bool", request) is True
    assert chain.view("viewConsumed(bytes32)", "uint256", request) == volume
    assert attempt(chain, offers) == "iExecV5-matchOrders-0x60"


def test_presigned_request_used_up_at_once(chain: Chain) -> None:
    offers = chain.signed(chain.orders())
    request = offers.request.hash(chain.domain)
    chain.send(
        chain.requester,
        f"manageRequestOrder(({offers.request.abi()},uint8,bytes))",
        (offers.request.as_tuple(), 0, b""),
    )
    chain.match(offers.with_(request_sign=b""))
    assert chain.view("viewConsumed(bytes32)", "uint256", request) == 1
    assert attempt(chain, offers.with_(request_sign=b"")) == "iExecV5-matchOrders-0x60"


def test_volume_beyond_the_cap_is_cut(chain: Chain) -> None:
    """One request order makes at most 2**40 - 1 tasks."""
    offers = chain.signed(chain.orders(volume=2**256 - 1))
    deal = view_deal(chain, chain.match(offers))
    assert (deal["botFirst"], deal["botSize"]) == (0, 2**40 - 1)
    assert attempt(chain, offers) == "iExecV5-matchOrders-0x60"


def test_n_plus_one_races(chain: Chain) -> None:
    """A dataset order of three accesses serves exactly three of four requests."""
    base = chain.orders().with_(app_volume=99, workerpool_volume=99, dataset_volume=3)
    outcomes = []
    for i in range(4):
        offers = chain.signed(base.with_(request_salt=bytes([i]) * 32))
        try:
            outcomes.append(chain.match(offers))
        except Exception as refusal:  # noqa: BLE001
            outcomes.append(str(refusal).encode())
    assert [len(each) == 32 for each in outcomes] == [True, True, True, False]
    assert outcomes[3] == b"iExecV5-matchOrders-0x60"


def test_too_little_money(chain: Chain) -> None:
    offers = chain.signed(chain.orders(app_price=10))
    chain.fund(chain.requester, 9)
    assert attempt(chain, offers) == "IexecEscrow: Transfer amount exceeds balance"
    chain.fund(chain.requester, 1)
    chain.match(offers)
    poor_pool = chain.signed(chain.orders(workerpool_price=10, salt=b"\x01" * 32))
    chain.fund(chain.requester, 10)
    assert attempt(chain, poor_pool) == "IexecEscrow: Transfer amount exceeds balance"


@pytest.mark.parametrize("price", [2**80, 2**128, 2**255, 2**256 - 1])
@pytest.mark.parametrize("order", ["app", "dataset", "workerpool"])
def test_prices_nobody_can_pay(chain: Chain, order: str, price: int) -> None:
    chain.fund(chain.requester, 10**15)
    chain.fund(chain.pool_owner, 10**15)
    offers = chain.signed(chain.orders(**{f"{order}_price": price}))
    assert attempt(chain, offers) in ("IexecEscrow: Transfer amount exceeds balance", None)
    assert chain.account(chain.requester) == (10**15, 0)


def test_events_in_order(chain: Chain) -> None:
    chain.fund(chain.requester, 1000)
    chain.fund(chain.pool_owner, 1000)
    offers = chain.signed(chain.orders(app_price=1, dataset_price=2, workerpool_price=10, volume=2))
    receipt = chain.send(chain.attacker, "matchOrders" + MATCH, *offers.as_tuples())
    deal = receipt.output
    hashes = [order.hash(chain.domain) for order in (offers.app, offers.dataset, offers.workerpool, offers.request)]
    assert chain.events(receipt) == [
        ("Transfer", chain.requester.address.lower(), chain.hub.lower(), 26),
        ("Lock", chain.requester.address.lower(), 26),
        ("Transfer", chain.pool_owner.address.lower(), chain.hub.lower(), 6),
        ("Lock", chain.pool_owner.address.lower(), 6),
        ("SchedulerNotice", chain.workerpool.lower(), deal),
        ("OrdersMatched", deal, *hashes, 2),
    ]
    assert {log.address for log in receipt.logs} == {chain.hub.lower()}


def test_events_of_a_free_deal(chain: Chain) -> None:
    offers = chain.signed(chain.orders(dataset=False))
    receipt = chain.send(chain.requester, "matchOrders" + MATCH, *offers.as_tuples())
    names = [event[0] for event in chain.events(receipt)]
    assert names == ["Transfer", "Lock", "Transfer", "Lock", "SchedulerNotice", "OrdersMatched"]
    dataset_hash = decode(["bytes32"] * 5 + ["uint256"], receipt.logs[-1].data)[2]
    assert dataset_hash == offers.dataset.hash(chain.domain)


def test_sponsored(chain: Chain) -> None:
    sponsor = Actor.named("sponsor")
    chain.fund(sponsor, 100)
    chain.fund(chain.requester, 100)
    offers = chain.signed(chain.orders(app_price=7))
    receipt = chain.send(sponsor, "sponsorMatchOrders" + MATCH, *offers.as_tuples())
    deal = receipt.output
    assert chain.events(receipt)[-1] == ("DealSponsored", deal, sponsor.address.lower())
    assert view_deal(chain, deal)["sponsor"] == sponsor.address.lower()
    assert view_deal(chain, deal)["requester"] == chain.requester.address.lower()
    assert chain.account(sponsor) == (93, 7)
    assert chain.account(chain.requester) == (100, 0)


def test_a_failed_sponsorship_leaves_no_sponsor_behind(chain: Chain) -> None:
    sponsor = Actor.named("sponsor")
    offers = chain.signed(chain.orders(app_price=7))
    failed = refused(lambda: chain.send(sponsor, "sponsorMatchOrders" + MATCH, *offers.as_tuples()))
    assert failed == "IexecEscrow: Transfer amount exceeds balance"
    chain.fund(sponsor, 100)
    chain.fund(chain.requester, 100)
    assert view_deal(chain, chain.match(offers))["sponsor"] == chain.requester.address.lower()
    assert chain.account(sponsor) == (100, 0)


def test_requester_cannot_withdraw_what_a_deal_locked(chain: Chain) -> None:
    chain.fund(chain.requester, 10)
    chain.match(chain.signed(chain.orders(app_price=7)))
    assert refused(lambda: chain.send(chain.requester, "withdraw(uint256)", 4)) is None
    chain.send(chain.requester, "withdraw(uint256)", 3)
    assert chain.account(chain.requester) == (0, 7)


def test_groups(chain: Chain) -> None:
    group = double("Wallet").deploy()
    names = ("request_workerpool", "app_datasetrestrict", "app_workerpoolrestrict", "app_requesterrestrict",
             "dataset_apprestrict", "dataset_workerpoolrestrict", "dataset_requesterrestrict", "workerpool_apprestrict",
             "workerpool_datasetrestrict", "workerpool_requesterrestrict")  # fmt: skip
    offers = chain.signed(chain.orders().with_(**dict.fromkeys(names, group.address)))
    members = (chain.workerpool, chain.dataset, chain.requester.address, chain.app)
    codes = ("12", "13", "15", "16")
    for member, code in zip(members, codes, strict=True):
        group.add_member(member, 3)
        assert attempt(chain, offers) == f"iExecV5-matchOrders-0x{code}"
        group.add_member(member, 4)
    for mood in (1, 2, 3):
        group.set_mood(mood)
        assert attempt(chain, offers) == "iExecV5-matchOrders-0x12"
    group.set_mood(0)
    chain.match(offers)


def test_contract_owners_sign_by_erc1271_alone(chain: Chain) -> None:
    wallet = double("Wallet").deploy()
    offers = chain.signed(chain.orders().with_(request_requester=wallet.address))
    assert attempt(chain, offers) == "iExecV5-matchOrders-0x50"
    wallet.approve_hash(offers.request.hash(chain.domain))
    for mood in (1, 2, 3):
        wallet.set_mood(mood)
        assert attempt(chain, offers) == "iExecV5-matchOrders-0x50"
    wallet.set_mood(0)
    deal = chain.match(offers.with_(request_sign=b""))
    assert view_deal(chain, deal)["requester"] == wallet.address.lower()


def test_an_account_with_code_does_not_sign_by_key(chain: Chain) -> None:
    """A delegated account (EIP-7702) has code, so its code answers."""
    offers = chain.signed(chain.orders())
    boa.env.set_code(chain.requester.address, bytes.fromhex("60006000fd"))
    assert attempt(chain, offers) == "iExecV5-matchOrders-0x50"


def test_fork_with_another_chain_id(chain: Chain) -> None:
    """Orders of this chain do not hold on a fork of it, without anybody having to do something."""
    offers = chain.signed(chain.orders())
    separator = chain.view("eip712domain_separator()", "bytes32")
    with boa.env.anchor():
        boa.env.evm.patch.chain_id = 421615
        try:
            assert attempt(chain, offers) == "iExecV5-matchOrders-0x21"
            assert chain.view("eip712domain_separator()", "bytes32") == chain.domain.separator() != separator
        finally:
            boa.env.evm.patch.chain_id = 421614
    chain.match(offers)


def test_workerpool_policy_is_taken_at_the_match(chain: Chain) -> None:
    chain.fund(chain.requester, 1000)
    chain.fund(chain.pool_owner, 1000)
    first = chain.match(chain.signed(chain.orders(workerpool_price=100)))
    chain.workerpools_policy(50, 77)
    second = chain.match(chain.signed(chain.orders(workerpool_price=100, salt=b"\x02" * 32)))
    assert [view_deal(chain, deal)["workerStake"] for deal in (first, second)] == [30, 50]
    assert [view_deal(chain, deal)["schedulerRewardRatio"] for deal in (first, second)] == [1, 77]


def test_published_vectors(chain: Chain) -> None:
    """Hashes, signature, deal id and task id of the reference's worked example, on the hub's public address."""
    hub = "0xB2157BF2fAb286b2A4170E3491Ac39770111Da3E"
    signer = Actor.with_secret(b"\x11" * 32)
    assert signer.address == "0x19E7E376E7C213B7E7e7e46cc70A5dD086DAff2A"
    policy = (30 << 128) | 1
    registry = double("AnyRegistry").deploy(signer.address, policy)
    deploy_hub(chain.rlc, registry, registry, registry, ZERO, at=hub)
    vector = Chain(
        chain.deployer,
        hub,
        {},
        chain.rlc,
        registry,
        registry,
        registry,
        "0x" + "11" * 20,
        ZERO,
        "0x" + "22" * 20,
        requester=signer,
    )
    vector.send(vector.deployer, "createCategory(string,string,uint256)", "XS", "", CATEGORY_SECONDS)
    offers = vector.orders(dataset=False)
    offers = offers.with_(app_salt=(1).to_bytes(32, "big"), request_salt=(2).to_bytes(32, "big"))
    separator = bytes.fromhex("de6e7a8f1c22386ba73ee5376e4ec7089a2d2b07ebbfce54d4cb386daa34cc92")
    assert vector.view("eip712domain_separator()", "bytes32") == separator
    sign = bytes.fromhex(
        "6f088d84818166758ca81cc06c75b8480d44db651598fcad85119c3c847dfefe"
        "2cc25d92c86d524ee87bf4788a904801b3abe9639c6b61abe6d485d88e6f92be1b"
    )
    offers = Offers(
        offers.app.with_(sign=sign),
        offers.dataset,
        offers.workerpool.signed(signer, vector.domain),
        offers.request.signed(signer, vector.domain),
    )
    receipt = vector.send(signer, "matchOrders" + MATCH, *offers.as_tuples())
    deal, app, _, _, request, _ = decode(["bytes32"] * 5 + ["uint256"], receipt.logs[-1].data)
    assert app.hex() == "b52252996698e2c99cdd2f0d7c4aba08557c20a6dbb6542e74fe1cdd89b9f523"
    assert request.hex() == "e3ab073f28875f8c15a3977b17de683725771b77146b06bde8ad815958e76dd1"
    assert deal.hex() == "df8b72e77351d4bee4e68445bdfad1db3504977c1670a333c22ceb7c974f6a3b"
    task = vector.send(signer, "initialize(bytes32,uint256)", deal, 0).output
    assert task.hex() == "d1caed5ce6b3486d4392d5954c394462123ccb9ffa06912b44b1944ebf4342e1"


def test_type_hashes(chain: Chain) -> None:
    """The constants of the contract are the hashes of the types that clients sign."""
    source = (Chain.sources() / "hub/orders.vy").read_text()
    offers = chain.orders()
    for order in (offers.app, offers.dataset, offers.workerpool, offers.request):
        operation = f"{order.NAME}Operation({order.NAME} order,uint256 operation){order.type_string()}"
        for kind in (order.type_string(), operation):
            assert f"0x{keccak(kind.encode()).hex()}" in source


def test_dirty_calldata_is_refused(chain: Chain) -> None:
    """An address with bits above the 160th is not decoded into somebody else."""
    offers = chain.signed(chain.orders())
    data = bytearray(calldata("matchOrders" + MATCH, *offers.as_tuples()))
    position = data.index(bytes.fromhex(chain.app[2:])) - 12
    data[position] = 1
    assert refused(lambda: chain.raw(chain.requester, bytes(data))) is None
