"""The matching twin on facts made up here; the real hub's agreement is tested in tests/chain."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.errors import Conflict
from cloister.protocol.codec import ZERO_ADDRESS, Address
from cloister.protocol.eip712 import hub_domain
from cloister.protocol.matching import (
    Match,
    MatchingFacts,
    MatchRefused,
    check_tdx,
    groups_asked,
    match_orders,
    restriction_allows,
    solvability,
)
from cloister.protocol.orders import AppOrder, DatasetOrder, RequestOrder, WorkerpoolOrder, sign_order
from cloister.protocol.signatures import PrivateKey
from cloister.protocol.tags import GPU, SCONE, TDX, TEE, TEE_TDX, Tag

DOMAIN = hub_domain(421614, Address("0x" + "aa" * 20))
APP, DATA, POOL, GROUP, WALLET = (Address("0x" + pair * 20) for pair in ("01", "02", "03", "04", "05"))
OWNERS = {
    name: PrivateKey(bytes([number]) * 32) for number, name in enumerate(("app", "data", "pool", "requester"), 0x31)
}

Orders = tuple[AppOrder, DatasetOrder, WorkerpoolOrder, RequestOrder]


def orders(**changes: dict[str, Any]) -> Orders:
    """Four signed orders that match, with changes to each by name."""
    requester = OWNERS["requester"].address
    app = AppOrder(app=APP, appprice=5, volume=10, tag=TEE_TDX)
    data = DatasetOrder(dataset=DATA, datasetprice=7, volume=8, tag=TEE_TDX)
    pool = WorkerpoolOrder(workerpool=POOL, workerpoolprice=11, volume=6, tag=TEE_TDX, category=1, trust=2)
    request = RequestOrder(
        app=APP,
        appmaxprice=5,
        dataset=DATA,
        datasetmaxprice=7,
        workerpoolmaxprice=11,
        requester=requester,
        volume=9,
        tag=TEE_TDX,
        category=1,
        beneficiary=requester,
    )
    app = dataclasses.replace(app, **changes.get("app", {}))
    data = dataclasses.replace(data, **changes.get("data", {}))
    pool = dataclasses.replace(pool, **changes.get("pool", {}))
    request = dataclasses.replace(request, **changes.get("request", {}))
    return (
        sign_order(app, OWNERS["app"], DOMAIN),
        sign_order(data, OWNERS["data"], DOMAIN),
        sign_order(pool, OWNERS["pool"], DOMAIN),
        sign_order(request, OWNERS["requester"], DOMAIN),
    )


def facts(**changes: Any) -> MatchingFacts:
    """What a chain knows on which these orders match."""
    owners = {APP: OWNERS["app"].address, DATA: OWNERS["data"].address, POOL: OWNERS["pool"].address}
    return dataclasses.replace(MatchingFacts(DOMAIN, 5, owners), **changes)


def refused(four: Orders, known: MatchingFacts) -> int:
    with pytest.raises(MatchRefused) as caught:
        match_orders(*four, known)
    return caught.value.match_code


def test_a_match_says_what_it_makes() -> None:
    match = match_orders(*orders(), facts())
    assert (match.volume, match.bot_first, match.trust) == (6, 0, 1)
    assert (match.task_price, match.total_price, match.pool_stake) == (23, 138, 3 * 6)
    assert match.tag == TEE | TDX


def test_a_datasets_framework_is_ignored_but_not_its_other_tags() -> None:
    """PoCo 6.2."""
    assert match_orders(*orders(data={"tag": TEE | SCONE}), facts()).tag == TEE_TDX
    assert refused(orders(data={"tag": TEE | GPU}), facts()) == 0x06
    assert refused(orders(app={"tag": TEE | SCONE}), facts()) == 0x06


def test_tee_without_the_apps_consent_is_refused() -> None:
    assert refused(orders(app={"tag": TDX}), facts()) == 0x07
    plain = Tag.from_bits(0)
    assert match_orders(*orders(app={"tag": plain}, data={"tag": plain}, request={"tag": plain}), facts()).tag == plain


@given(
    st.tuples(*[st.integers(min_value=1, max_value=20)] * 4),
    st.tuples(*[st.integers(min_value=0, max_value=25)] * 4),
)
def test_volume_is_what_everybody_has_left(volumes: tuple[int, ...], used: tuple[int, ...]) -> None:
    four = orders(
        **{name: {"volume": volume} for name, volume in zip(("app", "data", "pool", "request"), volumes, strict=True)}
    )
    consumed = {order.hash(DOMAIN): count for order, count in zip(four, used, strict=True)}
    left = min(max(0, volume - count) for volume, count in zip(volumes, used, strict=True))
    if left == 0:
        assert refused(four, facts(consumed=consumed)) == 0x60
    else:
        match = match_orders(*four, facts(consumed=consumed))
        assert match.volume == left
        assert match.bot_first == used[3]


def test_groups_admit_their_members() -> None:
    four = orders(data={"apprestrict": GROUP}, request={"workerpool": GROUP})
    assert groups_asked(*four) == [(GROUP, POOL), (GROUP, APP)]
    assert refused(four, facts()) == 0x12
    assert refused(four, facts(members=frozenset({(GROUP, POOL)}))) == 0x16
    assert match_orders(*four, facts(members=frozenset({(GROUP, POOL), (GROUP, APP)}))).volume == 6
    assert restriction_allows(ZERO_ADDRESS, APP, frozenset())
    assert restriction_allows(APP, APP, frozenset())
    assert not restriction_allows(GROUP, APP, frozenset({(GROUP, DATA)}))


def test_presigned_orders_need_no_signature_but_the_owners_presignature() -> None:
    app, data, pool, request = orders()
    four = (app.signed(b""), data, pool, request)
    name = app.hash(DOMAIN)
    assert refused(four, facts()) == 0x21
    assert refused(four, facts(presigned={name: OWNERS["data"].address})) == 0x21
    assert match_orders(*four, facts(presigned={name: OWNERS["app"].address})).volume == 6


def test_contracts_sign_in_their_own_way() -> None:
    four = orders()
    name = four[1].hash(DOMAIN)
    wallet = {"owners": {**facts().owners, DATA: WALLET}, "contracts": frozenset({WALLET})}
    assert refused(four, facts(**wallet)) == 0x31
    assert match_orders(*four, facts(**wallet, contract_signed=frozenset({name}))).volume == 6
    # A contract's order never counts by a plain signature, whoever recovers.
    own = {"contracts": frozenset({OWNERS["data"].address})}
    assert refused(four, facts(**own)) == 0x31


def test_the_previous_owners_signature_is_refused() -> None:
    """Abuse 28."""
    sold = {**facts().owners, DATA: OWNERS["requester"].address}
    assert refused(orders(), facts(owners=sold)) == 0x31


def test_nobodys_presignature_is_no_presignature() -> None:
    four = orders(request={"requester": ZERO_ADDRESS})
    assert refused(four, facts(presigned={four[3].hash(DOMAIN): ZERO_ADDRESS})) == 0x50


def test_refusals_read_well() -> None:
    with pytest.raises(MatchRefused) as caught:
        match_orders(*orders(app={"appprice": 6}), facts())
    error = caught.value
    assert (error.match_code, error.code, error.reason) == (3, "match-0x03", "iExecV5-matchOrders-0x03")
    assert "the app costs 6 nRLC, the request pays at most 5" in error.message


@pytest.mark.parametrize(
    ("stakes", "text"),
    [
        ((138, 17), r"workerpool required stake \(18\) is greater than workerpool owner's account stake \(17\)"),
        ((22, 18), r"Cost per task \(23\) is greater than requester account stake \(22\)"),
        ((137, 18), r"Total cost for 6 tasks \(138\) is greater than requester account stake \(137\)"),
    ],
)
def test_stakes_are_checked_in_iexecs_words(stakes: tuple[int, int], text: str) -> None:
    match: Match = match_orders(*orders(), facts())
    with pytest.raises(Conflict, match=text):
        solvability(match, sponsor_stake=stakes[0], pool_owner_stake=stakes[1])
    solvability(match, sponsor_stake=138, pool_owner_stake=18)


def test_iexecs_clients_want_tee_and_tdx() -> None:
    check_tdx(TEE_TDX | GPU)
    with pytest.raises(Conflict, match="must have both"):
        check_tdx(TEE)
