"""The whole of PoCo against its model: money, orders, deals, tasks, contributions, scores.

Every rule tries something, allowed or not, on the contracts and on the model. Both must agree on whether it is allowed,
on the reason if it is not, and afterwards on every account, counter and task.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import boa
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from tests.contracts.stateful import model as poco
from tests.contracts.stateful.model import ZERO, Model, Offer, Refused, Request
from tests.contracts.stateful.world import CONTRIBUTION, DEAL, FOUR_ORDERS, TASK, World

from cloister.protocol.authorization import scheduler_authorization
from cloister.protocol.codec import Address, Bytes32, keccak256
from cloister.protocol.deals import deal_id
from cloister.protocol.orders import NO_DATASET_ORDER, AppOrder, DatasetOrder, Order, RequestOrder, WorkerpoolOrder
from cloister.protocol.signatures import PrivateKey
from cloister.protocol.tags import Tag
from cloister.protocol.tasks import task_id

PURSE = 10**15
"""nRLC that every actor starts with; half of it is deposited."""

CLOCKS = (300, 10, 0)
SETTINGS = {
    "default": settings(max_examples=22, stateful_step_count=50),
    "nightly": settings(max_examples=400, stateful_step_count=80),
}
WORKERS = tuple(f"worker {number}" for number in range(4))
ACTORS = ("app_owner", "data_owner", "pool_owner", "other_owner", "requester", "sponsor", *WORKERS)
PRICES = st.sampled_from([0, 1, 3, 7, 100, 999, 10**12, PURSE])
CHEAP = st.sampled_from([0, 1, 3, 7, 100, 999, 10**9, 10**12])
# A workerpool's stake goes to the kitty when it fails; only a rich kitty pays more than its minimum.
POOL_PRICES = st.sampled_from([0, 7, 999, 10**12, 10**12, 10**12])
VOLUMES = st.integers(1, 4)
TAGS = st.sampled_from([0, 0, 1, 1, 9])
TRUSTS = st.sampled_from([0, 1, 1, 2, 2, 3])
INDEX = st.integers(0, 2**16)
# Mostly the honest choice, which comes first.
MOSTLY = st.sampled_from([0, 0, 0, 0, 0, 0, 1, 2])
FITTING: dict[str, Any] = {
    "resources": st.tuples(st.integers(0, 1), st.sampled_from([None, 0, 0, 1]), st.integers(0, 1)),
    "prices": st.tuples(CHEAP, CHEAP, POOL_PRICES),
    "volumes": st.tuples(VOLUMES, VOLUMES, VOLUMES, VOLUMES),
    "tag": TAGS,
    "category": st.sampled_from([0, 0, 0, 0, 0, 1, 2]),
    "trust": TRUSTS,
}
CHANGES: list[dict[str, dict[str, Any]]] = [
    {"request": {"category": 1}},
    {"request": {"category": 7}, "pool": {"category": 7}},
    {"request": {"trust": 9}},
    {"app": {"appprice": PURSE}},
    {"dataset": {"datasetprice": PURSE}},
    {"pool": {"workerpoolprice": PURSE}},
    {"request": {"tag": Tag("0x" + "00" * 30 + "0100")}},
    {"app": {"tag": Tag("0x" + "00" * 32)}, "request": {"tag": Tag("0x" + "00" * 31 + "01")}},
    {"dataset": {"tag": Tag("0x" + "00" * 31 + "03")}},
    {"request": {"app": "other app"}},
    {"request": {"dataset": "other dataset"}},
    {"request": {"workerpool": "other pool"}},
    {"app": {"datasetrestrict": "other dataset"}},
    {"app": {"workerpoolrestrict": "other pool"}},
    {"app": {"requesterrestrict": "stranger"}},
    {"dataset": {"apprestrict": "other app"}},
    {"dataset": {"workerpoolrestrict": "other pool"}},
    {"dataset": {"requesterrestrict": "stranger"}},
    {"pool": {"apprestrict": "other app"}},
    {"pool": {"datasetrestrict": "other dataset"}},
    {"pool": {"requesterrestrict": "stranger"}},
    {"app": {"app": "stranger"}, "request": {"app": "stranger"}},
    {"dataset": {"dataset": "stranger"}, "request": {"dataset": "stranger"}},
    {"pool": {"workerpool": "stranger"}},
    {"app": {"signer": "stranger"}},
    {"dataset": {"signer": "stranger"}},
    {"pool": {"signer": "stranger"}},
    {"request": {"signer": "stranger"}},
    {"request": {"signer": None}},
    {"app": {"signer": None}},
]
LEGAL = {
    (poco.ACTIVE, poco.REVEALING),
    (poco.REVEALING, poco.ACTIVE),
    (poco.ACTIVE, poco.COMPLETED),
    (poco.REVEALING, poco.COMPLETED),
    (poco.ACTIVE, poco.FAILED),
    (poco.REVEALING, poco.FAILED),
}


def number(tag: Tag) -> int:
    return int(str(tag), 16)


def pick(items: Any, index: int) -> Any:
    items = list(items)
    return items[index % len(items)]


class Poco(RuleBasedStateMachine):
    """Two of each resource, ten actors, three categories (one of zero seconds)."""

    world: World

    def __init__(self) -> None:
        super().__init__()
        self.anchor = boa.env.anchor()
        self.anchor.__enter__()
        self.model = Model()
        self.keys = self.world.actors
        self.at = {name: key.address.lower() for name, key in self.keys.items()}
        self.enclaves = [PrivateKey(keccak256(b"enclave" + bytes([place]))) for place in range(2)]
        self.offers: dict[str, list[Order]] = {"app": [], "dataset": [], "pool": [], "request": []}
        self.ghosts: dict[str, Offer | Request] = {}
        self.salt = 0
        self.model.now = boa.env.timestamp
        self.model.clocks = list(CLOCKS)

    def teardown(self) -> None:
        try:
            self.check_everything()
        finally:
            self.anchor.__exit__(None, None, None)

    @initialize(
        with_broker=st.booleans(),
        scores=st.lists(
            st.sampled_from([0, 1, 11, 12, 14, 15, 100, 1000]), min_size=len(WORKERS), max_size=len(WORKERS)
        ),
    )
    def open_market(self, with_broker: bool, scores: list[int]) -> None:
        world = self.world
        for worker, score in zip(WORKERS, scores, strict=True):
            self._import(self.at[worker], score)
        for actor in ACTORS:
            assert world.send(world.owner, world.rlc, "transfer(address,uint256)", self.at[actor], PURSE).done
            self.model.tokens[self.at[actor]] = PURSE
        for clock in CLOCKS:
            arguments = ("name", "description", clock)
            assert world.send(world.owner, world.hub, "createCategory(string,string,uint256)", *arguments).done
        if with_broker:
            self.model.broker = self.at["other_owner"]
            assert world.send(world.owner, world.hub, "setTeeBroker(address)", self.at["other_owner"]).done
        self.resources = {
            "app": self._register(world.apps, "createApp(address,string,string,bytes,bytes32,bytes)", "app_owner"),
            "dataset": self._register(world.datasets, "createDataset(address,string,bytes,bytes32)", "data_owner"),
            "pool": self._register(world.workerpools, "createWorkerpool(address,string)", "pool_owner"),
        }
        for pool in self.resources["pool"]:
            self.model.policies[pool] = (30, 1)
        for actor in ACTORS:
            self.deposit(ACTORS.index(actor), PURSE // 2)

    def _import(self, worker: str, score: int) -> None:
        world = self.world
        assert world.send(world.owner, world.former_hub, "set(address,uint256)", worker, score).done
        self.both(worker, "importScore(address)", (worker,), lambda: self.model.import_score(worker, score))

    def _register(self, registry: str, creation: str, owner: str) -> list[str]:
        """Two resources: the first of ``owner``, the second of somebody else."""
        made = []
        for name in (owner, "other_owner"):
            fields = {
                "createApp": ("app", "DOCKER", b"", bytes(32), b""),
                "createDataset": ("data", b"", bytes(32)),
                "createWorkerpool": ("pool",),
            }[creation.split("(")[0]]
            outcome = self.world.send(self.world.owner, registry, creation, self.at[name], *fields)
            assert outcome.done
            made.append("0x" + outcome.output[12:32].hex())
            self.model.owners[made[-1]] = self.at[name]
        return made

    def both(self, sender: str, signature: str, arguments: tuple[Any, ...], ghost: Callable[[], Any]) -> Any:
        """Try on the contracts and on the model; returns what the model said when it was allowed, else ``None``."""
        outcome = self.world.send(sender, self.world.hub, signature, *arguments)
        return self._agree(signature, outcome.done, outcome.reason, ghost)

    def _agree(self, what: str, done: bool, reason: str | None, ghost: Callable[[], Any]) -> Any:
        refused: Refused | None = None
        result: Any = None
        try:
            with self.model.attempt():
                result = ghost()
        except Refused as refusal:
            refused = refusal
        if refused is not None:
            assert not done, f"{what}: the contract allowed what the model refuses ({refused.reason})"
            assert reason == refused.reason, f"{what}: refused for {reason!r}, the model says {refused.reason!r}"
            return None
        assert done, f"{what}: the contract refused ({reason!r}) what the model allows"
        return True if result is None else result

    # Money

    @rule(actor=INDEX, amount=PRICES, to=INDEX, way=st.integers(0, 2))
    def bank(self, actor: int, amount: int, to: int, way: int) -> None:
        if way == 0:
            self.deposit(actor, amount)
        elif way == 1:
            self.withdraw(actor, amount, to)
        else:
            self.pay(actor, amount, to)

    def pay(self, actor: int, amount: int, to: int) -> None:
        """Stake changes hands: the hub is a token itself."""
        who, target = self.at[pick(ACTORS, actor)], self.at[pick(ACTORS, to)]
        self.both(who, "transfer(address,uint256)", (target, amount), lambda: self.model.transfer(who, target, amount))

    def deposit(self, actor: int, amount: int) -> None:
        name = pick(ACTORS, actor)
        outcome = self.world.send(
            self.at[name], self.world.rlc, "approveAndCall(address,uint256,bytes)", self.world.hub, amount, b""
        )
        self._agree("deposit", outcome.done, outcome.reason, lambda: self.model.deposit(self.at[name], amount))

    def withdraw(self, actor: int, amount: int, to: int) -> None:
        who, target = self.at[pick(ACTORS, actor)], self.at[pick(ACTORS, to)]
        if who == target:
            self.both(who, "withdraw(uint256)", (amount,), lambda: self.model.withdraw(who, who, amount))
        else:
            arguments = (amount, target)
            self.both(who, "withdrawTo(uint256,address)", arguments, lambda: self.model.withdraw(who, target, amount))

    # Resources

    @rule(
        kind=st.sampled_from(["app", "dataset", "pool", "policy", "policy"]),
        which=st.integers(0, 1),
        to=INDEX,
        stake=st.sampled_from([0, 30, 200]),
        share=st.sampled_from([0, 1, 33, 100]),
    )
    def own(self, kind: str, which: int, to: int, stake: int, share: int) -> None:
        """Owners sell what they have, or set the policy of their pool."""
        if kind == "policy":
            self.change_policy(which, stake, share)
        else:
            self.sell(kind, which, to)

    def sell(self, kind: str, which: int, to: int) -> None:
        resource, buyer = self.resources[kind][which], self.at[pick(ACTORS, to)]
        owner = self.model.owners[resource]
        registry = {"app": self.world.apps, "dataset": self.world.datasets, "pool": self.world.workerpools}[kind]
        outcome = self.world.send(
            owner, registry, "transferFrom(address,address,uint256)", owner, buyer, int(resource, 16)
        )
        assert outcome.done
        self.model.owners[resource] = buyer

    def change_policy(self, which: int, stake: int, share: int) -> None:
        pool = self.resources["pool"][which]
        outcome = self.world.send(self.model.owners[pool], pool, "changePolicy(uint256,uint256)", stake, share)
        assert outcome.done
        self.model.policies[pool] = (stake, share)

    # Orders

    @rule(change=st.sampled_from(CHANGES), sponsored=st.booleans(), **FITTING)
    def trade_with_one_thing_wrong(self, change: dict[str, dict[str, Any]], **fields: Any) -> None:
        """Four orders that fit but for one thing. Some of these changes are harmless, which is for the model to say."""
        self._trade(change=change, **fields)

    @rule(sponsored=st.booleans(), begin=st.booleans(), **FITTING)
    def trade(self, begin: bool, **fields: Any) -> None:
        """Four orders that fit are written and matched."""
        before = len(self.model.deals)
        self._trade(change=None, **fields)
        if begin and len(self.model.deals) > before:
            self.begin(deal=before, offset=0, all_at_once=True)

    def _trade(
        self,
        resources: tuple[int, int | None, int],
        prices: tuple[int, int, int],
        volumes: tuple[int, int, int, int],
        tag: int,
        category: int,
        trust: int,
        change: dict[str, dict[str, Any]] | None,
        sponsored: bool,
    ) -> None:
        app, pool = self.resources["app"][resources[0]], self.resources["pool"][resources[2]]
        dataset = ZERO if resources[1] is None else self.resources["dataset"][resources[1]]
        word = Tag(f"0x{tag:064x}")
        fields: dict[str, dict[str, Any]] = {
            "app": {"app": app, "appprice": prices[0], "volume": volumes[0], "tag": word},
            "dataset": {"dataset": dataset, "datasetprice": prices[1], "volume": volumes[1], "tag": word},
            "pool": {
                "workerpool": pool,
                "workerpoolprice": prices[2],
                "volume": volumes[2],
                "tag": word,
                "category": category,
                "trust": max(trust, 3),
            },
            "request": {
                "app": app,
                "appmaxprice": prices[0],
                "dataset": dataset,
                "datasetmaxprice": prices[1] if dataset != ZERO else 0,
                "workerpool": pool if volumes[0] % 2 else ZERO,
                "workerpoolmaxprice": prices[2],
                "requester": self.at["requester"],
                "volume": volumes[3],
                "tag": word,
                "category": category,
                "trust": trust,
                "beneficiary": self.at["requester"],
                "params": "{}",
            },
        }
        signers = {
            "app": self.model.owners[app],
            "dataset": self.model.owners.get(dataset),
            "pool": self.model.owners[pool],
            "request": self.at["requester"],
        }
        for kind, changes in (change or {}).items():
            for name, value in changes.items():
                if name == "signer":
                    signers[kind] = self.at["sponsor"] if value else None
                else:
                    fields[kind][name] = self._named(value)
        if dataset == ZERO and not (change and "dataset" in change.get("dataset", {})):
            del fields["dataset"]
        for kind, values in fields.items():
            self._write(kind, values, signers[kind])
        dataset_place = len(self.offers["dataset"]) - 1 if "dataset" in fields else None
        self._match(*(len(self.offers[kind]) - 1 for kind in ("app", "pool", "request")), dataset_place, sponsored)

    def _named(self, value: Any) -> Any:
        if not isinstance(value, str) or value.startswith("0x"):
            return value
        if value == "stranger":
            return self.at["worker 3"]
        return self.resources[value.removeprefix("other ")][1]

    def _write(self, kind: str, values: dict[str, Any], signer: str | None) -> None:
        """Make, sign and keep an order, together with its ghost."""
        self.salt += 1
        values["salt"] = Bytes32.from_raw(self.salt.to_bytes(32, "big"))
        order_type = {"app": AppOrder, "dataset": DatasetOrder, "pool": WorkerpoolOrder, "request": RequestOrder}[kind]
        order = order_type(**values)
        key = next((key for key in self.keys.values() if key.address.lower() == signer), None)
        order = self.world.sign(order, key)
        name = str(self.world.hash(order))
        if isinstance(order, RequestOrder):
            ghost: Offer | Request = Request(
                hash=name,
                requester=order.requester.lower(),
                app=order.app.lower(),
                app_max=order.appmaxprice,
                dataset=order.dataset.lower(),
                dataset_max=order.datasetmaxprice,
                workerpool=order.workerpool.lower(),
                workerpool_max=order.workerpoolmaxprice,
                volume=order.volume,
                tag=number(order.tag),
                category=order.category,
                trust=order.trust,
                signer=signer,
            )
        else:
            price = {"app": "appprice", "dataset": "datasetprice", "pool": "workerpoolprice"}[kind]
            restricts = {
                f"{name}_restrict": getattr(order, f"{name}restrict", ZERO).lower()
                for name in ("app", "dataset", "workerpool", "requester")
            }
            ghost = Offer(
                hash=name,
                resource=order.resource.lower(),
                price=getattr(order, price),
                volume=order.volume,
                tag=number(order.tag),
                category=getattr(order, "category", 0),
                trust=getattr(order, "trust", 0),
                signer=signer,
                **restricts,
            )
        self.offers[kind].append(order)
        self.ghosts[name] = ghost

    def _ghost(self, order: Order) -> Any:
        return self.ghosts[str(self.world.hash(order))]

    @precondition(lambda self: self.offers["request"])
    @rule(
        app=INDEX,
        pool=INDEX,
        request=INDEX,
        dataset=st.one_of(st.none(), INDEX),
        same=st.booleans(),
        sponsored=st.booleans(),
    )
    def rematch(self, app: int, pool: int, request: int, dataset: int | None, same: bool, sponsored: bool) -> None:
        """Orders seen before: those written together, for what is left of their volumes, or any crosswise."""
        if same:
            self._match(request, request, request, self._partner(request), sponsored)
        else:
            self._match(app, pool, request, dataset if self.offers["dataset"] else None, sponsored)

    def _partner(self, request: int) -> int | None:
        wanted = pick(self.offers["request"], request).dataset
        for place, order in enumerate(self.offers["dataset"]):
            if order.resource == wanted:
                return place
        return None

    def _match(self, app: int, pool: int, request: int, dataset: int | None, sponsored: bool) -> None:
        orders = [
            pick(self.offers["app"], app),
            NO_DATASET_ORDER if dataset is None else pick(self.offers["dataset"], dataset),
            pick(self.offers["pool"], pool),
            pick(self.offers["request"], request),
        ]
        ghosts = [self._ghost(order) if order is not NO_DATASET_ORDER else None for order in orders]
        sender = self.at["sponsor"]
        sponsor = sender if sponsored else ghosts[3].requester
        function = "sponsorMatchOrders" if sponsored else "matchOrders"
        matched = self.both(
            sender,
            function + FOUR_ORDERS,
            tuple(order.as_tuple() for order in orders),
            lambda: self.model.match(ghosts[0], ghosts[1], ghosts[2], ghosts[3], sponsor),
        )
        if matched:
            self.model.record_deal(str(deal_id(self.world.hash(orders[3]), matched[0])))

    @precondition(lambda self: self.offers["request"])
    @rule(
        kind=st.sampled_from(["app", "dataset", "pool", "request"]),
        which=INDEX,
        operation=st.integers(0, 1),
        caller=MOSTLY,
        signer=st.sampled_from([None, None, 0, 1]),
    )
    def manage(self, kind: str, which: int, operation: int, caller: int, signer: int | None) -> None:
        """Presign or close, by the owner, by the bearer of the owner's signature, or by neither."""
        if not self.offers[kind]:
            return
        order = pick(self.offers[kind], which)
        ghost = self._ghost(order)
        owner = ghost.requester if kind == "request" else self.model.owners.get(ghost.resource, ZERO)
        sender = owner if caller == 0 and owner != ZERO else self.at["worker 3"]
        key = None
        if signer is not None:
            wanted = owner if signer == 0 else self.at["worker 2"]
            key = next((key for key in self.keys.values() if key.address.lower() == wanted), None)
        outcome = self.world.manage(sender, order, operation, key)
        signed_by = key.address.lower() if key else None
        if ghost.hash in self.model.closed and operation == 1:
            assert outcome.done == (owner in (sender, signed_by))
        self._agree(
            "manage", outcome.done, outcome.reason, lambda: self.model.manage(ghost, operation, sender, signed_by)
        )
        read = self.world.read
        assert (
            read("viewConsumed(bytes32)", "uint256", bytes.fromhex(ghost.hash[2:])) == self.model.consumed[ghost.hash]
        )
        assert read("isClosed(bytes32)", "bool", bytes.fromhex(ghost.hash[2:])) == (ghost.hash in self.model.closed)

    # Tasks

    @precondition(lambda self: self.model.deals)
    @rule(deal=INDEX, offset=st.sampled_from([0, 0, 0, 1, 1, 2, 3, -1]), all_at_once=st.booleans())
    def begin(self, deal: int, offset: int, all_at_once: bool) -> None:
        name = pick(self.model.deals, deal)
        first, size = self.model.deals[name].first, self.model.deals[name].size
        if all_at_once:
            places = [
                place
                for place in range(first, first + size)
                if str(task_id(Bytes32(name), place)) not in self.model.tasks
            ]
            places += [first] if offset < 0 else []
            arguments: tuple[Any, ...] = ([bytes.fromhex(name[2:])] * len(places), places)
            self.both(
                self.at["worker 3"],
                "initializeArray(bytes32[],uint256[])",
                arguments,
                lambda: [self._begin(name, place) for place in places],
            )
            return
        index = first + offset
        if index >= 0:
            arguments = (bytes.fromhex(name[2:]), index)
            self.both(self.at["worker 3"], "initialize(bytes32,uint256)", arguments, lambda: self._begin(name, index))

    def _begin(self, deal: str, index: int) -> None:
        self.model.initialize(str(task_id(Bytes32(deal), index)), deal, index)

    def _papers(self, name: str, worker: PrivateKey, enclave: int, authorizer: int, sealed: bytes) -> tuple[Any, ...]:
        """Enclave, its signature over ``sealed``, authorization; then who authorized, and if the enclave's is right."""
        deal = self.model.deals[self.model.tasks[name].deal]
        with_enclave = (deal.tag & 1) ^ (enclave == 2)
        challenge = self.enclaves[0].address if with_enclave else Address(ZERO)
        authority = self.model.broker if with_enclave and self.model.broker != ZERO else deal.workerpool_owner
        if authorizer:
            authority = deal.workerpool_owner if authorizer == 1 else self.at["worker 3"]
        key = next(key for key in self.keys.values() if key.address.lower() == authority)
        authorization = key.sign_message(scheduler_authorization(worker.address, Bytes32(name), challenge))
        signing = self.enclaves[enclave == 1]
        sign = signing.sign_message(keccak256(sealed)) if with_enclave else b""
        return challenge, sign, authorization, authority, enclave != 1

    def _choose(self, index: int, wanted: Callable[[poco.Task], bool]) -> str:
        """A task that is wanted, three times out of four; else any."""
        tasks = self.model.tasks
        fitting = [name for name, task in tasks.items() if wanted(task)]
        return str(pick(fitting if fitting and index % 4 else tasks, index // 4))

    @staticmethod
    def _seal(name: str, worker: PrivateKey, digest: bytes) -> tuple[bytes, bytes]:
        task = bytes.fromhex(name[2:])
        return keccak256(task + digest), keccak256(worker.address.raw + task + digest)

    @precondition(lambda self: self.model.tasks)
    @rule(task=INDEX, worker=INDEX, answer=MOSTLY, enclave=MOSTLY, authorizer=MOSTLY)
    def contribute(self, task: int, worker: int, answer: int, enclave: int, authorizer: int) -> None:
        name = self._choose(task, lambda each: each.status == poco.ACTIVE)
        self._contribute(name, self.keys[pick(WORKERS, worker)], answer, enclave, authorizer)

    def _contribute(self, name: str, key: PrivateKey, answer: int, enclave: int, authorizer: int) -> None:
        digest = keccak256(bytes([answer]))
        result, seal = self._seal(name, key, digest)
        challenge, sign, authorization, signer, enclave_ok = self._papers(name, key, enclave, authorizer, result + seal)
        self.both(
            key.address,
            "contribute(bytes32,bytes32,bytes32,address,bytes,bytes)",
            (bytes.fromhex(name[2:]), result, seal, challenge, sign, authorization),
            lambda: self.model.contribute(
                name, key.address.lower(), result.hex(), seal.hex(), challenge.lower(), enclave_ok, signer
            ),
        )

    @precondition(lambda self: self.model.tasks)
    @rule(task=INDEX, answers=st.lists(st.sampled_from([0, 0, 0, 1]), min_size=4, max_size=4))
    def contribute_together(self, task: int, answers: list[int]) -> None:
        """All workers, one after the other, until the task is decided."""
        name = self._choose(task, lambda each: each.status == poco.ACTIVE)
        for worker, answer in zip(WORKERS, answers, strict=True):
            if self.model.tasks[name].status == poco.ACTIVE:
                self._contribute(name, self.keys[worker], answer, 0, 0)

    @precondition(lambda self: self.model.tasks)
    @rule(task=INDEX, worker=INDEX, answer=st.sampled_from([0, 0, 1]), everyone=st.booleans())
    def reveal(self, task: int, worker: int, answer: int, everyone: bool) -> None:
        name = self._choose(task, lambda each: each.status == poco.REVEALING)
        for each in WORKERS if everyone else [pick(WORKERS, worker)]:
            self._reveal(name, self.keys[each], answer)

    def _reveal(self, name: str, key: PrivateKey, answer: int) -> None:
        digest = keccak256(bytes([answer]))
        result, seal = self._seal(name, key, digest)
        self.both(
            key.address,
            "reveal(bytes32,bytes32)",
            (bytes.fromhex(name[2:]), digest),
            lambda: self.model.reveal(name, key.address.lower(), result.hex(), seal.hex()),
        )

    @precondition(lambda self: self.model.tasks)
    @rule(task=INDEX, caller=MOSTLY, wait=st.booleans())
    def reopen(self, task: int, caller: int, wait: bool) -> None:
        name = self._choose(task, lambda each: each.status == poco.REVEALING)
        if wait:
            self._set_time(max(self.model.now, self.model.tasks[name].reveal_deadline))
        sender = self._manager(name, caller)
        self.both(sender, "reopen(bytes32)", (bytes.fromhex(name[2:]),), lambda: self.model.reopen(name, sender))

    def _manager(self, name: str, caller: int) -> str:
        return self.at["worker 3"] if caller else self.model.deal_of(self.model.tasks[name]).workerpool_owner

    @precondition(lambda self: self.model.tasks)
    @rule(task=INDEX, caller=MOSTLY, results=st.binary(max_size=90))
    def finalize(self, task: int, caller: int, results: bytes) -> None:
        self._finalize(self._choose(task, lambda each: each.reveals > 0), caller, results)

    def _finalize(self, name: str, caller: int, results: bytes) -> None:
        sender = self._manager(name, caller)
        arguments = (bytes.fromhex(name[2:]), results, b"")
        self.both(sender, "finalize(bytes32,bytes,bytes)", arguments, lambda: self.model.finalize(name, sender))

    @precondition(lambda self: self.model.tasks)
    @rule(task=INDEX, worker=INDEX, enclave=MOSTLY, authorizer=MOSTLY, results=st.binary(max_size=90))
    def solo(self, task: int, worker: int, enclave: int, authorizer: int, results: bytes) -> None:
        """``contributeAndFinalize``."""
        name = self._choose(task, lambda each: each.status == poco.ACTIVE and self.model.deal_of(each).trust == 1)
        key = self.keys[pick(WORKERS, worker)]
        digest = keccak256(results)
        result, seal = self._seal(name, key, digest)
        challenge, sign, authorization, signer, enclave_ok = self._papers(name, key, enclave, authorizer, result + seal)
        self.both(
            key.address,
            "contributeAndFinalize(bytes32,bytes32,bytes,bytes,address,bytes,bytes)",
            (bytes.fromhex(name[2:]), digest, results, b"", challenge, sign, authorization),
            lambda: self.model.contribute_and_finalize(
                name, key.address.lower(), challenge.lower(), enclave_ok, signer, result.hex(), seal.hex()
            ),
        )

    @precondition(lambda self: self.model.tasks)
    @rule(tasks=st.lists(INDEX, min_size=1, max_size=4, unique=True), worker=INDEX, authorizer=MOSTLY)
    def solo_batch(self, tasks: list[int], worker: int, authorizer: int) -> None:
        """``contributeAndFinalizeArray``: all or none."""
        key = self.keys[pick(WORKERS, worker)]
        columns: list[list[Any]] = [[] for _ in range(7)]
        ghosts: list[tuple[Any, ...]] = []
        for place, task in enumerate(tasks):
            name = self._choose(task, lambda each: each.status == poco.ACTIVE and self.model.deal_of(each).trust == 1)
            digest = keccak256(b"batch")
            result, seal = self._seal(name, key, digest)
            # One bad paper spoils the batch.
            papers = self._papers(name, key, 0, authorizer if place == len(tasks) - 1 else 0, result + seal)
            challenge, sign, authorization, signer, enclave_ok = papers
            row = (bytes.fromhex(name[2:]), digest, b"results", b"", challenge, sign, authorization)
            for column, value in zip(columns, row, strict=True):
                column.append(value)
            worker_address = key.address.lower()
            ghosts.append((name, worker_address, challenge.lower(), enclave_ok, signer, result.hex(), seal.hex()))
        self.both(
            key.address,
            "contributeAndFinalizeArray(bytes32[],bytes32[],bytes[],bytes[],address[],bytes[],bytes[])",
            tuple(columns),
            lambda: [self.model.contribute_and_finalize(*ghost) for ghost in ghosts],
        )

    @precondition(lambda self: self.model.tasks)
    @rule(tasks=st.lists(INDEX, min_size=1, max_size=3))
    def claim(self, tasks: list[int]) -> None:
        self._claim([pick(self.model.tasks, task) for task in tasks])

    def _claim(self, names: list[str]) -> None:
        ids = [bytes.fromhex(name[2:]) for name in names]
        if len(ids) == 1:
            self.both(self.at["worker 3"], "claim(bytes32)", (ids[0],), lambda: self.model.claim(names[0]))
        else:
            self.both(
                self.at["worker 3"], "claimArray(bytes32[])", (ids,), lambda: [self.model.claim(name) for name in names]
            )

    @precondition(lambda self: self.model.tasks)
    @rule(task=INDEX, answers=st.lists(st.sampled_from([0, 0, 0, 1]), min_size=4, max_size=4), late=st.booleans())
    def finish(self, task: int, answers: list[int], late: bool) -> None:
        """The honest rest of a task, wherever it stands; or its end by the clock."""
        name = self._choose(task, lambda each: each.status in (poco.ACTIVE, poco.REVEALING))
        if late:
            deal = self.model.deal_of(self.model.tasks[name])
            self._set_time(max(self.model.now, deal.start + 10 * self.model.clocks[deal.category]))
            self._claim([name])
            return
        for worker, answer in zip(WORKERS, answers, strict=True):
            if self.model.tasks[name].status == poco.ACTIVE:
                self._contribute(name, self.keys[worker], answer, 0, 0)
        for answer in (0, 1):
            for worker in WORKERS:
                self._reveal(name, self.keys[worker], answer)
        self._finalize(name, 0, b"results")

    @rule(seconds=st.sampled_from([1, 9, 20, 70, 100, 600]))
    def wait(self, seconds: int) -> None:
        self._set_time(self.model.now + seconds)

    @precondition(lambda self: self.model.tasks)
    @rule(task=INDEX, which=st.integers(0, 2), offset=st.integers(-1, 0))
    def wait_for_deadline(self, task: int, which: int, offset: int) -> None:
        """To the last second before a deadline, or to the first after."""
        task_ghost = self.model.tasks[pick(self.model.tasks, task)]
        deal = self.model.deal_of(task_ghost)
        clock = self.model.clocks[deal.category]
        deadline = (deal.start + 7 * clock, task_ghost.reveal_deadline, deal.start + 10 * clock)[which]
        if deadline + offset > self.model.now:
            self._set_time(deadline + offset)

    def _set_time(self, now: int) -> None:
        self.model.now = now
        boa.env.evm.patch.timestamp = now

    # What must always hold

    @invariant()
    def money_agrees(self) -> None:
        read = self.world.read
        for who, account in self.model.accounts.items():
            assert read("viewAccount(address)", "(uint256,uint256)", who) == (account.stake, account.locked)
        supply = read("totalSupply()", "uint256")
        assert supply == self.model.supply
        assert supply == read("balanceOf(address)", "uint256", self.world.hub, to=self.world.rlc)
        # Whatever is locked is locked for something that is still open.
        promised = sum(
            deal.task_price + deal.pool_stake
            for deal_name, deal in self.model.deals.items()
            for place in range(deal.first, deal.first + deal.size)
            if self._is_open(deal_name, place)
        ) + sum(
            self.model.deal_of(task).worker_stake * len(task.contributions)
            for task in self.model.tasks.values()
            if task.status in (poco.ACTIVE, poco.REVEALING)
        )
        locked = sum(account.locked for who, account in self.model.accounts.items() if who != poco.KITTY)
        assert locked == promised

    def _is_open(self, deal: str, place: int) -> bool:
        task = self.model.tasks.get(str(task_id(Bytes32(deal), place)))
        return task is None or task.status in (poco.ACTIVE, poco.REVEALING)

    @invariant()
    def tasks_go_one_way(self) -> None:
        for task in self.model.tasks.values():
            assert set(zip(task.history, task.history[1:], strict=False)) <= LEGAL
            assert sum(status in (poco.COMPLETED, poco.FAILED) for status in task.history) <= 1

    def check_everything(self) -> None:
        """At the end: tokens, deals, tasks, contributions, counters and scores, read back whole."""
        read, model = self.world.read, self.model
        for who, amount in model.tokens.items():
            assert read("balanceOf(address)", "uint256", who, to=self.world.rlc) == amount
        for worker in WORKERS:
            assert read("viewScore(address)", "uint256", self.at[worker]) == model.scores[self.at[worker]]
        for name in self.ghosts:
            raw = bytes.fromhex(name[2:])
            assert read("viewConsumed(bytes32)", "uint256", raw) == model.consumed[name]
            assert read("isClosed(bytes32)", "bool", raw) == (name in model.closed)
            assert read("viewPresigned(bytes32)", "address", raw) == model.presigned.get(name, ZERO)
        for name, deal in model.deals.items():
            assert read("viewDeal(bytes32)", DEAL, bytes.fromhex(name[2:])) == (
                (deal.app, deal.app_owner, deal.app_price),
                (deal.dataset, deal.dataset_owner, deal.dataset_price),
                (deal.workerpool, deal.workerpool_owner, deal.workerpool_price),
                deal.trust,
                deal.category,
                deal.tag.to_bytes(32, "big"),
                deal.requester,
                deal.requester,
                ZERO,
                "{}",
                deal.start,
                deal.first,
                deal.size,
                deal.worker_stake,
                deal.scheduler_percent,
                deal.sponsor,
            )
        for name, task in model.tasks.items():
            self._check_task(name, task)

    def _check_task(self, name: str, task: poco.Task) -> None:
        deal = self.model.deal_of(task)
        clock = self.model.clocks[deal.category]
        seen = self.world.read("viewTask(bytes32)", TASK, bytes.fromhex(name[2:]))
        expected = (
            task.status,
            bytes.fromhex(task.deal[2:]),
            task.index,
            clock,
            deal.start + 7 * clock,
            task.reveal_deadline,
            deal.start + 10 * clock,
            bytes.fromhex(task.consensus) if task.consensus else bytes(32),
            task.reveals,
            task.winners,
            tuple(task.contributions),
        )
        assert seen[:11] == expected, f"task {name}: the contract says {seen[:11]}, the model {expected}"
        for worker, item in task.contributions.items():
            assert self.world.read(
                "viewContribution(bytes32,address)", CONTRIBUTION, bytes.fromhex(name[2:]), worker
            ) == (item.status, bytes.fromhex(item.result), bytes.fromhex(item.sealed), item.enclave, item.log_weight)


@pytest.mark.parametrize("profile", ["default", pytest.param("nightly", marks=pytest.mark.nightly)])
def test_the_contracts_are_the_model(world: World, profile: str) -> None:
    class Machine(Poco):
        pass

    Machine.world = world
    run_state_machine_as_test(
        Machine,
        settings=settings(
            SETTINGS[profile],
            deadline=None,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
            derandomize="CLOISTER_RANDOM" not in os.environ and profile == "default",
        ),
    )
