"""Does the data owner's grant stand at this moment? (steps 9 and 10 of a session; abuse cases 28 to 34)"""

from __future__ import annotations

from dataclasses import dataclass

from cloister.errors import CloisterError, LocalError, NotFound, PolicyRejected, VerificationError
from cloister.protocol.codec import Address, Bytes32, parse_json
from cloister.protocol.deals import Deal
from cloister.protocol.eip712 import hub_domain
from cloister.protocol.orders import DatasetOrder
from cloister.protocol.policies import (
    PolicyFacts,
    check_policy,
    parse_policy,
    salt_names_policy,
    verify_policy_salt,
)
from cloister.services.sms.ledger import DatasetEntry, Ledger
from cloister.services.sms.store import SessionStore


@dataclass(frozen=True, slots=True)
class GrantFacts:
    """What the checks of one grant rest on; ``now`` is Unix time in seconds, ``block`` the one block of the session."""

    deal: Deal
    dataset: DatasetEntry
    matched_hash: Bytes32
    chain_id: int
    hub: Address
    block: int
    now: int
    purpose: str | None
    app_purposes: tuple[str, ...]
    enclave: str


@dataclass(frozen=True, slots=True)
class StandingGrant:
    """Proof that a grant stands: built only by this module."""

    order_hash: Bytes32
    policy_hash: Bytes32 | None
    max_result_bytes: int | None


def verify_grant(order: DatasetOrder | None, facts: GrantFacts, ledger: Ledger) -> DatasetOrder:
    """Return the dataset order that was matched, once it is proven to stand now.

    Raises: VerificationError (``order-missing``, ``order-mismatch``, ``order-signature``), PolicyRejected
    (``order-closed``, ``restriction``).
    """
    deal = facts.deal
    if order is None:
        raise VerificationError("the dataset order is missing", code="order-missing")
    order_hash = order.hash(hub_domain(facts.chain_id, facts.hub))
    if order_hash != facts.matched_hash or order.dataset != deal.dataset.pointer:
        raise VerificationError("the dataset order is not the one that was matched", code="order-mismatch")
    signed, closed = ledger.grant_standing(order, order_hash, facts.dataset.owner, block=facts.block)
    if not signed:
        text = "the dataset order is not signed by the dataset's current owner"
        raise VerificationError(text, code="order-signature")
    if closed:
        raise PolicyRejected("the grant was revoked", code="order-closed")
    for restriction, subject in (
        (order.apprestrict, deal.app.pointer),
        (order.workerpoolrestrict, deal.workerpool.pointer),
        (order.requesterrestrict, deal.requester),
    ):
        # Matching checked this too, but a member may have left its group since.
        if not (
            restriction.is_zero or restriction == subject or ledger.in_group(restriction, subject, block=facts.block)
        ):
            raise PolicyRejected("the grant is for others than this deal's parties", code="restriction")
    return order


def load_policy(order: DatasetOrder, facts: GrantFacts, store: SessionStore) -> StandingGrant:
    """Check the access policy that the order's salt names, if it names one.

    Raises: NotFound (``policy-missing``), PolicyRejected with the rule's own code.
    """
    order_hash = facts.matched_hash
    if not salt_names_policy(order.salt):
        return StandingGrant(order_hash, None, None)
    found = store.policy_by_prefix(order.salt.raw[4:])
    if found is None:
        raise NotFound("the grant names an access policy that nobody has stored", code="policy-missing")
    digest, body = found
    try:
        policy = verify_policy_salt(parse_policy(parse_json(body)), order.salt)
    except CloisterError as error:
        raise LocalError("a stored policy does not parse") from error
    policy_facts = PolicyFacts(
        now=facts.now, enclave=facts.enclave, purpose=facts.purpose, app_purposes=facts.app_purposes
    )
    cleared = check_policy(policy, policy_facts)
    return StandingGrant(order_hash, digest, cleared.max_result_bytes)
