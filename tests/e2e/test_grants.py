"""What a grant allows and what not: counts, prices, users, owners. All refused before money moves."""

from __future__ import annotations

import json

import pytest
from tests.support.network import LiveNetwork, wait_for

from cloister import DataProtector
from cloister.errors import Conflict, DecodeError, Denied, InputError, NotFound
from cloister.protocol.orders import OrderKind
from cloister.sdk.apps import App
from cloister.sdk.processing import Run
from cloister.sdk.protection import ProtectedData

NOBODY = "0x000000000000000000000000000000000000dEaD"


def start(requester: DataProtector, data: ProtectedData | None, app: App, **options: object) -> Run:
    settings = {"workerpool_max_price": "0.02 RLC", "timeout": 60, **options}
    return requester.process_protected_data(data, app=app, **settings)  # type: ignore[arg-type]


def test_accesses_are_counted(live: LiveNetwork, app: App, owner: DataProtector, requester: DataProtector) -> None:
    data = owner.protect_data({"n": 1}, name="counted")
    grant = owner.grant_access(data, app=app, accesses=2)
    first, second = start(requester, data, app, wait=False), start(requester, data, app, wait=False)
    assert first.task_id != second.task_id
    assert owner.connection.hub.consumed(grant.order_hash, block="latest") == 2
    held = requester.account.balances()
    with pytest.raises(Denied, match=r"no access is granted, or it was revoked or used up") as refused:
        start(requester, data, app)
    assert refused.value.code == "no-grant"
    assert requester.account.balances().stake == held.stake
    for run in (first, second):
        assert json.loads(run.wait(60).result.read("answer.json"))["task"] == run.task_id
    assert list(owner.get_granted_access(protected_data=data)) == []


@pytest.mark.parametrize(
    ("data_price", "app_price", "run_price", "words"),
    [
        ("0.04 RLC", "0.03 RLC", "0.02 RLC", "dataset order found{desired}{data} costs 0.05 RLC, you allow 0.04 RLC"),
        ("0.05 RLC", "29999999 nRLC", "0.02 RLC", "app order found{desired}{app} costs 0.03 RLC, you allow 0.029999999 RLC"),
        ("0.05 RLC", "0.03 RLC", "0", "workerpool order found{desired}the cheapest costs 0.02 RLC, you allow 0 RLC"),
    ],
)  # fmt: skip
def test_a_price_that_is_too_low_is_named(
    data_price: str,
    app_price: str,
    run_price: str,
    words: str,
    priced: tuple[ProtectedData, App],
    requester: DataProtector,
) -> None:
    data, app = priced
    held = requester.account.balances()
    with pytest.raises(NotFound) as refused:
        start(
            requester,
            data,
            app,
            data_max_price=data_price,
            app_max_price=app_price,
            workerpool_max_price=run_price,
        )
    assert refused.value.message == "no " + words.format(
        data=data.address, app=app.address, desired=" for the desired price: "
    )
    assert refused.value.hint is not None
    assert refused.value.hint.startswith("raise ")
    assert requester.account.balances() == held


def test_too_little_stake_is_named_with_the_missing_amount(
    live: LiveNetwork, priced: tuple[ProtectedData, App]
) -> None:
    data, app = priced
    poor = live.newcomer(wallet="1 RLC", stake="0.099999999 RLC")
    prices = {"data_max_price": "0.05 RLC", "app_max_price": "0.03 RLC"}
    with pytest.raises(Conflict) as refused:
        start(poor, data, app, **prices)
    assert refused.value.code == "stake-too-low"
    assert refused.value.message == (
        "cost per task (0.1 RLC) is greater than requester account stake (0.099999999 RLC). orders can't be matched"
    )
    assert refused.value.hint == 'cloister account deposit "0.000000001 RLC"'
    assert poor.account.balances().locked == 0
    poor.account.deposit("1 nRLC")
    start(poor, data, app, **prices)
    assert poor.account.balances().stake == 0
    with pytest.raises(Conflict, match=r"withdrawal of 0\.1 RLC exceeds the free stake of 0 RLC"):
        poor.account.withdraw("0.1 RLC")
    with pytest.raises(Conflict, match=r"deposit of 5 RLC exceeds the wallet's 0\.999999999 RLC"):
        poor.account.deposit("5 RLC")


@pytest.fixture(scope="module")
def priced(live: LiveNetwork, owner: DataProtector, bundle: object) -> tuple[ProtectedData, App]:
    """Data for 0.05 RLC and an app for 0.03 RLC, for anybody."""
    developer = live.newcomer()
    app = developer.apps.deploy(bundle, name="priced")  # type: ignore[arg-type]
    developer.apps.publish(app.address, price="0.03 RLC")
    data = owner.protect_data({"n": 2}, name="priced")
    owner.grant_access(data, app=app, price="0.05 RLC", accesses=100)
    return data, app


def test_a_grant_to_one_user_is_no_grant_to_another(
    live: LiveNetwork, app: App, owner: DataProtector, requester: DataProtector
) -> None:
    data = owner.protect_data({"n": 3}, name="for one")
    owner.grant_access(data, app=app, user=requester.connection.address)
    stranger = live.newcomer(stake="1 RLC")
    with pytest.raises(Denied, match=f"{stranger.connection.address} may not use {data.address}"):
        start(stranger, data, app)
    assert stranger.account.balances().stake == 10**9
    start(requester, data, app)


