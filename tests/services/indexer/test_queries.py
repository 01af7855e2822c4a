"""The queries that iExec's clients send, word for word in shape (reference 4.2), and The Graph's dialect around
them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.support.anvil import running_anvil
from tests.support.deployed import Bazaar, DeployedChain
from tests.support.indexer_world import IndexerWorld

from cloister.protocol.codec import to_hex

PROTECTED_DATA = """
query ($start: Int!, $range: Int!, $where: ProtectedData_filter) {
  protectedDatas(where: $where, skip: $start, first: $range, orderBy: creationTimestamp, orderDirection: desc) {
    id name owner { id } schema { id } creationTimestamp multiaddr
  }
}
"""
CONTACTS = """
query GetValidContacts($requiredSchema: [String!]!, $id: [String!]!, $start: Int!, $range: Int!) {
  protectedDatas(
    where: { transactionHash_not: "0x", schema_contains: $requiredSchema, id_in: $id },
    skip: $start, first: $range, orderBy: creationTimestamp, orderDirection: desc
  ) { id name }
}
"""


def protected(world: IndexerWorld, where: Any = None, start: int = 0, size: int = 1000) -> list[dict[str, Any]]:
    return list(world.data(PROTECTED_DATA, {"start": start, "range": size, "where": where})["protectedDatas"])


def test_get_protected_data(world: IndexerWorld, deployed: DeployedChain) -> None:
    owner = world.account("owner 1")
    schema = '{"email":"string","nested":{"age":"i128","photo":"image/png"},"odd":"unknown","bad key":"string"}'
    dataset = deployed.make_dataset(owner, schema, name="contact")
    (found,) = protected(world, {"and": [{"id": dataset.lower()}]})
    assert found["id"] == dataset.lower()
    assert found["name"] == "contact"
    assert found["owner"] == {"id": owner.address.lower()}
    assert found["schema"] == [{"id": "email:string"}, {"id": "nested.age:i128"}, {"id": "nested.photo:image/png"}]
    assert found["multiaddr"].startswith("0xa50322")
    assert int(found["creationTimestamp"]) > 1_600_000_000
    assert isinstance(found["creationTimestamp"], str)


def test_undefined_and_null_filters(world: IndexerWorld, deployed: DeployedChain) -> None:
    deployed.make_dataset(world.account("owner 2"))
    query = PROTECTED_DATA
    without = world.data(query, {"start": 0, "range": 5})["protectedDatas"]
    assert without
    assert world.data(query, {"start": 0, "range": 5, "where": None})["protectedDatas"] == without
    assert world.data("{ protectedDatas { id } }")["protectedDatas"]


def test_filters_of_get_protected_data(world: IndexerWorld, deployed: DeployedChain) -> None:
    owner = world.account("owner 3")
    mail = deployed.make_dataset(owner, '{"email":"string","age":"f64"}').lower()
    text = deployed.make_dataset(owner, '{"telegram_chatId":"string"}').lower()
    mine = {"owner": owner.address.lower()}

    def ids(*conditions: dict[str, Any]) -> list[str]:
        return [found["id"] for found in protected(world, {"and": [mine, *conditions]})]

    assert sorted(ids()) == sorted([mail, text])
    assert ids({"schema_contains": ["email:string"]}) == [mail]
    assert ids({"schema_contains": ["email:string", "age:f64"]}) == [mail]
    assert ids({"schema_contains": ["email:string", "telegram_chatId:string"]}) == []
    either = {"or": [{"schema_contains": ["email:string"]}, {"schema_contains": ["telegram_chatId:string"]}]}
    assert sorted(ids(either)) == sorted([mail, text])
    assert ids({"schema_": {"path": "age"}}) == [mail]
    assert ids({"schema_not_contains": ["email:string"]}) == [text]
    assert ids({"schema": ["telegram_chatId:string"]}) == [text]
    (one,) = protected(world, {"and": [{"id": mail}]})
    created = int(one["creationTimestamp"])
    assert mail in ids({"creationTimestamp_gte": created})
    assert mail not in ids({"creationTimestamp_gt": created + 1000})
    assert mail in ids({"creationTimestamp_lte": str(created)})
    assert ids({"id_not_in": [mail]}) == [text]
    assert ids({"owner_": {"id_not": owner.address.lower()}}) == []
    assert ids({"collection": None, "id": mail}) == [mail]
    assert ids({"collection_not": "null"}) == []
    assert ids({"isRentable": True}) == []
    assert sorted(ids({"isRentable_not": True})) == sorted([mail, text])
    assert ids({"name_contains_nocase": "CONT", "id": mail}) == [mail]
    assert ids({"name_starts_with": "%"}) == []
    assert ids({"name_ends_with": "act", "id": mail}) == [mail]


def test_contacts(world: IndexerWorld, deployed: DeployedChain) -> None:
    owner = world.account("owner 4")
    mail, other = deployed.make_dataset(owner).lower(), deployed.make_dataset(owner, '{"x":"bool"}').lower()
    variables = {"requiredSchema": ["email:string"], "id": [mail, other], "start": 0, "range": 1000}
    assert world.data(CONTACTS, variables)["protectedDatas"] == [{"id": mail, "name": "contact"}]


def test_legacy_query_with_inline_filters(world: IndexerWorld, deployed: DeployedChain) -> None:
    owner = world.account("owner 5")
    mail = deployed.make_dataset(owner).lower()
    query = """
    query ($requiredSchema: [String!]!, $start: Int!, $range: Int!) {
      protectedDatas(
        where: {
          transactionHash_not: "0x",

          schema_contains: $requiredSchema,
          owner: "OWNER",,
        }
        skip: $start first: $range orderBy: creationTimestamp orderDirection: desc
      ) { id jsonSchema schema(where: {type: "string"}, first: 1) { id } creationTimestamp blockNumber }
    }""".replace("OWNER", owner.address.lower())
    (found,) = world.data(query, {"requiredSchema": [], "start": 0, "range": 10})["protectedDatas"]
    assert found["id"] == mail
    assert found["jsonSchema"] == '{"email":"string"}'
    assert found["schema"] == [{"id": "email:string"}]


def test_pages_and_order(world: IndexerWorld, deployed: DeployedChain) -> None:
    owner = world.account("owner 6")
    made = sorted(deployed.make_dataset(owner, name=f"n{n}").lower() for n in range(5))
    where = {"owner": owner.address.lower()}
    query = """query ($w: ProtectedData_filter, $s: Int, $f: Int, $d: OrderDirection) {
      protectedDatas(where: $w, skip: $s, first: $f, orderBy: id, orderDirection: $d) { id } }"""

    def ids(skip: int, first: int, direction: str = "asc") -> list[str]:
        found = world.data(query, {"w": where, "s": skip, "f": first, "d": direction})["protectedDatas"]
        return [each["id"] for each in found]

    assert ids(0, 1000) == made
    assert ids(1, 2) == made[1:3]
    assert ids(0, 2, "desc") == made[::-1][:2]
    assert ids(9, 2) == []
    nested = """query ($id: ID!) { account(id: $id) {
      id datasets(first: 2, skip: 1, orderBy: name, orderDirection: desc) { name } } }"""
    account = world.data(nested, {"id": owner.address})["account"]
    assert account == {"id": owner.address.lower(), "datasets": [{"name": "n3"}, {"name": "n2"}]}


def test_single_entities_and_meta(world: IndexerWorld, deployed: DeployedChain) -> None:
    dataset = deployed.make_dataset(world.account("owner 7"))
    assert world.data(f'{{ protectedData(id: "{dataset}") {{ id }} }}')["protectedData"] == {"id": dataset.lower()}
    nobody = "0x" + "00" * 20
    assert world.data(f'{{ protectedData(id: "{nobody}") {{ id }} }}')["protectedData"] is None
    block = world.data("{ _meta { block { number } hasIndexingErrors } }")["_meta"]
    assert block["hasIndexingErrors"] is False
    assert 0 < block["block"]["number"] <= deployed.rpc.block_number()


def test_ownership_follows_the_registry(world: IndexerWorld, deployed: DeployedChain) -> None:
    first, second = world.account("owner 8"), world.account("owner 9")
    dataset = deployed.make_dataset(first)
    query = f'{{ protectedData(id: "{dataset}") {{ owner {{ id }} }} }}'
    assert world.data(query)["protectedData"]["owner"]["id"] == first.address.lower()
    before = deployed.rpc.block_number()
    deployed.send(deployed.datasets.transfer(first.address, second.address, dataset), first)
    assert world.data(query)["protectedData"]["owner"]["id"] == second.address.lower()
    past = query.replace('")', f'", block: {{number: {before}}})')
    deployed.make_dataset(first)  # has the cursor saved
    assert world.data(past)["protectedData"]["owner"]["id"] == first.address.lower()


def test_a_schema_that_is_none_hurts_nobody(world: IndexerWorld, deployed: DeployedChain) -> None:
    owner = world.account("owner 10")
    odd = [deployed.make_dataset(owner, schema).lower() for schema in ("", "no json", "[1]", "{" * 100, '{"a":5}')]
    last = deployed.make_dataset(owner).lower()
    found = {each["id"]: each["schema"] for each in protected(world, {"owner": owner.address.lower()})}
    assert found == {**{each: [] for each in odd}, last: [{"id": "email:string"}]}


def test_deals_and_tasks(world: IndexerWorld, deployed: DeployedChain) -> None:
    bazaar = Bazaar(deployed, f"indexer deals {world.database.dialect}")
    orders = bazaar.orders(volume=2)
    deal_id, _ = bazaar.match(orders)
    deployed.send(deployed.hub.initialize(deal_id, 0), bazaar.worker)
    inspect = """query ($where: Deal_filter) { deals(where: $where) {
      id dataset { id } app { id owner { id } } tasks { taskId: id bulkSlice { datasets { id } } status index } } }"""
    where = {"requestorder": orders[3].hash(deployed.domain)}
    (deal,) = world.data(inspect, {"where": where}, subgraph="poco-v5")["deals"]
    assert deal["id"] == deal_id
    assert deal["dataset"] == {"id": bazaar.dataset.lower()}
    assert deal["app"] == {"id": bazaar.app.lower(), "owner": {"id": bazaar.app_owner.address.lower()}}
    (task,) = deal["tasks"]
    assert (task["status"], task["index"], task["bulkSlice"]) == ("ACTIVE", "0", None)
    query = """query checkSuccessfulTaskQuery($apps: [String!], $dataset: String!) {
      tasks(where: {resultsCallback_not: "0x", status: "COMPLETED", deal_: {dataset: $dataset, app_in: $apps}}) {
        resultsCallback } }"""
    variables = {"apps": [bazaar.app.lower()], "dataset": bazaar.dataset.lower()}
    assert world.data(query, variables, subgraph="poco-v5") == {"tasks": []}
    active = query.replace('resultsCallback_not: "0x", status: "COMPLETED"', "status: ACTIVE")
    assert world.data(active, variables, subgraph="poco-v5") == {"tasks": [{"resultsCallback": None}]}


SHARING = [
    """accounts(where:{collections_:{id_not:null}}, first:5){ id
    collections(orderBy: creationTimestamp, orderDirection: desc){ id creationTimestamp
      subscriptionParams{price duration}
      subscriptions(where:{subscriber_:{id:"0x12"}, endDate_gte:"1767225600"}){subscriber{id}} } }""",
    """collections(where:{owner:"0x12"}, orderBy: creationTimestamp, orderDirection: asc){ id owner{id}
    creationTimestamp protectedDatas(orderBy: creationTimestamp orderDirection: desc
      where:{or:[{isForSale:true}{isRentable:true}{isIncludedInSubscription:true}]}){
      id name isForSale saleParams{id price} rentalParams{price duration} rentals{renter endDate} } }""",
    """protectedDatas(where:{isRentable:true, collection_not:"null", collection_:{owner:"0x12"},
      creationTimestamp_gte:5}, first:1000){ id collection{id owner{id}} rentals{renter,endDate} }""",
    """collectionSubscriptions(where:{subscriber:"0x12", collection:"1", endDate_gte:1}){
      id collection{id owner{id} subscriptionParams{price duration}} subscriber{id} creationTimestamp endDate }""",
    """rentals(where:{renter:"0x12",protectedData:"0x12",endDate_gte:1}){
      id renter protectedData{id name} creationTimestamp endDate rentalParams{price duration} }""",
    """addOnlyAppWhitelists(where:{owner:"0x12"}){ id owner{id} apps{id} }""",
]


@pytest.mark.parametrize("query", SHARING, ids=lambda query: query.split("(", 1)[0])
def test_sharing_queries_are_understood(world: IndexerWorld, query: str) -> None:
    answer = world.data(f"{{ {query} }}")
    assert next(iter(answer.values())) == []


DEEP = "{ " + "protectedDatas { owner { datasets { owner { datasets { owner " * 3 + "{ id }" + "} } } } }" * 3 + " }"
BROAD = "{ " + " ".join(f"a{n}: protectedDatas {{ id }}" for n in range(300)) + " }"
LOOP = "query q { ...f } fragment f on Query { x: protectedDatas { id } ...f }"
NESTED = "{ protectedDatas(where: " + "{and: [" * 8 + '{id: "0x"}' + "]}" * 8 + ") { id } }"


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("{ protectedDatas(first: 1001) { id } }", "must be between 0 and 1000"),
        ("{ protectedDatas(skip: -1) { id } }", "must be between 0 and"),
        ("{ protectedDatas { nothing } }", "Cannot query field"),
        ("{ protectedDatas(where: {nothing: 1}) { id } }", "unknown field"),
        ('{ protectedDatas(where: {creationTimestamp_gte: "x"}) { id } }', "expected a whole number"),
        ("{ protectedDatas(block: {number: 99999999}) { id } }", "is not indexed yet"),
        ("{ a", "Syntax Error"),
        (DEEP, "nested deeper"),
        (BROAD, "more than 500 fields"),
        (LOOP, "Cannot spread fragment"),
        (NESTED, "filters are nested deeper"),
        ("mutation { x }", "mutation"),
    ],
)
def test_refused_queries(world: IndexerWorld, query: str, text: str) -> None:
    assert text in world.refusal(query)


def test_refused_bodies(world: IndexerWorld) -> None:
    path = "/subgraphs/name/x/dataprotector-v2"
    for body in (b"", b"[]", b"{}", b'{"query": 5}', b'{"query": "{a}", "variables": []}', b"\xff"):
        assert world.post(path, body) == 400
    assert world.post("/subgraphs/name/x/nothing", b'{"query":"{a}"}') == 404
    assert world.post(path, b'{"query":"' + b" " * 300_000 + b'"}') == 413


def test_introspection_works(world: IndexerWorld) -> None:
    from graphql import get_introspection_query

    answer = world.data(get_introspection_query(descriptions=False))
    assert any(each["name"] == "ProtectedData_filter" for each in answer["__schema"]["types"])


def test_client(world: IndexerWorld, deployed: DeployedChain) -> None:
    owner = world.account("owner 11")
    dataset = deployed.make_dataset(owner, '{"a":{"b":"f64"},"c":"string"}')
    (found,) = world.client.protected_data(owner=owner.address)
    assert (found.address, found.owner, found.schema) == (dataset, owner.address, {"a": {"b": "f64"}, "c": "string"})
    entry = deployed.datasets.dataset(dataset, block="latest")
    assert entry is not None
    assert (found.multiaddr, found.checksum) == (entry.multiaddr, entry.checksum)
    assert world.client.protected_data(address=dataset, required_schema={"a": {"b": "f64"}}) == [found]
    assert world.client.protected_data(address=dataset, required_schema={"c": ["bool", "string"]}) == [found]
    assert world.client.protected_data(address=dataset, required_schema={"c": "bool"}) == []
    assert world.client.protected_data(address=dataset, created_after=found.created) == [found]
    assert world.client.protected_data(address=dataset, created_after=found.created + 1) == []
    assert world.client.block() > 0


def test_restart_and_reorganisation(tmp_path: Path) -> None:
    with running_anvil() as node:
        chain = DeployedChain(node, tmp_path)
        first, second = chain.account("a"), chain.account("b")
        world = IndexerWorld(chain, tmp_path)
        with world.serving():
            dataset = chain.make_dataset(first)
            assert len(protected(world)) == 1
        while_down = chain.make_dataset(first)
        with world.serving():
            assert {each["id"] for each in protected(world)} == {dataset.lower(), while_down.lower()}
            snapshot = chain.rpc.call("evm_snapshot")
            chain.send(chain.datasets.transfer(first.address, second.address, dataset), first)
            lost = chain.make_dataset(first)
            owners = {each["id"]: each["owner"]["id"] for each in protected(world)}
            assert owners[dataset.lower()] == second.address.lower()
            assert lost.lower() in owners
            chain.rpc.call("evm_revert", snapshot)
            node.mine(5)
            owners = {each["id"]: each["owner"]["id"] for each in protected(world)}
            assert owners == dict.fromkeys((dataset.lower(), while_down.lower()), first.address.lower())


def test_names_that_are_no_text_do_not_stop_the_indexer(world: IndexerWorld, deployed: DeployedChain) -> None:
    owner = world.account("owner 12")
    call = deployed.dataprotector.create_dataset_with_schema(
        owner.address, "MARK", "{}", b"https://example.org", deployed.salt()
    )
    broken = type(call)(call.to, call.data.replace(b"MARK", b"\xff\xfe\xfd\xfc"))
    deployed.send(broken, owner)
    dataset = deployed.make_dataset(owner).lower()
    assert [each["id"] for each in protected(world, {"owner": owner.address.lower()})] == [dataset]
    assert to_hex(b"") == "0x"
