"""Hypothesis strategies of the values on the wire."""

from __future__ import annotations

from hypothesis import strategies as st

from cloister.protocol.codec import UINT256_MAX, Address, Bytes32
from cloister.protocol.orders import ORDER_TYPES, Order, OrderKind
from cloister.protocol.tags import Tag

addresses = st.binary(min_size=20, max_size=20).map(Address.from_raw)
words = st.binary(min_size=32, max_size=32).map(Bytes32.from_raw)
uints = st.integers(min_value=0, max_value=UINT256_MAX) | st.integers(min_value=0, max_value=2**53)
tags = st.integers(min_value=0, max_value=UINT256_MAX).map(Tag.from_bits)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)

_BY_TYPE = {
    "Address": addresses,
    "Bytes32": words,
    "Tag": tags,
    "int": uints,
    "str": texts,
    "bytes": st.binary(max_size=70),
}


@st.composite
def orders(draw: st.DrawFn, kind: OrderKind) -> Order:
    """Any order of a kind."""
    order_type = ORDER_TYPES[kind]
    fields = {
        name: draw(_BY_TYPE[str(field.type)])
        for name, field in order_type.__dataclass_fields__.items()
        if str(field.type) in _BY_TYPE
    }
    return order_type(**fields)


any_order = st.sampled_from(list(OrderKind)).flatmap(orders)
