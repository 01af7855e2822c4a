#pragma version 0.4.3
"""
@title Groups
@license Apache-2.0
@notice Whom an order is open to: anyone, one address, or the members of an ERC-734 group.
"""

MEMBER_PURPOSE: constant(uint256) = 4


@internal
@view
def _admits(restriction: address, account: address) -> bool:
    """
    @dev Whether `restriction` lets `account` in. A group that reverts, answers nonsense or has no code lets nobody in.
    """
    if restriction == empty(address) or restriction == account:
        return True
    success: bool = False
    response: Bytes[32] = b""
    success, response = raw_call(
        restriction,
        abi_encode(convert(account, bytes32), MEMBER_PURPOSE, method_id=method_id("keyHasPurpose(bytes32,uint256)")),
        max_outsize=32,
        is_static_call=True,
        revert_on_failure=False,
    )
    return success and len(response) == 32 and convert(response, uint256) == 1
