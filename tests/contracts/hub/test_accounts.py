"""Deposits, withdrawals, the ERC-20 face of staked RLC, and the owner's calls."""

from __future__ import annotations

import pytest
from tests.contracts.hub.actors import ZERO, Actor, DatasetOrder
from tests.contracts.hub.chain import MATCH, Chain, Reverted, calldata, refused, selector, transact
from tests.contracts.hub.deployment import double

RECEIVE = "receiveApproval(address,uint256,address,bytes)"


def supply(chain: Chain) -> int:
    total: int = chain.view("totalSupply()", "uint256")
    assert chain.rlc.balanceOf(chain.hub) >= total
    return total


def test_deposits(chain: Chain) -> None:
    one, two = chain.requester.address, chain.worker.address
    chain.rlc.approve(chain.hub, 100, sender=chain.deployer)
    receipt = chain.send(chain.deployer, "deposit(uint256)", 10)
    assert receipt.value("bool") is True
    assert chain.events(receipt)[-1] == ("Transfer", ZERO, chain.deployer.lower(), 10)
    chain.send(chain.deployer, "depositFor(uint256,address)", 20, one)
    chain.send(chain.deployer, "depositForArray(uint256[],address[])", [1, 2], [one, two])
    array = refused(lambda: chain.send(chain.deployer, "depositForArray(uint256[],address[])", [1], [one, two]))
    assert array == "invalid-array-length"
    assert (
        refused(lambda: chain.send(chain.deployer, "depositFor(uint256,address)", 1, ZERO))
        == "ERC20: mint to the zero address"
    )
    assert refused(lambda: chain.send(chain.attacker, "deposit(uint256)", 1)) is not None
    assert (chain.account(one), chain.account(two)) == ((21, 0), (2, 0))
    assert supply(chain) == 33


def test_withdrawals(chain: Chain) -> None:
    chain.fund(chain.requester, 100)
    receipt = chain.send(chain.requester, "withdraw(uint256)", 40)
    assert chain.events(receipt) == [("Transfer", chain.requester.address.lower(), ZERO, 40)]
    chain.send(chain.requester, "withdrawTo(uint256,address)", 50, chain.worker.address)
    assert refused(lambda: chain.send(chain.requester, "withdraw(uint256)", 11)) is None
    assert chain.rlc.balanceOf(chain.requester.address) == 40
    assert chain.rlc.balanceOf(chain.worker.address) == 50
    assert supply(chain) == 10


def test_recover(chain: Chain) -> None:
    chain.rlc.transfer(chain.hub, 77, sender=chain.deployer)
    assert refused(lambda: chain.send(chain.attacker, "recover()")) == "Ownable: caller is not the owner"
    assert chain.send(chain.deployer, "recover()").value("uint256") == 77
    assert chain.account(chain.deployer) == (77, 0)


def test_approve_and_call_deposits(chain: Chain) -> None:
    chain.rlc.transfer(chain.requester.address, 50, sender=chain.deployer)
    chain.rlc.approveAndCall(chain.hub, 50, b"", sender=chain.requester.address)
    assert chain.account(chain.requester) == (50, 0)
    wrong = refused(lambda: chain.send(chain.attacker, RECEIVE, chain.requester.address, 0, chain.app, b""))
    assert wrong == "wrong-token"


def test_deposit_and_match_at_once(chain: Chain) -> None:
    chain.rlc.transfer(chain.requester.address, 50, sender=chain.deployer)
    offers = chain.signed(chain.orders(app_price=50))
    data = calldata("matchOrders" + MATCH, *offers.as_tuples())
    send = lambda body: transact(  # noqa: E731
        chain.requester.address,
        chain.rlc.address,
        calldata("approveAndCall(address,uint256,bytes)", chain.hub, 50, body),
    )
    other = chain.signed(chain.orders().with_(request_requester=chain.attacker.address))
    stranger = calldata("matchOrders" + MATCH, *other.as_tuples())
    assert refused(lambda: send(stranger)) == selector("CallerIsNotTheRequester()")
    unsupported = selector("UnsupportedOperation(bytes4)")
    assert refused(lambda: send(b"\x01\x02\x03\x04")) == unsupported + b"\x01\x02\x03\x04" + bytes(28)
    broken = calldata("matchOrders" + MATCH, *offers.with_(app_volume=0).as_tuples())
    assert refused(lambda: send(broken)) == "iExecV5-matchOrders-0x21"
    send(data)
    assert chain.account(chain.requester) == (0, 50)


