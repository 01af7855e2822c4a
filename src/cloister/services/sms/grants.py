"""Does the data owner's grant stand at this moment? (steps 9 and 10 of a session; abuse cases 28 to 34)"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cloister.errors import CloisterError, LocalError, NotFound, PolicyRejected, VerificationError, quoted
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
from cloister.protocol.tags import FRAMEWORKS
from cloister.protocol.units import INFINITE_VOLUME
from cloister.services.sms.ledger import DatasetEntry, Ledger, OfferStanding
from cloister.services.sms.policies import SessionHardware
from cloister.services.sms.store import SessionStore

BULK_VOLUME: Final = INFINITE_VOLUME - 1
"""Least volume of an order in a bulk slice, as iExec has it: bulk does not count uses, so only boundless grants serve."""

_UNSIGNED = "the dataset order is not signed by the dataset's current owner"
_REVOKED = "the grant was revoked"
_NOT_ADMITTED = "the grant is for others than this deal's parties"


@dataclass(frozen=True, slots=True)
class GrantFacts:
    """What the checks of one matched grant rest on; ``block`` is the one block of the session."""

    deal: Deal
    dataset: DatasetEntry
    matched_hash: Bytes32
    chain_id: int
    hub: Address
    block: int


@dataclass(frozen=True, slots=True)
class StandingGrant:
    """Proof that a grant stands: built only by this module."""

    order_hash: Bytes32
    policy_hash: Bytes32 | None
    max_result_bytes: int | None
    logs: bool = False


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
        raise VerificationError(_UNSIGNED, code="order-signature")
    if closed:
        raise PolicyRejected(_REVOKED, code="order-closed")
    for restriction, subject in (
        (order.apprestrict, deal.app.pointer),
        (order.workerpoolrestrict, deal.workerpool.pointer),
        (order.requesterrestrict, deal.requester),
    ):
        # Matching checked this too, but a member may have left its group since.
        if not (
            restriction.is_zero or restriction == subject or ledger.in_group(restriction, subject, block=facts.block)
        ):
            raise PolicyRejected(_NOT_ADMITTED, code="restriction")
    return order


def check_offer(order: DatasetOrder) -> DatasetOrder:
    """Return an order of a bulk slice that offers its data as bulk demands: free, and without a count.

    No money is locked for the data of a bulk request and no use of it is counted, so an order that asks for either
    would not get it.
    Raises: PolicyRejected (``bulk-price``, ``bulk-volume``).
    """
    if order.datasetprice != 0:
        text = f"an order in a bulk slice is free, this one asks {quoted(str(order.datasetprice))} nRLC"
        raise PolicyRejected(text, code="bulk-price")
    if order.volume < BULK_VOLUME:
        text = f"an order in a bulk slice has a volume of {BULK_VOLUME} at least, this one has {order.volume}"
        raise PolicyRejected(text, code="bulk-volume")
    return order


def verify_offer(order: DatasetOrder, standing: OfferStanding, deal: Deal) -> DatasetEntry:
    """Return the dataset of an order in a bulk slice, once the order is proven to stand now and to serve this deal.

    Our own checks come first, so that a refusal names what an owner would name; the hub has the last word.
    Raises: VerificationError (``order-signature``), PolicyRejected (``dataset-unknown``, ``order-closed``,
    ``restriction``, ``tag-refused``, ``location-unreadable``, ``hub-refused``).
    """
    if standing.entry is None:
        raise PolicyRejected("the dataset is not registered", code="dataset-unknown")
    if not standing.signed:
        raise VerificationError(_UNSIGNED, code="order-signature")
    if standing.closed:
        raise PolicyRejected(_REVOKED, code="order-closed")
    if not standing.admitted:
        raise PolicyRejected(_NOT_ADMITTED, code="restriction")
    if not deal.tag.has(order.tag.without(FRAMEWORKS)):
        raise PolicyRejected("the order's tag asks for more than the deal offers", code="tag-refused")
    if not standing.entry.location:
        raise PolicyRejected("the dataset's location on chain is no text", code="location-unreadable")
    if standing.objection is not None:
        raise PolicyRejected(f"the hub refuses the order: {quoted(standing.objection)}", code="hub-refused")
    return standing.entry


def load_policy(
    order: DatasetOrder,
    order_hash: Bytes32,
    facts: PolicyFacts,
    store: SessionStore,
    *,
    owner: Address,
    hardware: SessionHardware,
) -> StandingGrant:
    """Check the access policy that the order's salt names, if it names one, and what the data's ``owner`` demands of every
    enclave.

    Raises: NotFound (``policy-missing``), PolicyRejected with the rule's own code.
    """
    hardware.check_standing(order.dataset, owner)
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
    cleared = check_policy(policy, facts)
    hardware.check_grant(cleared.hardware)
    return StandingGrant(order_hash, digest, cleared.max_result_bytes, cleared.logs)
