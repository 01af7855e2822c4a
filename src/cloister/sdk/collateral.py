"""Reference values that nobody needs to be believed for: signed by the SMS that the hub on the chain names."""

from __future__ import annotations

from cloister.attestation.reference import SignedReference, verify_reference
from cloister.clients.collateral import CollateralClient
from cloister.protocol.codec import Address


def load_signed_reference(origin: str, *, chain_id: int, hub: Address, sms: Address) -> SignedReference:
    """Fetch a network's reference values and prove that the SMS ``sms`` signed them for this hub on this chain.

    ``sms`` is the hub's ``teebroker`` as the caller read it on the chain. ``SignedReference.values`` is what
    ``receipts.parse_reference_values`` takes.

    Raises:
        UnavailableError, NotFound, DecodeError, TooLarge: there are none. VerificationError: signed by another, or for another.
    """
    encoded = CollateralClient(origin).reference_values()
    return verify_reference(encoded, chain_id=chain_id, hub=hub.raw, sms=sms.raw)
