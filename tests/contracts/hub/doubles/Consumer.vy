#pragma version 0.4.3
#pragma evm-version cancun
"""
@title Consumer
@license Apache-2.0
@notice A requester's contract in all its moods.
"""

# 0 keep the result, 1 revert, 2 burn all gas, 3 call the hub with `payload` and keep whether that worked
mood: public(uint256)
hub: public(address)
payload: Bytes[8192]
received: public(HashMap[bytes32, Bytes[4096]])
calls: public(uint256)
reentered: public(bool)


@external
def set_mood(mood: uint256, hub: address, payload: Bytes[8192]):
    """
    @notice What to do when a result comes.
    """
    self.mood = mood
    self.hub = hub
    self.payload = payload


@external
def receiveResult(_id: bytes32, _data: Bytes[4096]):
    """
    @notice EIP-1154.
    """
    if self.mood == 1:
        raise "no"
    if self.mood == 2:
        for i: uint256 in range(1000000):
            self.calls += 1
    if self.mood == 3:
        self.reentered = raw_call(self.hub, self.payload, revert_on_failure=False)
    self.received[_id] = _data
    self.calls += 1
