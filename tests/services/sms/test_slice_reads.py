"""How orders of a slice stand on a real chain, and that the chain in memory says the same."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest
import urllib3
from tests.support.deployed import Bazaar, DeployedChain
from tests.support.sms_ledger import MemoryLedger

from cloister.chain.rpc import JsonRpc
from cloister.errors import RemoteError, UnavailableError
from cloister.protocol.codec import Address, Bytes32, canonical_json, parse_json
from cloister.protocol.deals import Deal
from cloister.protocol.orders import DatasetOrder, Operation, sign_order
from cloister.protocol.tags import GPU, SCONE, TEE, TEE_TDX
from cloister.protocol.units import INFINITE_VOLUME
from cloister.services.sms.chain_ledger import ChainLedger
from cloister.services.sms.ledger import DatasetEntry, Head, Offer, OfferStanding
from cloister.storage.multiaddr import parse_multiaddr

ADMITS = Address("0x" + "a1" * 20)
BURNS = Address("0x" + "a2" * 20)
BREAKS = Address("0x" + "a3" * 20)
LIES = Address("0x" + "a4" * 20)
NOWHERE = Address("0x" + "0d" * 20)
CODE = {
    ADMITS: "0x600160005260206000f3",  # return 1
    BURNS: "0x5b600056",  # loop for ever
    BREAKS: "0xfe",  # the invalid instruction
    LIES: "0x60006000f3",  # return nothing
}


@dataclass
class Scene:
    """A deal for bulk, orders of every sort by name, and where to ask how they stand."""

    chain: DeployedChain
    bazaar: Bazaar
    deal_id: Bytes32
    deal: Deal
    orders: dict[str, DatasetOrder]
    block: int

    def offers(self) -> list[Offer]:
        return [Offer(order, order.hash(self.chain.domain)) for order in self.orders.values()]

    def standings(self, ledger: ChainLedger | MemoryLedger) -> dict[str, OfferStanding]:
        found = ledger.offer_standings(self.offers(), self.deal_id, self.deal, block=self.block)
        return dict(zip(self.orders, found, strict=True))

    def ledger(self) -> ChainLedger:
        return ChainLedger(self.chain.node.rpc, self.chain.deployment.hub)


@pytest.fixture(scope="module")
def scene(deployed: DeployedChain) -> Scene:
    bazaar = Bazaar(deployed, "sms slices")
    for address, code in CODE.items():
        deployed.rpc.call("anvil_setCode", str(address), code)
    owner, stranger = bazaar.data_owner, bazaar.worker

    def order(dataset: Address = bazaar.dataset, **values: Any) -> DatasetOrder:
        return deployed.dataset_order(owner, dataset, **{"volume": INFINITE_VOLUME, **values})

    unsigned = dataclasses.replace(order(), sign=b"")
    presigned, closed = dataclasses.replace(order(), sign=b""), order()
    deployed.send(deployed.hub.manage_order(presigned, Operation.SIGN), owner)
    deployed.close(closed, owner)
    orders = {
        "good": order(),
        "presigned": presigned,
        "scone": order(tag=TEE | SCONE),
        "for this app": order(apprestrict=bazaar.app),
        "for a group": order(requesterrestrict=ADMITS),
        "closed": closed,
        "unsigned": unsigned,
        "signed by another": sign_order(unsigned, stranger, deployed.domain),
        "short signature": dataclasses.replace(unsigned, sign=b"\x01"),
        "zero signature": dataclasses.replace(unsigned, sign=bytes(65)),
        "for another app": order(apprestrict=NOWHERE),
        "for another pool": order(workerpoolrestrict=stranger.address),
        "for another requester": order(requesterrestrict=stranger.address),
        "gpu": order(tag=TEE_TDX | GPU),
        "empty": order(volume=0),
        "group that burns": order(apprestrict=BURNS),
        "group that breaks": order(workerpoolrestrict=BREAKS),
        "group that says nothing": order(requesterrestrict=LIES),
        "nowhere": order(dataset=NOWHERE),
        "an account": order(dataset=stranger.address),
        "an app": deployed.dataset_order(bazaar.app_owner, bazaar.app, volume=INFINITE_VOLUME),
        "a burner": order(dataset=BURNS),
    }
    deal_id, _ = bazaar.match(bazaar.orders(dataset=False))
    block = deployed.rpc.block_number()
    deal = deployed.hub.deal(deal_id, block=block)
    assert deal is not None
    return Scene(deployed, bazaar, deal_id, deal, orders, block)


STANDING = {"good", "presigned", "scone", "for this app", "for a group"}


def remembered(scene: Scene) -> MemoryLedger:
    """The same world in memory."""
    chain, bazaar = scene.chain, scene.bazaar
    ledger = MemoryLedger(chain.domain, Head(scene.block, 0))
    data = chain.datasets.dataset(bazaar.dataset, block=scene.block)
    ledger.datasets[bazaar.dataset] = DatasetEntry(data.owner, parse_multiaddr(data.multiaddr), data.checksum)
    ledger.deals[scene.deal_id] = scene.deal
    ledger.groups[ADMITS] = {bazaar.app, bazaar.pool, bazaar.requester.address}
    ledger.presigned[scene.orders["presigned"].hash(chain.domain)] = bazaar.data_owner.address
    ledger.closed.add(scene.orders["closed"].hash(chain.domain))
    return ledger


def test_how_every_sort_of_order_stands(scene: Scene) -> None:
    standings = scene.standings(scene.ledger())
    for name, standing in standings.items():
        holds = standing.entry is not None and standing.signed and not standing.closed and standing.admitted
        assert (holds and standing.objection is None) == (name in STANDING), (name, standing)
    reasons = {name: standing.objection for name, standing in standings.items()}
    assert reasons["closed"] == "IncompatibleDatasetOrder(Dataset order is revoked or fully consumed)"
    assert reasons["gpu"] == "IncompatibleDatasetOrder(Tag compatibility not satisfied)"
    assert (standings["closed"].closed, standings["closed"].signed) == (True, True)
    for name in ("nowhere", "an account", "an app", "a burner"):
        assert standings[name].entry is None


def test_the_chain_in_memory_says_the_same(scene: Scene) -> None:
    real, memory = scene.standings(scene.ledger()), scene.standings(remembered(scene))
    for name, standing in real.items():
        if standing.entry is None:
            assert memory[name].entry is None
            continue
        told = memory[name]
        if name == "group that burns":  # what it burns may leave the hub too little to say why
            told, standing = (dataclasses.replace(item, objection="any") for item in (told, standing) if item.objection)
        assert told == standing, name


def test_a_deal_that_has_a_dataset_takes_no_other(scene: Scene) -> None:
    deal_id, _ = scene.bazaar.match(scene.bazaar.orders())
    block = scene.chain.rpc.block_number()
    deal = scene.chain.hub.deal(deal_id, block=block)
    assert deal is not None
    offers = scene.offers()[:1]
    (standing,) = scene.ledger().offer_standings(offers, deal_id, deal, block=block)
    assert standing.objection == "IncompatibleDatasetOrder(Deal already has a dataset)"


def test_an_empty_slice_asks_nobody(scene: Scene) -> None:
    nobody = ChainLedger(JsonRpc("http://127.0.0.1:1"), scene.chain.deployment.hub)
    assert nobody.offer_standings([], scene.deal_id, scene.deal, block=scene.block) == []


def test_standings_are_those_of_the_block(scene: Scene) -> None:
    order = scene.chain.dataset_order(scene.bazaar.data_owner, scene.bazaar.dataset, volume=INFINITE_VOLUME)
    offer = Offer(order, order.hash(scene.chain.domain))
    before = scene.chain.rpc.block_number()
    scene.chain.close(order, scene.bazaar.data_owner)
    after = scene.chain.rpc.block_number()
    closed = [
        scene.ledger().offer_standings([offer], scene.deal_id, scene.deal, block=block)[0].closed
        for block in (before, after)
    ]
    assert closed == [False, True]


class Fickle:
    """A node between us and anvil that refuses some calls: ``refuse(call, times it came)`` gives the error or None."""

    def __init__(self, target: str) -> None:
        self.refuse: Any = lambda call, count: None
        self.batches = 0
        pool, counts, outer = urllib3.PoolManager(), {}, self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                asked = parse_json(body, cap=1 << 24)
                kind = {"content-type": "application/json"}
                answers = parse_json(pool.request("POST", target, body=body, headers=kind).data, cap=1 << 24)
                if isinstance(asked, list) and isinstance(answers, list):
                    outer.batches += 1
                    by_id = {call["id"]: call for call in asked}
                    for answer in answers:
                        key = canonical_json(by_id[answer["id"]]["params"])
                        counts[key] = counts.get(key, 0) + 1
                        error = outer.refuse(by_id[answer["id"]]["params"][0], counts[key])
                        if error is not None:
                            answer.pop("result", None)
                            answer["error"] = error
                raw = canonical_json(answers)
                self.send_response(200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            def log_message(self, *_: object) -> None:
                """Silent."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()


