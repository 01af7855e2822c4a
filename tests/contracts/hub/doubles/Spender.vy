#pragma version 0.4.3
"""
@title Spender
@license Apache-2.0
@notice Takes what `approveAndCall` offers, or refuses it.
"""

willing: public(bool)
sender: public(address)
amount: public(uint256)
token: public(address)
data: public(Bytes[1024])


@external
def set_willing(willing: bool):
    """
    @notice Whether to accept.
    """
    self.willing = willing


@external
def receiveApproval(_sender: address, _amount: uint256, _token: address, _data: Bytes[1024]) -> bool:
    """
    @notice Called after the approval.
    """
    self.sender = _sender
    self.amount = _amount
    self.token = _token
    self.data = _data
    return self.willing
