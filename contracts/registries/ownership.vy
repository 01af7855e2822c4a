#pragma version 0.4.3
"""
@title Ownership
@license Apache-2.0
@notice One account may configure the contract. Texts and events are those that clients of the field already decode.
"""

event OwnershipTransferred:
    previousOwner: indexed(address)
    newOwner: indexed(address)


owner: public(address)


@deploy
def __init__():
    self._set_owner(msg.sender)


@external
def transferOwnership(newOwner: address):
    """
    @notice Hand the configuration rights to another account.
    @param newOwner The next owner; zero is refused, see `renounceOwnership`.
    """
    self._check_owner()
    assert newOwner != empty(address), "Ownable: new owner is the zero address"
    self._set_owner(newOwner)


@external
def renounceOwnership():
    """
    @notice Leave the contract without an owner, for ever.
    """
    self._check_owner()
    self._set_owner(empty(address))


@internal
@view
def _check_owner():
    assert msg.sender == self.owner, "Ownable: caller is not the owner"


@internal
def _set_owner(newOwner: address):
    previous: address = self.owner
    self.owner = newOwner
    log OwnershipTransferred(previousOwner=previous, newOwner=newOwner)