def test_transfers(chain: Chain) -> None:
    one, two, three = chain.requester, chain.worker.address, chain.attacker
    chain.fund(one, 100)
    chain.send(one, "transfer(address,uint256)", two, 10)
    assert refused(lambda: chain.send(one, "transfer(address,uint256)", two, 91)) is None
    assert (
        refused(lambda: chain.send(one, "transfer(address,uint256)", ZERO, 1)) == "ERC20: transfer to the zero address"
    )
    chain.send(one, "approve(address,uint256)", three.address, 20)
    receipt = chain.send(three, "transferFrom(address,address,uint256)", one.address, two, 5)
    assert chain.events(receipt) == [
        ("Transfer", one.address.lower(), two.lower(), 5),
        ("Approval", one.address.lower(), three.address.lower(), 15),
    ]
    assert refused(lambda: chain.send(three, "transferFrom(address,address,uint256)", one.address, two, 16)) is None
    chain.send(one, "increaseAllowance(address,uint256)", three.address, 5)
    chain.send(one, "decreaseAllowance(address,uint256)", three.address, 19)
    assert chain.view("allowance(address,address)", "uint256", one.address, three.address) == 1
    assert refused(lambda: chain.send(one, "decreaseAllowance(address,uint256)", three.address, 2)) is None
    assert refused(lambda: chain.send(one, "approve(address,uint256)", ZERO, 1)) == "ERC20: approve to the zero address"
    chain.send(one, "approve(address,uint256)", three.address, 2**256 - 1)
    chain.send(three, "transferFrom(address,address,uint256)", one.address, two, 1)
    assert chain.view("allowance(address,address)", "uint256", one.address, three.address) == 2**256 - 2
    assert chain.view("balanceOf(address)", "uint256", two) == 16
    assert [chain.view(f"{each}()", kind) for each, kind in (("name", "string"), ("symbol", "string"), ("decimals", "uint8"))] == [
        "Staked RLC", "SRLC", 9,
    ]  # fmt: skip


def test_own_approve_and_call(chain: Chain) -> None:
    spender = double("Spender").deploy()
    signature = "approveAndCall(address,uint256,bytes)"
    assert refused(lambda: chain.send(chain.requester, signature, spender.address, 5, b"x")) == "approval-refused"
    spender.set_willing(True)
    chain.send(chain.requester, signature, spender.address, 5, b"x")
    assert (spender.sender(), spender.amount(), spender.token(), spender.data()) == (
        chain.requester.address,
        5,
        chain.hub,
        b"x",
    )
    assert chain.view("allowance(address,address)", "uint256", chain.requester.address, spender.address) == 5


@pytest.mark.parametrize(
    ("signature", "arguments"),
    [
        ("transferOwnership(address)", (Actor.named("heir").address,)),
        ("renounceOwnership()", ()),
        ("setTeeBroker(address)", (Actor.named("heir").address,)),
        ("setCallbackGas(uint256)", (1,)),
        ("createCategory(string,string,uint256)", ("a", "b", 1)),
        (
            "configure(address,string,string,uint8,address,address,address,address)",
            (ZERO, "", "", 9, ZERO, ZERO, ZERO, ZERO),
        ),
    ],
)
def test_owner_only(chain: Chain, signature: str, arguments: tuple[object, ...]) -> None:
    assert refused(lambda: chain.send(chain.attacker, signature, *arguments)) == "Ownable: caller is not the owner"


