"""Two markets on one PostgreSQL database: what one takes in the other shows, and nothing is done twice."""

from __future__ import annotations

from pathlib import Path

from tests.support import postgresql
from tests.support.deployed import DeployedChain
from tests.support.market_world import MarketWorld

from cloister.protocol.orders import OrderKind


def test_replicas_share_logins_orders_and_the_chain(
    deployed: DeployedChain, tmp_path: Path, postgresql_cluster: postgresql.Cluster
) -> None:
    url = postgresql_cluster.new_database()
    one, two = (MarketWorld(deployed, tmp_path, label=f"replica {n}", database_url=url) for n in (1, 2))
    bazaar = one.bazaar
    with one.serving(), two.serving():
        header = one.login(bazaar.app_owner)
        bodies = [{"order": deployed.app_order(bazaar.app_owner, bazaar.app).to_json()} for _ in range(2)]
        assert two.ask("POST", "/apporders", body=bodies[0], header=header)[0] == 200
        for world in (one, two):
            status, body = world.ask("POST", "/apporders", body=bodies[1], header=header)
            assert (status, body["error"]) == (403, "invalid authorization")
        assert one.listed(f"/apporders?app={bazaar.app}") == two.listed(f"/apporders?app={bazaar.app}") != []
        orders = bazaar.orders(volume=4)
        keys = (bazaar.app_owner, bazaar.data_owner, bazaar.pool_owner, bazaar.requester)
        for number, (order, key) in enumerate(zip(orders, keys, strict=True)):
            assert order is not None
            assert (one, two)[number % 2].publish(order, key)[0] == 200
            assert (two, one)[number % 2].refusal(order, key) == "order already published"
        deals = []
        for _ in range(4):
            part = deployed.request_order(
                bazaar.requester, bazaar.app, dataset=bazaar.dataset, workerpool=bazaar.pool, volume=1
            )
            deals.append(str(bazaar.match((orders[0], orders[1], orders[2], part))[0]))
            for world in (one, two):
                _, body = world.ask("GET", f"/deals?app={bazaar.app}")
                assert {record["dealid"] for record in body["deals"]} == set(deals)
                assert body["count"] == len(deals)
            assert orders[0] is not None
            found = one.record(orders[0])
            assert found == two.record(orders[0])
            assert found["remaining"] == 4 - len(deals)
        assert found["status"] == "filled"
        target = {"target": "unpublish_all", "app": bazaar.app}
        assert len(two.unpublish(OrderKind.APP, target, bazaar.app_owner)[1]["unpublished"]) == 1
        assert one.listed(f"/apporders?app={bazaar.app}") == []
