"""Which items of a bulk slice are released: every order by itself, all at one block (steps 9 to 11 for bulk).

A refused item is told with its cause and stops no other. A dataset that a slice names twice is released once: the first
order that names it counts, every later one is refused (``bulk-duplicate``), whatever became of the first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cloister.errors import Denied, NotFound, PolicyRejected, VerificationError
from cloister.protocol.codec import ZERO_ADDRESS, Address, Bytes32, canonical_json
from cloister.protocol.deals import Deal
from cloister.protocol.eip712 import Domain
from cloister.protocol.orders import DatasetOrder
from cloister.protocol.policies import PolicyFacts
from cloister.protocol.releases import REASON_CAP, BulkItem, RefusedDataset, ReleasedDataset
from cloister.services.sms.bulk import SliceElement
from cloister.services.sms.grants import check_offer, load_policy, verify_offer
from cloister.services.sms.ledger import Ledger, Offer, OfferStanding
from cloister.services.sms.policies import SessionHardware
from cloister.services.sms.store import SecretStore, SessionStore

ITEM_CAP: Final = 2 * 1024
"""Largest item in bytes of JSON. A key and a location take some 600; a hundred items of this size still leave room in a
release for everything else, so that no owner's data can crowd out another's."""


@dataclass(frozen=True, slots=True)
class JudgedItem:
    """One item of a slice and what the record says of it. ``max_result_bytes`` and ``logs`` are the grant's own words."""

    item: BulkItem
    order_hash: Bytes32 | None = None
    policy_hash: Bytes32 | None = None
    max_result_bytes: int | None = None
    logs: bool = False

    @property
    def dataset(self) -> Address | None:
        """The dataset; None when the slice named none."""
        return None if self.item.address == ZERO_ADDRESS else self.item.address

    @property
    def refused(self) -> str | None:
        """Code of the check that failed, None for a released item."""
        return self.item.cause if isinstance(self.item, RefusedDataset) else None


class SliceJudge:
    """Judges slices for deals whose session has passed its own checks. Safe to call from several threads."""

    def __init__(self, *, domain: Domain, ledger: Ledger, policies: SessionStore, secrets: SecretStore) -> None:
        self._domain = domain
        self._ledger = ledger
        self._policies = policies
        self._secrets = secrets

    def judge(
        self,
        elements: Sequence[SliceElement],
        deal_id: Bytes32,
        deal: Deal,
        facts: PolicyFacts,
        *,
        hardware: SessionHardware,
        block: int,
    ) -> tuple[JudgedItem, ...]:
        """Return every item of the slice in its order, released or refused.

        Raises: UnavailableError, RemoteError when chain or database do not answer.
        """
        judged: list[JudgedItem | None] = []
        offers: list[Offer] = []
        seen: set[Address] = set()
        for element in elements:
            outcome = self._admit(element, seen)
            if isinstance(outcome, Offer):
                offers.append(outcome)
                judged.append(None)
            else:
                judged.append(outcome)
        standings = iter(zip(offers, self._ledger.offer_standings(offers, deal_id, deal, block=block), strict=True))
        return tuple(
            item if item is not None else self._release(*next(standings), deal=deal, facts=facts, hardware=hardware)
            for item in judged
        )

    def _admit(self, element: SliceElement, seen: set[Address]) -> Offer | JudgedItem:
        """What a slice tells by itself, before the chain is asked."""
        if not isinstance(element, DatasetOrder):
            return JudgedItem(RefusedDataset(element.dataset, "order-malformed", element.message[:REASON_CAP]))
        order_hash = element.hash(self._domain)
        if element.dataset in seen:
            text = "the slice names this dataset before"
            return JudgedItem(RefusedDataset(element.dataset, "bulk-duplicate", text), order_hash)
        seen.add(element.dataset)
        try:
            return Offer(check_offer(element), order_hash)
        except PolicyRejected as error:
            return JudgedItem(_refusal(element.dataset, error), order_hash)

    def _release(
        self, offer: Offer, standing: OfferStanding, *, deal: Deal, facts: PolicyFacts, hardware: SessionHardware
    ) -> JudgedItem:
        order, policy_hash = offer.order, None
        try:
            entry = verify_offer(order, standing, deal)
            grant = load_policy(order, offer.order_hash, facts, self._policies, owner=entry.owner, hardware=hardware)
            policy_hash = grant.policy_hash
            item = ReleasedDataset(
                address=order.dataset,
                multiaddr=entry.location,
                checksum=entry.checksum,
                key=self._secrets.dataset_key(order.dataset),
                order_hash=offer.order_hash,
                policy_hash=policy_hash,
            )
            _check_size(item)
        except (VerificationError, PolicyRejected, NotFound, Denied) as error:
            return JudgedItem(_refusal(order.dataset, error), offer.order_hash, policy_hash)
        return JudgedItem(item, offer.order_hash, policy_hash, grant.max_result_bytes, grant.logs)


def _check_size(item: ReleasedDataset) -> None:
    size = len(canonical_json(item.to_json()))
    if size > ITEM_CAP:
        text = f"the dataset's key and location take {size} bytes, the cap in a bulk slice is {ITEM_CAP}"
        raise PolicyRejected(text, code="bulk-item-too-large")


def _refusal(dataset: Address, error: VerificationError | PolicyRejected | NotFound | Denied) -> RefusedDataset:
    return RefusedDataset(dataset, error.code[:REASON_CAP], error.message[:REASON_CAP])