def test_settings(chain: Chain) -> None:
    heir = Actor.named("heir")
    assert chain.view("callbackgas()", "uint256") == 200_000
    chain.send(chain.deployer, "setTeeBroker(address)", heir.address)
    chain.send(chain.deployer, "setCallbackGas(uint256)", 123)
    assert chain.view("teebroker()", "address") == heir.address.lower()
    assert chain.view("callbackgas()", "uint256") == 123
    configure = "configure(address,string,string,uint8,address,address,address,address)"
    assert (
        refused(lambda: chain.send(chain.deployer, configure, ZERO, "", "", 9, ZERO, ZERO, ZERO, ZERO))
        == "already-configured"
    )
    receipt = chain.send(chain.deployer, "createCategory(string,string,uint256)", "M", "medium", 3600)
    assert chain.events(receipt) == [("CreateCategory", 2, "M", "medium", 3600)]
    assert chain.view("countCategory()", "uint256") == 3
    assert chain.view("viewCategory(uint256)", "(string,string,uint256)", 2) == ("M", "medium", 3600)
    assert refused(lambda: chain.view("viewCategory(uint256)", "(string,string,uint256)", 3)) is None
    chain.send(heir, "updateDomainSeparator()")
    domain = chain.view("domain()", "(string,string,uint256,address)")
    assert domain == ("iExecODB", "5.0.0", 421614, chain.hub.lower())
    chain.send(chain.deployer, "transferOwnership(address)", heir.address)
    assert chain.view("owner()", "address") == heir.address.lower()
    chain.send(heir, "renounceOwnership()")
    assert chain.view("owner()", "address") == ZERO
    assert refused(lambda: chain.send(heir, "recover()")) == "Ownable: caller is not the owner"


def test_constants_and_resources(chain: Chain) -> None:
    names = ("contribution_deadline_ratio", "reveal_deadline_ratio", "final_deadline_ratio", "workerpool_stake_ratio")
    names += ("kitty_ratio", "kitty_min", "groupmember_purpose")
    assert [chain.view(f"{name}()", "uint256") for name in names] == [7, 2, 10, 30, 10, 10**9, 4]
    registries = [chain.view(f"{name}registry()", "address") for name in ("app", "dataset", "workerpool")]
    assert registries == [each.address.lower() for each in (chain.apps, chain.datasets, chain.workerpools)]
    assert chain.view("token()", "address") == chain.rlc.address.lower()
    multiaddr = bytes.fromhex("a503221220") + bytes(32)
    app = chain.view("viewApp(address)", "(address,string,string,bytes,bytes32,bytes)", chain.app)
    assert app == (chain.app_owner.address.lower(), "app", "DOCKER", multiaddr, bytes(32), b"")
    dataset = chain.view("viewDataset(address)", "(address,string,bytes,bytes32)", chain.dataset)
    assert dataset == (chain.data_owner.address.lower(), "data", multiaddr, bytes(32))
    pool = chain.view("viewWorkerpool(address)", "(address,string,uint256,uint256)", chain.workerpool)
    assert pool == (chain.pool_owner.address.lower(), "pool", 30, 1)


