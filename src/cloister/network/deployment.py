"""Put the whole suite of contracts on a chain, and prove that what is on a chain is ours.

A deployment is a fixed list of transactions of one key, one for each nonce from ``first_nonce`` on, so every address is
known before anything is sent. That makes it pipelined (all transactions may share a block), deterministic (the same key
and settings give the same addresses) and safe to run again after a crash at any point: what the chain has counted is
done, what it has not is sent. Whether it came out right is not taken from receipts but read back by ``verify_deployment``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from cloister.chain.artifacts import Artifact, load_artifact
from cloister.chain.calls import Call
from cloister.chain.rpc import Block, JsonRpc, Read, RpcError, check_chain
from cloister.chain.sender import TransactionSender
from cloister.errors import Conflict, LocalError, VerificationError
from cloister.protocol.codec import ZERO_ADDRESS, Address, keccak256
from cloister.protocol.deals import Category

CATEGORIES: Final = (
    Category("XS", "5 minutes of work", 300),
    Category("S", "20 minutes of work", 1_200),
    Category("M", "1 hour of work", 3_600),
    Category("L", "3 hours of work", 10_800),
    Category("XL", "10 hours of work", 36_000),
)
"""Categories 0 to 4, with the times they have on the public networks."""

HUB_PARTS: Final = ("HubViews", "HubTasks", "HubAccounts", "HubOrders", "Hub")
"""The hub's parts in the order of their creation: each is given the address of the one before it."""

ENTRIES: Final = {"App": "app_registry", "Dataset": "dataset_registry", "Workerpool": "workerpool_registry"}
"""What is registered, and the name that constructors have for its registry."""

_TITLES: Final = {
    "App": ("iExec Application Registry (V5)", "iExecAppsV5"),
    "Dataset": ("iExec Dataset Registry (V5)", "iExecDatasetsV5"),
    "Workerpool": ("iExec Workerpool Registry (V5)", "iExecWorkerpoolV5"),
}
_CREATION_GAS: Final = 3_000_000
"""Room for a constructor, and for what a rollup adds to pay its parent chain. What is left over is not charged.

Gas is not estimated: a step that builds on one still pending would be estimated against a chain without it.
"""
_CALL_GAS: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Deployment:
    """Where the contracts are. ``block``: the first block that may hold an event of theirs."""

    chain_id: int
    hub: Address
    rlc: Address
    app_registry: Address
    dataset_registry: Address
    workerpool_registry: Address
    dataprotector: Address
    block: int


@dataclass(frozen=True, slots=True)
class Settings:
    """What a deployment may choose.

    Attributes:
        teebroker: who vouches for enclaves, zero for nobody.
        token: an existing RLC token; ``None`` deploys one of our own, whose whole supply goes to the deployer.
        previous: older registries by the name of ours, for instance ``{"DatasetRegistry": …}``.
    """

    teebroker: Address = ZERO_ADDRESS
    token: Address | None = None
    previous: Mapping[str, Address] = field(default_factory=dict)
    categories: Sequence[Category] = CATEGORIES


@dataclass(frozen=True, slots=True)
class Step:
    """One transaction. ``creates``: the address that it puts code at, when it does."""

    name: str
    nonce: int
    call: Call
    creates: Address | None


@dataclass(frozen=True, slots=True)
class Plan:
    """All transactions of a deployment in order, and the addresses they lead to, by contract name."""

    steps: tuple[Step, ...]
    addresses: Mapping[str, Address]


