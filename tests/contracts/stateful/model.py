"""A plain Python model of PoCo, the ghost of the stateful test, written from the protocol's rules alone.

Every method either changes the model and returns, or raises ``Refused`` and leaves it as it was. ``Refused.reason`` is
the text that the contract must revert with, ``None`` for a revert without one. Amounts are nRLC, times unix seconds.
Accounts, apps and the like are lower-case hex addresses.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field

ZERO = "0x" + "00" * 20
KITTY = "0x99c2268479b93fde36232351229815df80837e23"
KITTY_MINIMUM = 10**9
KITTY_PERCENT = 10
POOL_STAKE_PERCENT = 30
CONTRIBUTION, REVEAL, FINAL = 7, 2, 10
UNSET, ACTIVE, REVEALING, COMPLETED, FAILED = range(5)
NOTHING, CONTRIBUTED, PROVED, REJECTED = range(4)
TEE = 1
FRAMEWORKS = 0x0E
MATCH = "iExecV5-matchOrders-0x"
UNSIGNED = "invalid-signature-format"
OVERDRAWN = "IexecEscrow: Transfer amount exceeds balance"


class Refused(Exception):
    """The protocol does not allow it."""

    def __init__(self, reason: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason


def require(condition: bool, reason: str | None = None) -> None:
    if not condition:
        raise Refused(reason)


@dataclass(frozen=True)
class Offer:
    """An app, dataset or workerpool order. ``signer`` is who signed it, if anybody."""

    hash: str
    resource: str
    price: int
    volume: int
    tag: int
    app_restrict: str = ZERO
    dataset_restrict: str = ZERO
    workerpool_restrict: str = ZERO
    requester_restrict: str = ZERO
    category: int = 0
    trust: int = 0
    signer: str | None = None


@dataclass(frozen=True)
class Request:
    """A request order."""

    hash: str
    requester: str
    app: str
    app_max: int
    dataset: str
    dataset_max: int
    workerpool: str
    workerpool_max: int
    volume: int
    tag: int
    category: int
    trust: int
    signer: str | None = None


@dataclass
class Account:
    stake: int = 0
    locked: int = 0


@dataclass(frozen=True)
class Deal:
    app: str
    app_owner: str
    app_price: int
    dataset: str
    dataset_owner: str
    dataset_price: int
    workerpool: str
    workerpool_owner: str
    workerpool_price: int
    trust: int
    category: int
    tag: int
    requester: str
    sponsor: str
    start: int
    first: int
    size: int
    worker_stake: int
    scheduler_percent: int

    @property
    def task_price(self) -> int:
        return self.app_price + self.dataset_price + self.workerpool_price

    @property
    def pool_stake(self) -> int:
        return self.workerpool_price * POOL_STAKE_PERCENT // 100


@dataclass
class Contribution:
    result: str
    sealed: str
    enclave: str
    log_weight: int
    status: int = CONTRIBUTED


@dataclass
class Task:
    deal: str
    index: int
    status: int = ACTIVE
    reveal_deadline: int = 0
    consensus: str | None = None
    reveals: int = 0
    winners: int = 0
    contributions: dict[str, Contribution] = field(default_factory=dict)
    groups: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    # All groups and one more: where trust is asked for, one contribution is never a majority of all there may be.
    total: int = 1
    history: list[int] = field(default_factory=lambda: [ACTIVE])


def log2_of_weight(score: int) -> tuple[int, int]:
    """Weight of a worker with this score, and its binary logarithm rounded down."""
    weight = max(score // 3, 3) - 1
    return weight, weight.bit_length() - 1


class Model:
    """The whole state."""

    def __init__(self) -> None:
        self.now = 0
        self.accounts: dict[str, Account] = defaultdict(Account)
        self.tokens: dict[str, int] = defaultdict(int)
        self.owners: dict[str, str] = {}
        self.policies: dict[str, tuple[int, int]] = {}
        self.clocks: list[int] = []
        self.consumed: dict[str, int] = defaultdict(int)
        self.presigned: dict[str, str] = {}
        self.closed: set[str] = set()
        self.deals: dict[str, Deal] = {}
        self.tasks: dict[str, Task] = {}
        self.imported: set[str] = set()
        self.scores: dict[str, int] = defaultdict(int)
        self.broker = ZERO

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Undo everything inside when it is refused, as a transaction does."""
        before = deepcopy(self.__dict__)
        try:
            yield
        except Refused:
            self.__dict__.update(before)
            raise

    # Money

    @property
    def supply(self) -> int:
        return sum(account.stake + account.locked for account in self.accounts.values())

    def deposit(self, who: str, amount: int) -> None:
        require(self.tokens[who] >= amount, "ERC20: transfer amount exceeds balance")
        self.tokens[who] -= amount
        self.accounts[who].stake += amount

    def withdraw(self, who: str, to: str, amount: int) -> None:
        require(self.accounts[who].stake >= amount)
        self.accounts[who].stake -= amount
        self.tokens[to] += amount

    def transfer(self, who: str, to: str, amount: int) -> None:
        require(self.accounts[who].stake >= amount)
        self.accounts[who].stake -= amount
        self.accounts[to].stake += amount

    def _lock(self, who: str, amount: int) -> None:
        require(self.accounts[who].stake >= amount, OVERDRAWN)
        self.accounts[who].stake -= amount
        self.accounts[who].locked += amount

    def _unlock(self, who: str, amount: int) -> None:
        self._seize(who, amount)
        self._reward(who, amount)

    def _seize(self, who: str, amount: int) -> None:
        assert self.accounts[who].locked >= amount, "the model lost money"
        self.accounts[who].locked -= amount

    def _reward(self, who: str, amount: int) -> None:
        self.accounts[who].stake += amount

    # Orders

    def manage(self, order: Offer | Request, operation: int, caller: str, signer: str | None) -> None:
        owner = order.requester if isinstance(order, Request) else self.owners.get(order.resource, ZERO)
        require(owner != ZERO, "invalid-sender-or-signature")
        require(caller == owner or self._signed(signer, owner), "invalid-sender-or-signature")
        if operation == 0:
            self.presigned[order.hash] = owner
        else:
            self.consumed[order.hash] = order.volume
            self.closed.add(order.hash)

    def _agreed(self, order: Offer | Request, owner: str) -> bool:
        return self.presigned.get(order.hash) == owner or self._signed(order.signer, owner)

    @staticmethod
    def _signed(signer: str | None, owner: str) -> bool:
        # No signature at all is not a wrong one.
        require(signer is not None, UNSIGNED)
        return signer == owner

    def match(self, app: Offer, dataset: Offer | None, pool: Offer, request: Request, sponsor: str) -> tuple[int, int]:
        """Returns the consumed volume of the request before the match, which names the deal, and the deal's volume."""
        dataset_address = dataset.resource if dataset else ZERO
        require(request.category == pool.category, MATCH + "00")
        require(request.category < len(self.clocks), MATCH + "01")
        require(request.trust <= pool.trust, MATCH + "02")
        require(app.price <= request.app_max, MATCH + "03")
        require((dataset.price if dataset else 0) <= request.dataset_max, MATCH + "04")
        require(pool.price <= request.workerpool_max, MATCH + "05")
        tag = app.tag | ((dataset.tag & ~FRAMEWORKS) if dataset else 0) | request.tag
        require(tag & ~pool.tag == 0, MATCH + "06")
        require(not tag & TEE or bool(app.tag & TEE), MATCH + "07")
        require(request.app == app.resource, MATCH + "10")
        require(request.dataset == dataset_address, MATCH + "11")
        require(request.workerpool in (ZERO, pool.resource), MATCH + "12")
        require(app.dataset_restrict in (ZERO, dataset_address), MATCH + "13")
        require(app.workerpool_restrict in (ZERO, pool.resource), MATCH + "14")
        require(app.requester_restrict in (ZERO, request.requester), MATCH + "15")
        if dataset:
            require(dataset.app_restrict in (ZERO, app.resource), MATCH + "16")
            require(dataset.workerpool_restrict in (ZERO, pool.resource), MATCH + "17")
            require(dataset.requester_restrict in (ZERO, request.requester), MATCH + "18")
        require(pool.app_restrict in (ZERO, app.resource), MATCH + "19")
        require(pool.dataset_restrict in (ZERO, dataset_address), MATCH + "1a")
        require(pool.requester_restrict in (ZERO, request.requester), MATCH + "1b")
        require(app.resource in self.owners, MATCH + "20")
        require(self._agreed(app, self.owners[app.resource]), MATCH + "21")
        if dataset:
            require(dataset.resource in self.owners, MATCH + "30")
            require(self._agreed(dataset, self.owners[dataset.resource]), MATCH + "31")
        require(pool.resource in self.owners, MATCH + "40")
        require(self._agreed(pool, self.owners[pool.resource]), MATCH + "41")
        require(self._agreed(request, request.requester), MATCH + "50")
        orders = [order for order in (app, dataset, pool, request) if order]
        volume = min(order.volume - self.consumed[order.hash] for order in orders)
        require(volume > 0, MATCH + "60")
        before = self.consumed[request.hash]
        stake_percent, scheduler_percent = self.policies[pool.resource]
        deal = Deal(
            app=app.resource,
            app_owner=self.owners[app.resource],
            app_price=app.price,
            dataset=dataset_address,
            dataset_owner=self.owners[dataset_address] if dataset else ZERO,
            dataset_price=dataset.price if dataset else 0,
            workerpool=pool.resource,
            workerpool_owner=self.owners[pool.resource],
            workerpool_price=pool.price,
            trust=max(request.trust, 1),
            category=request.category,
            tag=tag,
            requester=request.requester,
            sponsor=sponsor,
            start=self.now,
            first=before,
            size=volume,
            worker_stake=pool.price * stake_percent // 100,
            scheduler_percent=scheduler_percent,
        )
        self._lock(sponsor, deal.task_price * volume)
        self._lock(deal.workerpool_owner, deal.pool_stake * volume)
        for order in orders:
            self.consumed[order.hash] += volume
        self._pending = deal
        return before, volume

    def record_deal(self, name: str) -> None:
        """Name the deal that ``match`` just made."""
        assert name not in self.deals
        self.deals[name] = self._pending

    # Workers

    def import_score(self, worker: str, score: int) -> None:
        """Scores of an older hub are taken over once, if they are better."""
        require(worker not in self.imported, "score-already-imported")
        self.imported.add(worker)
        self.scores[worker] = max(self.scores[worker], score)

    # Tasks

    def deal_of(self, task: Task) -> Deal:
        return self.deals[task.deal]

    def _until(self, task: Task, ratio: int) -> int:
        deal = self.deal_of(task)
        return deal.start + ratio * self.clocks[deal.category]

    def _move(self, task: Task, status: int) -> None:
        task.status = status
        task.history.append(status)

    def initialize(self, name: str, deal_name: str, index: int) -> None:
        require(deal_name in self.deals)
        deal = self.deals[deal_name]
        require(deal.first <= index < deal.first + deal.size)
        require(name not in self.tasks)
        self.tasks[name] = Task(deal_name, index)

    def _open(self, name: str) -> Task:
        require(name in self.tasks)
        return self.tasks[name]

    def _admit(self, task: Task, enclave: str, enclave_ok: bool, authorizer: str) -> None:
        deal = self.deal_of(task)
        require(self.now < self._until(task, CONTRIBUTION))
        require(not deal.tag & TEE or enclave != ZERO)
        authority = self.broker if self.broker != ZERO and enclave != ZERO else deal.workerpool_owner
        require(authorizer == authority)
        require(enclave == ZERO or enclave_ok)

    def contribute(
        self, name: str, worker: str, result: str, sealed: str, enclave: str, enclave_ok: bool, authorizer: str
    ) -> None:
        task = self._open(name)
        deal = self.deal_of(task)
        require(task.status == ACTIVE)
        require(worker not in task.contributions)
        self._admit(task, enclave, enclave_ok, authorizer)
        self._lock(worker, deal.worker_stake)
        weight, logarithm = log2_of_weight(self.scores[worker])
        before = task.groups[result]
        after = max(before, 1) * weight
        task.groups[result] = after
        task.total += after - before
        task.contributions[worker] = Contribution(result, sealed, enclave, logarithm)
        if task.groups[result] * deal.trust > task.total * (deal.trust - 1):
            self._move(task, REVEALING)
            task.consensus = result
            task.reveal_deadline = self.now + REVEAL * self.clocks[deal.category]
            task.reveals = 0
            task.winners = sum(
                item.result == result and item.status == CONTRIBUTED for item in task.contributions.values()
            )

    def reveal(self, name: str, worker: str, result: str, sealed: str) -> None:
        """``result`` and ``sealed`` are what the revealed digest hashes to."""
        task = self._open(name)
        require(task.status == REVEALING)
        require(self.now < task.reveal_deadline)
        require(worker in task.contributions)
        contribution = task.contributions[worker]
        require(contribution.status == CONTRIBUTED)
        require(contribution.result == task.consensus == result)
        require(contribution.sealed == sealed)
        contribution.status = PROVED
        task.reveals += 1

    def reopen(self, name: str, caller: str) -> None:
        task = self._open(name)
        require(caller == self.deal_of(task).workerpool_owner)
        require(task.status == REVEALING)
        require(self.now < self._until(task, FINAL))
        require(task.reveal_deadline <= self.now and task.reveals == 0)
        for contribution in task.contributions.values():
            if contribution.result == task.consensus:
                contribution.status = REJECTED
        assert task.consensus is not None
        task.total -= task.groups[task.consensus]
        task.groups[task.consensus] = 0
        self._move(task, ACTIVE)
        task.consensus, task.reveal_deadline, task.winners = None, 0, 0

    def finalize(self, name: str, caller: str) -> None:
        task = self._open(name)
        require(caller == self.deal_of(task).workerpool_owner)
        require(task.status == REVEALING)
        require(self.now < self._until(task, FINAL))
        late = task.reveals > 0 and task.reveal_deadline <= self.now
        require(task.reveals == task.winners or late)
        self._move(task, COMPLETED)
        deal = self.deal_of(task)
        self._pay_resources(deal)
        faulty = [item for item in task.contributions.values() if item.status != PROVED]
        purse = deal.workerpool_price + deal.worker_stake * len(faulty)
        share = purse * (100 - deal.scheduler_percent) // 100
        weights = sum(item.log_weight for item in task.contributions.values() if item.status == PROVED)
        for worker, item in task.contributions.items():
            if item.status == PROVED:
                reward = share * item.log_weight // weights
                self._unlock(worker, deal.worker_stake)
                self._reward(worker, reward)
                purse -= reward
                if len(task.contributions) > 1:
                    self.scores[worker] += 1
            else:
                self._seize(worker, deal.worker_stake)
                self.scores[worker] = self.scores[worker] * 2 // 3
        self._reward(deal.workerpool_owner, purse)

    def contribute_and_finalize(
        self, name: str, worker: str, enclave: str, enclave_ok: bool, authorizer: str, result: str, sealed: str
    ) -> None:
        task = self._open(name)
        deal = self.deal_of(task)
        require(task.status == ACTIVE)
        require(not task.contributions)
        require(deal.trust == 1)
        self._admit(task, enclave, enclave_ok, authorizer)
        task.contributions[worker] = Contribution(result, sealed, enclave, 0, PROVED)
        task.consensus, task.reveals, task.winners = result, 1, 1
        task.reveal_deadline = self.now + REVEAL * self.clocks[deal.category]
        self._move(task, COMPLETED)
        self._pay_resources(deal)
        reward = deal.workerpool_price * (100 - deal.scheduler_percent) // 100
        self._reward(worker, reward)
        self._reward(deal.workerpool_owner, deal.workerpool_price - reward)

    def claim(self, name: str) -> None:
        task = self._open(name)
        require(task.status in (ACTIVE, REVEALING))
        require(self.now >= self._until(task, FINAL))
        self._move(task, FAILED)
        deal = self.deal_of(task)
        self._unlock(deal.sponsor, deal.task_price)
        self._seize(deal.workerpool_owner, deal.pool_stake)
        self.accounts[KITTY].locked += deal.pool_stake
        for worker in task.contributions:
            self._unlock(worker, deal.worker_stake)

    def _pay_resources(self, deal: Deal) -> None:
        self._seize(deal.sponsor, deal.task_price)
        self._reward(deal.app_owner, deal.app_price)
        if deal.dataset != ZERO:
            self._reward(deal.dataset_owner, deal.dataset_price)
        self._unlock(deal.workerpool_owner, deal.pool_stake)
        kitty = self.accounts[KITTY].locked
        if kitty > 0:
            bonus = min(max(kitty * KITTY_PERCENT // 100, KITTY_MINIMUM), kitty)
            self._seize(KITTY, bonus)
            self._reward(deal.workerpool_owner, bonus)