@pytest.mark.parametrize("kind", ["app", "dataset", "workerpool", "request"])
def test_manage_orders(chain: Chain, kind: str) -> None:
    owner = {
        "app": chain.app_owner,
        "dataset": chain.data_owner,
        "workerpool": chain.pool_owner,
        "request": chain.requester,
    }[kind]
    order = getattr(chain.orders(volume=5), kind)
    name = order.NAME.removesuffix("Order")
    signature = f"manage{name}Order(({order.abi()},uint8,bytes))"
    hashed = order.hash(chain.domain)

    def manage(operation: int, sender: Actor, sign: bytes = b"") -> object:
        return chain.send(sender, signature, (order.as_tuple(), operation, sign))

    forged = chain.attacker.sign(order.operation_hash(0, chain.domain))
    wrong = owner.sign(order.operation_hash(1, chain.domain))
    for sign in (forged, wrong, owner.sign(hashed)):
        assert refused(lambda sign=sign: manage(0, chain.attacker, sign)) == "invalid-sender-or-signature"
    assert refused(lambda: manage(2, owner)) is None
    receipt = chain.send(
        chain.attacker, signature, (order.as_tuple(), 0, owner.sign(order.operation_hash(0, chain.domain)))
    )
    assert chain.events(receipt) == [(f"Signed{name}Order", hashed)]
    assert chain.view("viewPresigned(bytes32)", "address", hashed) == owner.address.lower()
    assert chain.view("verifyPresignature(address,bytes32)", "bool", owner.address, hashed) is True
    assert chain.view("verifyPresignature(address,bytes32)", "bool", chain.attacker.address, hashed) is False
    assert chain.view("verifyPresignature(address,bytes32)", "bool", ZERO, b"\x01" * 32) is False
    either = "verifyPresignatureOrSignature(address,bytes32,bytes)"
    assert chain.view(either, "bool", owner.address, hashed, b"") is True
    assert chain.view("viewConsumed(bytes32)", "uint256", hashed) == 0
    receipt = chain.send(owner, signature, (order.as_tuple(), 1, b""))
    assert chain.events(receipt) == [(f"Closed{name}Order", hashed)]
    assert chain.view("viewConsumed(bytes32)", "uint256", hashed) == 5
    assert chain.view("isClosed(bytes32)", "bool", hashed) is True
    offers = chain.signed(chain.orders(volume=5))
    assert refused(lambda: chain.match(offers)) == "iExecV5-matchOrders-0x60"
    manage(0, owner)
    assert chain.view("isClosed(bytes32)", "bool", hashed) is True
    receipt = chain.send(chain.attacker, f"broadcast{name}Order({order.abi()})", order.as_tuple())
    assert chain.events(receipt)[0][0] == f"Broadcast{name}Order"


def test_verify_signature(chain: Chain) -> None:
    digest = b"\x07" * 32
    sign = chain.requester.sign(digest)
    view = lambda who, body: chain.view("verifySignature(address,bytes32,bytes)", "bool", who, digest, body)  # noqa: E731
    assert view(chain.requester.address, sign) is True
    assert view(chain.attacker.address, sign) is False
    assert view(ZERO, bytes(64) + b"\x05") is False
    assert refused(lambda: view(chain.requester.address, b"")) == "invalid-signature-format"


def test_dataset_and_deal_compatibility(chain: Chain) -> None:
    deal = chain.match(chain.signed(chain.orders(dataset=False)))
    taken = chain.match(chain.signed(chain.orders(salt=b"\x01" * 32)))
    order = chain.orders(salt=b"\x02" * 32).dataset
    some = "0x00000000000000000000000000000000000000aa"

    def reason(candidate: DatasetOrder, at: bytes = deal, sign: bool = True) -> str:
        signed = candidate.signed(chain.data_owner if sign else chain.attacker, chain.domain)
        try:
            chain.view_nothing(f"assertDatasetDealCompatibility({order.abi()},bytes32)", signed.as_tuple(), at)
        except Reverted as refusal:
            return refusal.text if refusal.data[:4] == bytes.fromhex("0afd9382") else repr(refusal)
        return "compatible"

    assert reason(order) == "compatible"
    assert reason(order.with_(volume=0)) == "Dataset order is revoked or fully consumed"
    assert reason(order, sign=False) == "Invalid dataset order signature"
    assert reason(order, b"\x05" * 32) == "Deal not found"
    assert reason(order, taken) == "Deal already has a dataset"
    assert reason(order.with_(apprestrict=some)) == "App restriction not satisfied"
    assert reason(order.with_(workerpoolrestrict=some)) == "Workerpool restriction not satisfied"
    assert reason(order.with_(requesterrestrict=some)) == "Requester restriction not satisfied"
    assert reason(order.with_(tag=(256).to_bytes(32, "big"))) == "Tag compatibility not satisfied"
    assert reason(order.with_(tag=(3).to_bytes(32, "big"))) == "compatible"
