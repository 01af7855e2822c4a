"""Finds the dataset order in the transaction that matched it.

The chain keeps only the order's hash, and the SMS wants the order itself. It stands in the call data of the match, be that
a direct call, an ``approveAndCall`` of the token or the call of a smart account that wraps either. The hash is checked, so
it does not matter how the bytes got there.
"""

from __future__ import annotations

from cloister.chain.abi import decode_values, function
from cloister.errors import CloisterError
from cloister.protocol.codec import Address, Bytes32
from cloister.protocol.eip712 import Domain
from cloister.protocol.orders import DatasetOrder
from cloister.protocol.tags import Tag

_RESTRICTED = "address,address,address,bytes32,bytes"
_ORDERS = (
    f"(address,uint256,uint256,bytes32,{_RESTRICTED})",
    f"(address,uint256,uint256,bytes32,{_RESTRICTED})",
    f"(address,uint256,uint256,bytes32,uint256,uint256,{_RESTRICTED})",
    "(address,uint256,address,uint256,address,uint256,address,uint256,bytes32,uint256,uint256,address,address,string,bytes32,bytes)",
)
_MATCHES = tuple(function(f"{name}({','.join(_ORDERS)})") for name in ("matchOrders", "sponsorMatchOrders"))

_TRIES = 16
"""How many places that look like a match are decoded: a hostile caller could fill the call data with selectors."""

CALLDATA_CAP = 128 * 1024


def find_dataset_order(calldata: bytes, order_hash: Bytes32, domain: Domain) -> DatasetOrder | None:
    """The dataset order with that hash in the call data of a transaction, ``None`` when it is not there."""
    if len(calldata) > CALLDATA_CAP:
        return None
    tries = 0
    for match in _MATCHES:
        position = calldata.find(match.selector)
        while position >= 0 and tries < _TRIES:
            tries += 1
            order = _dataset_order(calldata[position + 4 :])
            if order is not None and order.hash(domain) == order_hash:
                return order
            position = calldata.find(match.selector, position + 1)
    return None


def _dataset_order(arguments: bytes) -> DatasetOrder | None:
    try:
        _, given, _, _ = decode_values(_ORDERS, arguments)
        dataset, price, volume, tag, app, workerpool, requester, salt, sign = given
        return DatasetOrder(
            dataset=Address(dataset),
            datasetprice=price,
            volume=volume,
            tag=Tag.from_raw(tag),
            apprestrict=Address(app),
            workerpoolrestrict=Address(workerpool),
            requesterrestrict=Address(requester),
            salt=Bytes32.from_raw(salt),
            sign=bytes(sign),
        )
    except CloisterError:
        return None  # bytes that only looked like a match