def test_a_grant_to_one_app_is_no_grant_to_another(
    live: LiveNetwork, app: App, owner: DataProtector, requester: DataProtector, bundle: object
) -> None:
    data = owner.protect_data({"n": 4}, name="for one app")
    owner.grant_access(data, app=app)
    developer = live.newcomer()
    other = developer.apps.deploy(bundle, name="the same bundle, another app")  # type: ignore[arg-type]
    developer.apps.publish(other.address)
    with pytest.raises(Denied, match=f"with app {other.address}"):
        start(requester, data, other)


def test_a_transfer_voids_the_former_owners_grants(live: LiveNetwork, app: App, requester: DataProtector) -> None:
    seller, buyer = live.newcomer(), live.newcomer()
    data = seller.protect_data({"n": 5}, name="sold")
    grant = seller.grant_access(data, app=app, accesses=5)
    start(requester, data, app)
    seller.transfer_ownership(data, buyer.connection.address)
    held = requester.account.balances().stake
    with pytest.raises((Denied, Conflict, NotFound)):
        start(requester, data, app)
    assert requester.account.balances().stake == held
    with pytest.raises(Denied, match=f"{data.address} belongs to {buyer.connection.address}"):
        seller.grant_access(data, app=app)
    with pytest.raises(Denied, match=f"{data.address} belongs to {buyer.connection.address}"):
        seller.revoke_access(grant)
    buyer.grant_access(data, app=app, user=requester.connection.address)
    assert json.loads(start(requester, data, app).result.read("answer.json"))["data"] == {"n": 5}
    wait_for("the market", lambda: not list(seller.get_granted_access(protected_data=data)))


def test_only_the_owner_grants_revokes_transfers_and_cancels(
    live: LiveNetwork, app: App, owner: DataProtector, data: ProtectedData
) -> None:
    stranger = live.newcomer()
    grant = owner.grant_access(data, app=app, user=NOBODY)
    me = stranger.connection.address
    with pytest.raises(Denied, match=f"{data.address} belongs to {owner.connection.address}, not to {me}"):
        stranger.grant_access(data, app=app)
    with pytest.raises(Denied, match=f"not to {me}"):
        stranger.revoke_access(grant.order_hash)
    with pytest.raises(Denied, match=f"not {me}"):
        stranger.orders.cancel(OrderKind.DATASET, grant.order_hash)
    with pytest.raises(Denied, match=f"not to {me}"):
        stranger.apps.publish(app.address)
    with pytest.raises(Denied, match=f"{data.address} belongs to {owner.connection.address}, not to {me}"):
        stranger.transfer_ownership(data, me)
    assert not owner.connection.hub.is_closed(grant.order_hash, block="latest")
    owner.orders.cancel(OrderKind.DATASET, grant.order_hash)
    assert owner.connection.hub.is_closed(grant.order_hash, block="latest")


def test_unusable_grants_are_refused_with_the_value(app: App, owner: DataProtector, data: ProtectedData) -> None:
    with pytest.raises(NotFound, match="no app or whitelist smart contract deployed at address") as no_app:
        owner.grant_access(data, app=NOBODY)
    assert NOBODY in no_app.value.message
    assert no_app.value.hint == "deploy the app first: cloister iapp deploy"
    with pytest.raises(NotFound, match=f"no protected data at {app.address}"):
        owner.grant_access(app.address, app=app)
    with pytest.raises(DecodeError, match="0xnonsense") as nonsense:
        owner.grant_access("0xnonsense", app=app)
    assert nonsense.value.hint == "an address is 0x and 40 hex digits"
    with pytest.raises(InputError, match="cannot read the amount free"):
        owner.grant_access(data, app=app, price="free")
    with pytest.raises(InputError, match="not a time: tomorrow"):
        owner.grant_access(data, app=app, until="tomorrow")
    with pytest.raises(InputError, match=r"bulk access is free, but the price is 0\.1 RLC"):
        owner.grant_access(data, app=app, price="0.1 RLC", allow_bulk=True)
    for accesses in (0, -1, 2**53):
        with pytest.raises(InputError, match=str(accesses)):
            owner.grant_access(data, app=app, accesses=accesses)
    with pytest.raises(InputError, match="-5"):
        owner.grant_access(data, app=app, price=-5)
    with pytest.raises(NotFound, match="0x" + "00" * 32):
        owner.revoke_access("0x" + "00" * 32)


def test_what_does_not_exist_is_named(
    live: LiveNetwork, app: App, requester: DataProtector, data: ProtectedData
) -> None:
    with pytest.raises(NotFound, match=f"no protected data at {NOBODY}"):
        requester.process_protected_data(NOBODY, app=app, workerpool_max_price="0.02 RLC")
    with pytest.raises(NotFound, match=f"no app deployed at {NOBODY}"):
        requester.process_protected_data(data, app=NOBODY, workerpool_max_price="0.02 RLC")
    with pytest.raises(NotFound, match="no workerpool offers category 4"):
        requester.process_protected_data(None, app=app, category=4, workerpool_max_price="0.02 RLC")
    with pytest.raises(NotFound, match=f"no protected data at {NOBODY}"):
        requester.transfer_ownership(NOBODY, requester.connection.address)
    unknown = "0x" + "ab" * 32
    for look in (requester.tasks.status, requester.tasks.result, requester.tasks.claim):
        with pytest.raises(NotFound, match=f"no task found for id {unknown} on chain 421614"):
            look(unknown)
    with pytest.raises(NotFound):
        requester.tasks.logs(unknown)
    with pytest.raises(DecodeError, match="expected 32 bytes of hex, got 1: 0x12"):
        requester.tasks.status("0x12")
