"""The main job through the asyncio twin, once."""

from __future__ import annotations

import asyncio
import json

import pytest
from tests.support.network import LiveNetwork

from cloister import AsyncDataProtector, DataProtector
from cloister.errors import Denied
from cloister.protocol.orders import OrderKind
from cloister.sdk.apps import App


def test_the_main_job_for_asyncio(live: LiveNetwork, app: App, owner: DataProtector, requester: DataProtector) -> None:
    asyncio.run(_story(live, AsyncDataProtector(owner), AsyncDataProtector(requester), app))


async def _story(live: LiveNetwork, owner: AsyncDataProtector, requester: AsyncDataProtector, app: App) -> None:
    data = await owner.protect_data({"who": "alice"}, name="asynchronous")
    user = (await requester.account.balances()).address
    grant = await owner.grant_access(data, app=app, user=user)
    assert [g.order_hash async for g in await _aiter(owner, data)] == [grant.order_hash]
    started = await requester.process_protected_data(data, app=app, workerpool_max_price="0.02 RLC", wait=False)
    seen = [view.status async for view in requester.tasks.watch(started.task_id, deal_id=started.deal_id, timeout=60)]
    assert seen[-1] == "COMPLETED"
    view = await requester.wait_for_task_completion(started.task_id)
    assert view.task_id == started.task_id
    result = await requester.get_result_from_completed_task(started.task_id)
    assert json.loads(result.read("answer.json"))["data"] == {"who": "alice"}
    receipt = await requester.tasks.receipt(started.task_id, result)
    assert receipt.verify().claims.binding.task_id == started.task_id.raw
    shown = await owner.orders.show(OrderKind.DATASET, grant.order_hash)
    assert shown.order == grant.order
    await owner.revoke_access(grant)
    with pytest.raises(Denied) as refusal:
        await requester.process_protected_data(data, app=app, workerpool_max_price="0.02 RLC")
    assert refusal.value.code == "no-grant"
    connected = await AsyncDataProtector.connect(live.name, wallet="bob")
    assert (await connected.account.balances()).wallet > 0
    assert (await connected.apps.show(app.address)) == app


async def _aiter(owner: AsyncDataProtector, data: object):  # type: ignore[no-untyped-def]  # an async generator
    return owner.get_granted_access(protected_data=data)  # type: ignore[arg-type]
