"""Owners' hardware rules at the SMS: how they are set, and how a session's evidence is judged by them.

The SMS's own policy has accepted the evidence before any of this is asked, so an owner can only narrow it. Two sets of
rules may bind one release and both must hold: the grant's own (its salt names them) and the standing ones of the data.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from cloister.attestation.policy import CLOCK_SKEW
from cloister.attestation.rules import Distinct, Rules, parse_rules
from cloister.attestation.verify import Appraisal
from cloister.errors import (
    CloisterError,
    InputError,
    LocalError,
    NotFound,
    PolicyRejected,
    VerificationError,
)
from cloister.protocol.codec import ZERO_BYTES32, Address, Bytes32, parse_json, to_hex
from cloister.protocol.data_policies import (
    PUT_CAP,
    DataPolicy,
    DataPolicyBody,
    SignedDataPolicy,
    parse_data_policy_body,
    verify_data_policy,
)
from cloister.protocol.eip712 import hub_domain
from cloister.services.sms.heads import RecentHeads
from cloister.services.sms.ledger import Ledger
from cloister.services.sms.settings import SmsSettings
from cloister.services.sms.standing import StandingStore, StoredPolicy

_REPEATED: Final = {
    Distinct.PLATFORM: ("platform-repeated", "another worker of this task runs on the same platform"),
    Distinct.VENDOR: ("vendor-repeated", "another worker of this task runs on hardware of the same vendor"),
}


@lru_cache(maxsize=512)
def load_rules(text: str) -> Rules:
    """Read rules that must be in their canonical spelling: it is what was hashed and signed.

    Raises: DecodeError, TooLarge for what are no rules; InputError for another spelling.
    """
    rules = parse_rules(parse_json(text))
    if rules.canonical != text:
        raise InputError("the hardware rules are not in their canonical form", code="rules-not-canonical")
    return rules


@dataclass(slots=True)
class SessionHardware:
    """The evidence of one session before owners' rules. Of one session and thread; ``demanded`` grows with its grants."""

    store: StandingStore
    appraisal: Appraisal
    task_id: Bytes32
    worker: Address
    replicated: bool
    demanded: set[Distinct] = field(default_factory=set)
    _first: dict[Distinct, Address] | None = None

    def check_grant(self, rules: str | None) -> None:
        """Judge by the rules of a grant (canonical JSON), if it has any.

        Raises: PolicyRejected with the rule's own code.
        """
        if rules is not None:
            self._check(rules, "the grant's hardware rules")

    def check_standing(self, dataset: Address, owner: Address) -> None:
        """Judge by what the dataset's present ``owner`` demands of every enclave, if anything.

        Raises: PolicyRejected with the rule's own code.
        """
        found = self.store.read(dataset, owner)
        if found is not None and found.rules is not None:
            self._check(found.rules, "the data's standing policy")

    def claim(self, *, now: int) -> None:
        """Take the platform for this worker, before the release leaves; a task that is not replicated takes none.

        Raises: PolicyRejected (``platform-repeated``, ``vendor-repeated``) when another worker took it since the check.
        """
        if self.replicated:
            self._first = self.store.claim(self.task_id, self._values(), self.worker, now=now)
            for scope in sorted(self.demanded):
                self._check_distinct(scope, "a grant of this release")

    def _check(self, text: str, whose: str) -> None:
        try:
            rules = load_rules(text)
        except CloisterError as error:
            raise LocalError("stored hardware rules do not parse") from error
        claims = self.appraisal.claims
        # The SMS's own policy has accepted this root; the owner's rules have no word for one.
        verdict = rules.policy({claims.kind: frozenset({claims.root})}).judge(claims, self.appraisal.appraised_at)
        if verdict.code is not None:
            raise PolicyRejected(f"{whose}: {verdict.message}", code=verdict.code, hint=verdict.remedy)
        if rules.distinct is not None and self.replicated:
            self._check_distinct(rules.distinct, whose)
            self.demanded.add(rules.distinct)

    def _check_distinct(self, scope: Distinct, whose: str) -> None:
        if self._first is None:
            self._first = self.store.holders(self.task_id, self._values())
        if self._first.get(scope, self.worker) != self.worker:
            code, text = _REPEATED[scope]
            raise PolicyRejected(f"{whose}: {text}", code=code)

    def _values(self) -> dict[Distinct, str]:
        claims = self.appraisal.claims
        return {Distinct.PLATFORM: claims.platform.hex()[:64], Distinct.VENDOR: claims.vendor}


class DataPolicyService:
    """Sets and shows standing policies. Safe to call from several threads."""

    def __init__(
        self,
        *,
        settings: SmsSettings,
        store: StandingStore,
        ledger: Ledger,
        heads: RecentHeads,
        clock: Callable[[], float],
    ) -> None:
        self._domain = hub_domain(settings.chain_id, settings.hub)
        self._store = store
        self._ledger = ledger
        self._heads = heads
        self._clock = clock

    def put(self, dataset: Address, body: bytes) -> None:
        """Store a policy that the dataset's present owner signed; on disk when this returns.

        Raises: DecodeError, TooLarge (malformed), VerificationError (``wrong-signer``, ``issued-in-the-future``), NotFound
        (no such dataset), Conflict (``policy-rollback``), UnavailableError (no recent chain).
        """
        given = parse_data_policy_body(parse_json(body, cap=PUT_CAP))
        rules = None if given.rules is None else parse_rules(given.rules)
        digest = ZERO_BYTES32 if rules is None else Bytes32.from_raw(rules.digest)
        statement = DataPolicy(dataset, digest, given.version, given.issued_at)
        now = int(self._clock())
        if statement.issued_at > now + CLOCK_SKEW:
            text = f"the policy is dated {statement.issued_at - now} seconds ahead"
            raise VerificationError(text, code="issued-in-the-future", hint="set the clock")
        owner = self._verify(statement, given)
        canonical = None if rules is None else rules.canonical
        self._store.put(StoredPolicy(statement, owner, canonical, given.signature), now=now)

    def show(self, dataset: Address) -> dict[str, object]:
        """Return the policy of the dataset's present owner.

        Raises: NotFound when there is none, UnavailableError without a recent chain.
        """
        owner = self._owner(dataset, self._heads.read().number)
        found = self._store.read(dataset, owner)
        if found is None:
            raise NotFound("the data's owner has set no standing policy", code="no-standing-policy")
        statement = found.statement
        return {
            "dataset": str(dataset),
            "owner": str(owner),
            "hash": str(statement.policy),
            "policy": None if found.rules is None else parse_json(found.rules),
            "version": statement.version,
            "issued_at": statement.issued_at,
            "signature": to_hex(found.signature),
        }

    def _verify(self, statement: DataPolicy, given: DataPolicyBody) -> Address:
        """Return the present owner, who is proven to have signed the statement."""
        block = self._heads.read().number
        owner = self._owner(statement.dataset, block)
        signed = SignedDataPolicy(statement, given.rules, given.signature)
        try:
            verify_data_policy(signed, owner, self._domain)
        except VerificationError as error:
            # An owner that is a contract says itself what it signed (ERC-1271).
            digest = statement.digest(self._domain)
            if not self._ledger.signed_by(owner, digest, given.signature, block=block):
                text = "the policy is not signed by the data's present owner"
                raise VerificationError(text, code="wrong-signer") from error
        return owner

    def _owner(self, dataset: Address, block: int) -> Address:
        owner = self._ledger.owner_of(dataset, block=block)
        if owner is None:
            raise NotFound(f"no protected data at {dataset}", code="dataset-unknown")
        return owner