def created_address(creator: Address, nonce: int) -> Address:
    """Address of the contract that an account creates with its transaction of this nonce (RLP of both, hashed)."""
    number = nonce.to_bytes((nonce.bit_length() + 7) // 8, "big")
    item = number if len(number) == 1 and number[0] < 0x80 else bytes([0x80 + len(number)]) + number
    body = b"\x94" + creator.raw + item
    return Address.from_raw(keccak256(bytes([0xC0 + len(body)]) + body)[12:])


def build_blueprint(initcode: bytes) -> bytes:
    """Init code that stores ``initcode`` itself as code, behind ERC-5202's preamble (version 0, no data)."""
    stored = b"\xfe\x71\x00" + initcode
    return b"\x61" + len(stored).to_bytes(2, "big") + b"\x3d\x81\x60\x0a\x3d\x39\xf3" + stored


class _Planner:
    """Lines up transactions and keeps the addresses that later constructors ask for by the name of their argument."""

    def __init__(self, deployer: Address, first_nonce: int) -> None:
        self._deployer = deployer
        self._first_nonce = first_nonce
        self.steps: list[Step] = []
        self.addresses: dict[str, Address] = {}
        self.known: dict[str, Address] = {}

    def create(self, name: str, *, blueprint: bool = False) -> Address:
        artifact = load_artifact(name)
        if blueprint:
            data, code_size = build_blueprint(artifact.bytecode), 3 + len(artifact.bytecode)
        else:
            data, code_size = artifact.bytecode + self._constructor_arguments(artifact), artifact.deployed_size
        nonce = self._first_nonce + len(self.steps)
        address = created_address(self._deployer, nonce)
        # EIP-170, EIP-3860: each byte of code costs 200 to keep, each of the transaction at most 40.
        gas = _CREATION_GAS + 200 * code_size + 40 * len(data)
        self.steps.append(Step(name, nonce, Call(to=None, data=data, gas=gas), address))
        self.addresses[name] = address
        return address

    def call(self, name: str, contract: str, types: str, *arguments: Any) -> None:
        from eth_abi.abi import encode

        signature = f"{name}({types})"
        data = keccak256(signature.encode())[:4] + encode(types.split(","), arguments)
        nonce = self._first_nonce + len(self.steps)
        call = Call(to=self.addresses[contract], data=data, gas=_CALL_GAS)
        self.steps.append(Step(f"{contract}.{name}", nonce, call, None))

    def _constructor_arguments(self, artifact: Artifact) -> bytes:
        from eth_abi.abi import encode

        inputs: list[dict[str, str]] = next(
            (entry["inputs"] for entry in artifact.abi if entry["type"] == "constructor"), []
        )
        try:
            values = [self.known[item["name"]] for item in inputs]
        except KeyError as error:
            raise LocalError(f"{artifact.name}: nothing is known for the constructor's argument {error}") from error
        return encode([item["type"] for item in inputs], values)


def build_plan(deployer: Address, settings: Settings, *, first_nonce: int = 0) -> Plan:
    """All transactions of a deployment by ``deployer``, whose next nonce is ``first_nonce``.

    Raises:
        ConfigurationError: the package was built without the contracts.
    """
    planner = _Planner(deployer, first_nonce)
    planner.known["former_hub"] = ZERO_ADDRESS
    planner.known["token_"] = settings.token or planner.create("Rlc")
    planner.addresses["Rlc"] = planner.known["token_"]
    for entry, argument in ENTRIES.items():
        planner.known["entry_blueprint"] = planner.create(entry, blueprint=True)
        planner.known[argument] = planner.create(f"{entry}Registry")
    for part in HUB_PARTS:
        planner.known["next_part"] = planner.create(part)
    planner.create("DataProtector")
    for entry in ENTRIES:
        registry = f"{entry}Registry"
        planner.call("initialize", registry, "address", settings.previous.get(registry, ZERO_ADDRESS))
    for category in settings.categories:
        planner.call(
            "createCategory", "Hub", "string,string,uint256", category.name, category.description, category.clock
        )
    if settings.teebroker != ZERO_ADDRESS:
        planner.call("setTeeBroker", "Hub", "address", settings.teebroker)
    return Plan(tuple(planner.steps), planner.addresses)


def deploy(
    rpc: JsonRpc, sender: TransactionSender, settings: Settings | None = None, *, first_nonce: int = 0
) -> Deployment:
    """Deploy all contracts with the sender's key, or finish a deployment that was cut short; then verify it.

    Called again with the same key, settings and ``first_nonce`` it sends only what is missing, perhaps nothing. The key
    must not be used for anything else before it is done.

    Raises:
        Conflict: the key's transactions are not those of this deployment.
        VerificationError: what came out is not what was planned.
        UnavailableError: the node does not answer, or does not mine.
        TransactionReverted: a transaction was refused.
    """
    settings = settings or Settings()
    plan = build_plan(sender.address, settings, first_nonce=first_nonce)
    mined = rpc.transaction_count(sender.address, block="latest")
    if mined < first_nonce:
        raise Conflict(f"the deploying key has made {mined} transactions, the deployment begins after {first_nonce}")
    for step in plan.steps:
        if step.nonce < mined and step.creates is not None and not rpc.code(step.creates, block="latest"):
            raise Conflict(
                f"transaction {step.nonce} of the deploying key did not create {step.name}",
                hint="deploy with a fresh key, or give the number of transactions it had made as first_nonce",
            )
    tickets = [
        sender.submit(step.call, intent=f"deployment/{first_nonce}/{step.nonce}/{step.name}")
        for step in plan.steps
        if step.nonce >= mined
    ]
    for ticket in tickets:
        sender.wait(ticket)
    deployment = Deployment(
        chain_id=rpc.chain_id,
        hub=plan.addresses["Hub"],
        rlc=plan.addresses["Rlc"],
        app_registry=plan.addresses["AppRegistry"],
        dataset_registry=plan.addresses["DatasetRegistry"],
        workerpool_registry=plan.addresses["WorkerpoolRegistry"],
        dataprotector=plan.addresses["DataProtector"],
        block=_first_block(rpc, sender.address, first_nonce),
    )
    verified = verify_deployment(rpc, deployment, own_token=settings.token is None, previous=settings.previous)
    _check_settings(rpc, verified, settings)
    return deployment


def _first_block(rpc: JsonRpc, deployer: Address, first_nonce: int) -> int:
    """Block of the first transaction, found by halving; 0 where the node keeps no old states."""
    low, high = 0, rpc.block_number()
    try:
        while low < high:
            middle = (low + high) // 2
            if rpc.transaction_count(deployer, block=middle) > first_nonce:
                high = middle
            else:
                low = middle + 1
    except RpcError:
        return 0
    return low


@dataclass(frozen=True, slots=True)
class VerifiedDeployment:
    """Proof that all code of ``deployment`` was ours at ``block``. Built by ``verify_deployment``."""

    deployment: Deployment
    block: int


def verify_deployment(
    rpc: JsonRpc,
    deployment: Deployment,
    *,
    own_token: bool = True,
    previous: Mapping[str, Address] | None = None,
) -> VerifiedDeployment:
    """Prove that the contracts on chain are those this package was built with, and that they are wired to each other.

    Compares the whole code of each contract, the entries' implementations and the hub's parts included, byte by byte,
    every immutable, and the older registries that are trusted.

    Args:
        own_token: whether the token must be our Rlc; a network with a token of its own says ``False``.
        previous: older registry by the name of ours; a name that is missing must have none.

    Raises:
        VerificationError: something on chain is not ours; the message says what.
        RemoteError: the node serves another chain or does not answer as it should.
    """
    check_chain(rpc, deployment.chain_id)
    block = rpc.block_number()
    registries = {
        "App": deployment.app_registry,
        "Dataset": deployment.dataset_registry,
        "Workerpool": deployment.workerpool_registry,
    }
    expected = {
        "APP_REGISTRY": deployment.app_registry,
        "DATASET_REGISTRY": deployment.dataset_registry,
        "WORKERPOOL_REGISTRY": deployment.workerpool_registry,
        "TOKEN": deployment.rlc,
        "FORMER_HUB": ZERO_ADDRESS,
        "datasetRegistry": deployment.dataset_registry,
    }
    if own_token:
        _verify_code(rpc, "Rlc", deployment.rlc, block)
    _check_addresses("DataProtector", _verify_code(rpc, "DataProtector", deployment.dataprotector, block), expected)
    part_address = deployment.hub
    for part in reversed(HUB_PARTS):
        immutables = _verify_code(rpc, part, part_address, block)
        if "NEXT_PART" in immutables:
            part_address = _as_address(part, immutables.pop("NEXT_PART"))
        _check_addresses(part, immutables, expected)
    for entry, address in registries.items():
        _verify_registry(rpc, entry, address, (previous or {}).get(f"{entry}Registry", ZERO_ADDRESS), block)
    return VerifiedDeployment(deployment, block)


def _verify_code(rpc: JsonRpc, name: str, address: Address, block: Block) -> dict[str, bytes]:
    """Prove that the code at ``address`` is that of the contract ``name``; returns its immutables."""
    artifact = load_artifact(name)
    code = rpc.code(address, block=block)
    if not code:
        raise VerificationError(f"{name}: there is no contract at {address}", code="no-contract")
    start = len(artifact.runtime)
    if len(code) != artifact.deployed_size or code[:start] != artifact.runtime:
        raise VerificationError(
            f"{name}: the code at {address} is not ours",
            hint="another version of this package deployed it, or somebody else did",
            code="foreign-code",
        )
    return {key: code[start + at : start + at + size] for key, (at, size) in artifact.immutables.items()}


def _verify_registry(rpc: JsonRpc, entry: str, address: Address, previous: Address, block: Block) -> None:
    name = f"{entry}Registry"
    immutables = _verify_code(rpc, name, address, block)
    master = _as_address(name, immutables.pop("registry.master"))
    titles = (_as_text(immutables.pop("registry.name")), _as_text(immutables.pop("registry.symbol")))
    if titles != _TITLES[entry]:
        raise VerificationError(f"{name}: it is called {titles}", code="wrong-wiring")
    _check_addresses(name, immutables, {})
    _check_addresses(entry, _verify_code(rpc, entry, master, block), {"entry.registry": address})
    if not int.from_bytes(_ask(rpc, address, "initialized()", block)):
        raise VerificationError(f"{name} at {address} was never initialized", code="wrong-wiring")
    if _as_address(name, _ask(rpc, address, "previous()", block)) != previous:
        raise VerificationError(f"{name} at {address} trusts another older registry", code="wrong-wiring")


def _check_addresses(name: str, immutables: Mapping[str, bytes], expected: Mapping[str, Address]) -> None:
    """Every immutable must be known and right: one that nobody expects cannot be checked, which is a failure."""
    for key, value in immutables.items():
        if key not in expected:
            raise LocalError(f"{name}: nobody says what its immutable {key} must be")
        if _as_address(name, value) != expected[key]:
            raise VerificationError(
                f"{name}: its {key} is {_as_address(name, value)}, expected {expected[key]}", code="wrong-wiring"
            )


def _as_address(name: str, word: bytes) -> Address:
    if len(word) != 32 or any(word[:12]):
        raise VerificationError(f"{name}: 0x{word[:32].hex()} is no address", code="wrong-wiring")
    return Address.from_raw(word[12:])


def _as_text(words: bytes) -> str:
    """A string as the compiler lays it out: its length in one word, then its bytes."""
    return words[32 : 32 + int.from_bytes(words[:32])].decode("utf-8", "replace")


def _ask(rpc: JsonRpc, to: Address, signature: str, block: Block, argument: bytes = b"") -> bytes:
    return rpc.read(Read(to, keccak256(signature.encode())[:4] + argument, bytes), block=block)


def _check_settings(rpc: JsonRpc, verified: VerifiedDeployment, settings: Settings) -> None:
    """What was asked for beyond the code has taken effect. The hub's owner may have added to it since: that is no fault."""
    from eth_abi.abi import decode

    hub, block = verified.deployment.hub, verified.block
    broker = _as_address("Hub", _ask(rpc, hub, "teebroker()", block))
    if broker.is_zero and not settings.teebroker.is_zero:
        raise VerificationError("Hub: the teebroker was never set", code="wrong-wiring")
    if int.from_bytes(_ask(rpc, hub, "countCategory()", block)) < len(settings.categories):
        raise VerificationError("Hub: categories are missing", code="wrong-wiring")
    for number, category in enumerate(settings.categories):
        answer = _ask(rpc, hub, "viewCategory(uint256)", block, number.to_bytes(32, "big"))
        if decode(["(string,string,uint256)"], answer)[0] != (category.name, category.description, category.clock):
            raise VerificationError(f"Hub: category {number} is not as asked for", code="wrong-wiring")
