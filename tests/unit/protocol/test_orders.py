"""Orders: hashes, signatures and what may not exist."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from tests.unit.protocol.strategies import any_order
from tests.vectors.loading import load_cases, load_vectors

from cloister.errors import CloisterError, DecodeError, InputError, TooLarge, VerificationError
from cloister.protocol.codec import SAFE_INTEGER_MAX, UINT256_MAX, Address, Bytes32, to_hex
from cloister.protocol.deals import deal_id
from cloister.protocol.eip712 import hub_domain, type_hash
from cloister.protocol.orders import (
    NO_DATASET_ORDER,
    ORDER_TYPES,
    PARAMS_CAP,
    SIGN_CAP,
    AppOrder,
    DatasetOrder,
    Operation,
    Order,
    OrderKind,
    RequestOrder,
    operation_digest,
    parse_order,
    sign_order,
    verify_order_signature,
)
from cloister.protocol.signatures import CURVE_ORDER, PrivateKey
from cloister.protocol.tags import GPU, NO_TAG, SCONE, TDX, TEE, TEE_TDX, Tag, parse_tag, tag_names
from cloister.protocol.tasks import deadlines, task_id

ORDERS = load_vectors("protocol/orders.json")
SIGNED = load_vectors("protocol/signed_orders.json")
DOMAIN = hub_domain(ORDERS["chain_id"], Address(ORDERS["hub"]))
OWNER = PrivateKey(b"\x11" * 32)
APP = Address("0x" + "11" * 20)


@pytest.mark.parametrize("case", load_cases("protocol/type_hashes.json"), ids=lambda case: case["kind"])
def test_type_hashes(case: dict[str, str]) -> None:
    order = ORDER_TYPES[OrderKind(case["kind"])]
    operation = f"{order.TYPE}Operation"
    types = {**order.TYPES, operation: (("order", order.TYPE), ("operation", "uint256"))}
    assert to_hex(type_hash(order.TYPES, order.TYPE)) == case["type"]
    assert to_hex(type_hash(types, operation)) == case["operation"]


@pytest.mark.parametrize("case", ORDERS["cases"], ids=lambda case: case["kind"])
def test_reference_orders(case: dict[str, Any]) -> None:
    order = parse_order(case["kind"], case["order"])
    assert order.hash(DOMAIN) == case["hash"]
    if "sign" in case:
        assert to_hex(sign_order(order, OWNER, DOMAIN).sign) == case["sign"]
    if "deal_id" in case:
        deal = deal_id(order.hash(DOMAIN), 0)
        assert deal == case["deal_id"]
        assert task_id(deal, 0) == case["task_id"]


@pytest.mark.parametrize("case", SIGNED["cases"], ids=lambda case: f"{case['kind']}-{case['hash'][:10]}")
def test_orders_signed_by_another_maker(case: dict[str, Any]) -> None:
    order = parse_order(case["kind"], {**case["order"], "sign": case["sign"]})
    key = PrivateKey.parse(case["private_key"])
    proof = verify_order_signature(order, key.address, DOMAIN)
    assert (proof.order_hash, proof.signer) == (case["hash"], case["address"])
    assert to_hex(sign_order(order, key, DOMAIN).sign) == case["sign"]
    assert [to_hex(operation_digest(order, item, DOMAIN)) for item in Operation] == case["operations"]


@given(any_order)
def test_orders_come_back(order: Order) -> None:
    assert parse_order(order.kind, order.to_json()) == order
    shouted = {
        name: value.upper().replace("0X", "0x") if str(value).startswith("0x") else value
        for name, value in order.to_json().items()
        if name != "params"
    }
    if isinstance(order, RequestOrder):
        shouted["params"] = order.params
    assert parse_order(order.kind, shouted) == order


@given(any_order)
def test_orders_come_back_as_numbers(order: Order) -> None:
    numbers = [getattr(order, field.name) for field in dataclasses.fields(order) if field.type == "int"]
    if max(numbers) > SAFE_INTEGER_MAX:
        with pytest.raises(InputError, match=r"2\^53-1"):
            order.to_json(numbers=True)
    else:
        assert parse_order(order.kind, order.to_json(numbers=True)) == order


@given(any_order)
def test_every_signed_member_counts(order: Order) -> None:
    """Changing any member changes the hash; changing the signature does not."""
    before = order.hash(DOMAIN)
    for field in dataclasses.fields(order):
        value = getattr(order, field.name)
        changed: object
        if isinstance(value, bytes):
            assert order.signed(value + b"x").hash(DOMAIN) == before
            continue
        if isinstance(value, int):
            changed = value ^ 1
        elif isinstance(value, Tag):
            changed = Tag.from_bits(value.bits ^ 1)
        elif isinstance(value, Bytes32):
            changed = Bytes32.from_raw(bytes([value.raw[0] ^ 1]) + value.raw[1:])
        elif isinstance(value, Address):
            changed = Address.from_raw(bytes([value.raw[0] ^ 1]) + value.raw[1:])
        else:
            changed = value + " "
        assert dataclasses.replace(order, **{field.name: changed}).hash(DOMAIN) != before


def unsigned(**changes: Any) -> dict[str, Any]:
    return {**AppOrder(app=APP).to_json(), **changes}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("app", "0x12"),
        ("app", None),
        ("app", 5),
        ("appprice", -1),
        ("appprice", "-1"),
        ("appprice", 1.5),
        ("appprice", True),
        ("appprice", str(UINT256_MAX + 1)),
        ("volume", None),
        ("tag", "0x09"),
        ("salt", "0x"),
        ("sign", "0xzz"),
        ("sign", 5),
        ("requesterrestrict", []),
    ],
)
def test_bad_members_are_refused_by_name(name: str, value: object) -> None:
    with pytest.raises((DecodeError, InputError)):
        parse_order("apporder", unsigned(**{name: value}))


def test_missing_and_unknown_members_are_refused() -> None:
    members = unsigned()
    del members["tag"]
    with pytest.raises(DecodeError, match="missing key tag"):
        parse_order("apporder", members)
    with pytest.raises(DecodeError, match="unknown key extra"):
        parse_order("apporder", unsigned(extra=1))
    with pytest.raises(InputError, match="unknown kind"):
        parse_order("order", unsigned())
    with pytest.raises(DecodeError):
        parse_order("apporder", "0x")


def test_caps() -> None:
    with pytest.raises(TooLarge):
        RequestOrder(app=APP, params="é" * (PARAMS_CAP // 2 + 1))
    with pytest.raises(TooLarge):
        AppOrder(app=APP, sign=bytes(SIGN_CAP + 1))
    with pytest.raises(TooLarge):
        parse_order("apporder", unsigned(sign="0x" + "00" * (SIGN_CAP + 1)))
    with pytest.raises(InputError):
        RequestOrder(app=APP, params="\ud800")


def test_an_invalid_order_cannot_exist() -> None:
    for changes in (
        {"appprice": -1},
        {"volume": UINT256_MAX + 1},
        {"tag": 9},
        {"sign": "0x"},
        {"app": "me"},
        {"salt": b"x"},
    ):
        with pytest.raises(CloisterError):
            AppOrder(**{"app": APP, **changes})  # type: ignore[arg-type]


def test_only_the_owners_signature_counts() -> None:
    """Abuse 28, 33, 34: another signer, another chain, another hub, a twin signature."""
    order = sign_order(DatasetOrder(dataset=APP, volume=3), OWNER, DOMAIN)
    assert verify_order_signature(order, OWNER.address, DOMAIN).signer == OWNER.address
    high = CURVE_ORDER - int.from_bytes(order.sign[32:64], "big")
    twin = order.signed(order.sign[:32] + high.to_bytes(32, "big") + bytes([55 - order.sign[64]]))
    stranger = PrivateKey(b"\x12" * 32)
    refused = [
        (order, stranger.address, DOMAIN),
        (sign_order(order, stranger, DOMAIN), OWNER.address, DOMAIN),
        (order, OWNER.address, hub_domain(1, Address(ORDERS["hub"]))),
        (order, OWNER.address, hub_domain(ORDERS["chain_id"], APP)),
        (dataclasses.replace(order, volume=4), OWNER.address, DOMAIN),
        (twin, OWNER.address, DOMAIN),
        (order.signed(b""), OWNER.address, DOMAIN),
    ]
    for item, owner, domain in refused:
        with pytest.raises(VerificationError):
            verify_order_signature(item, owner, domain)


def test_no_dataset_is_the_zero_address() -> None:
    assert NO_DATASET_ORDER.dataset.is_zero
    assert len(NO_DATASET_ORDER.as_tuple()) == 9


def test_tags() -> None:
    assert parse_tag(["tee", "tdx"]) == TEE_TDX == Tag("0x" + "00" * 31 + "09")
    assert parse_tag(["tee", "scone"]) == TEE | SCONE == Tag("0x" + "00" * 31 + "03")
    assert parse_tag(["gpu"]) == GPU == Tag("0x" + "00" * 30 + "0100")
    assert parse_tag("0x" + "00" * 32) == NO_TAG == parse_tag([])
    assert tag_names(TEE_TDX | GPU) == ("tee", "tdx", "gpu")
    assert TEE_TDX.has(TEE)
    assert not TEE.has(TEE_TDX)
    assert TEE_TDX.without(TDX) == TEE
    assert TEE_TDX & SCONE == NO_TAG
    with pytest.raises(DecodeError, match="Unknown bit 4 in tag"):
        tag_names(Tag.from_bits(16))
    with pytest.raises(DecodeError, match="unknown tag sgx"):
        parse_tag(["sgx"])


def test_deadlines_follow_the_category() -> None:
    limits = deadlines(1000, 300)
    assert (limits.contribution, limits.final) == (1000 + 2100, 1000 + 3000)