@pytest.fixture
def fickle(scene: Scene) -> Iterator[Fickle]:
    node = Fickle(scene.chain.node.url)
    yield node
    node.server.shutdown()
    node.server.server_close()


TROUBLE = {"code": -32000, "message": "missing trie node"}


def test_a_passing_trouble_of_the_node_refuses_no_item(scene: Scene, fickle: Fickle) -> None:
    fickle.refuse = lambda call, count: TROUBLE if count == 1 and "gas" in call else None
    ledger = ChainLedger(JsonRpc(fickle.url), scene.chain.deployment.hub)
    assert scene.standings(ledger) == scene.standings(scene.ledger())


def test_a_node_that_cannot_read_the_hub_fails_the_whole(scene: Scene, fickle: Fickle) -> None:
    fickle.refuse = lambda call, count: TROUBLE if "gas" not in call else None
    with pytest.raises(RemoteError, match="missing trie node"):
        scene.standings(ChainLedger(JsonRpc(fickle.url), scene.chain.deployment.hub))


def test_a_node_that_cannot_read_a_registered_dataset_fails_the_whole(scene: Scene, fickle: Fickle) -> None:
    fickle.refuse = lambda call, count: TROUBLE if call["to"] == scene.bazaar.dataset else None
    with pytest.raises(UnavailableError):
        scene.standings(ChainLedger(JsonRpc(fickle.url), scene.chain.deployment.hub))


def test_a_slice_is_read_in_few_round_trips(scene: Scene, fickle: Fickle) -> None:
    ledger = ChainLedger(JsonRpc(fickle.url), scene.chain.deployment.hub)
    good = scene.offers()[0]
    assert len(ledger.offer_standings([good] * 100, scene.deal_id, scene.deal, block=scene.block)) == 100
    assert fickle.batches <= 6
