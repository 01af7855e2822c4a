#pragma version 0.4.3
#pragma evm-version cancun
#pragma optimize codesize
"""
@title HubAccounts
@license Apache-2.0
@notice The hub's part for money and settings: deposits, withdrawals, the ERC-20 face of staked RLC, categories, the owner's calls.
@dev Runs on the hub's storage by delegate call, see Hub.
"""

from hub import ledger
from hub import state

initializes: state
initializes: ledger[state := state]

interface Token:
    def transfer(_to: address, _value: uint256) -> bool: nonpayable
    def transferFrom(_from: address, _to: address, _value: uint256) -> bool: nonpayable
    def balanceOf(_owner: address) -> uint256: view


interface TokenSpender:
    def receiveApproval(
        _sender: address, _amount: uint256, _token: address, _data: Bytes[DATA_CAP]
    ) -> bool: nonpayable


interface FormerHub:
    def viewScore(_worker: address) -> uint256: view


event OwnershipTransferred:
    previousOwner: indexed(address)
    newOwner: indexed(address)


event CreateCategory:
    catid: uint256
    name: String[state.CATEGORY_NAME_CAP]
    description: String[state.CATEGORY_DESCRIPTION_CAP]
    workClockTimeRef: uint256


event TeeBrokerSet:
    teebroker: address


event CallbackGasSet:
    callbackgas: uint256


event ScoreImported:
    worker: indexed(address)
    score: uint256


ANSWER_CAP: constant(uint256) = 40960
# Bytes that a deposit may carry: four orders with the largest parameters.
DATA_CAP: constant(uint256) = 24576
ARRAY_CAP: constant(uint256) = 256
ADDRESS_MASK: constant(uint256) = 2**160 - 1
CATEGORY_CAP: constant(uint256) = 2**16
CLOCK_CAP: constant(uint256) = 2**40
MATCH_ORDERS: constant(bytes4) = 0x156194d4

name: public(constant(String[10])) = "Staked RLC"
symbol: public(constant(String[4])) = "SRLC"
decimals: public(constant(uint8)) = 9

TOKEN: immutable(address)
FORMER_HUB: immutable(address)
NEXT_PART: immutable(address)


@deploy
def __init__(token_: address, former_hub: address, next_part: address):
    """
    @notice Deploy this part.
    @param token_ The RLC token.
    @param former_hub A hub whose scores may be imported, or zero.
    @param next_part The deployed HubTasks.
    """
    TOKEN = token_
    FORMER_HUB = former_hub
    NEXT_PART = next_part


@external
@payable
@raw_return
def __default__() -> Bytes[ANSWER_CAP]:
    """
    @notice What is not here is a later part's.
    """
    return raw_call(NEXT_PART, msg.data, max_outsize=ANSWER_CAP, is_delegate_call=True)


# Deposits and withdrawals


@external
@view
def token() -> address:
    """
    @notice The RLC token.
    """
    return TOKEN


@external
def deposit(_amount: uint256) -> bool:
    """
    @notice Stake RLC that the caller approved.
    """
    self._take_deposit(msg.sender, msg.sender, _amount)
    return True


@external
def depositFor(_amount: uint256, _target: address) -> bool:
    """
    @notice Stake RLC that the caller approved, for somebody else.
    """
    self._take_deposit(msg.sender, _target, _amount)
    return True


@external
def depositForArray(
    _amounts: DynArray[uint256, ARRAY_CAP], _targets: DynArray[address, ARRAY_CAP]
) -> bool:
    """
    @notice Stake RLC that the caller approved, for several others, at most 256.
    """
    assert len(_amounts) == len(_targets), "invalid-array-length"
    for i: uint256 in range(len(_amounts), bound=ARRAY_CAP):
        self._take_deposit(msg.sender, _targets[i], _amounts[i])
    return True


@external
@nonreentrant
def withdraw(_amount: uint256) -> bool:
    """
    @notice Give up free stake for RLC.
    """
    self._pay_out(msg.sender, _amount)
    return True


@external
@nonreentrant
def withdrawTo(_amount: uint256, _target: address) -> bool:
    """
    @notice Give up free stake for RLC that somebody else gets.
    """
    self._pay_out(_target, _amount)
    return True


@external
@nonreentrant
def recover() -> uint256:
    """
    @notice Stake for the owner what RLC the hub holds beyond all stakes, such as tokens sent by mistake.
    @return The amount.
    """
    self._check_owner()
    surplus: uint256 = staticcall Token(TOKEN).balanceOf(self) - state.total_supply
    ledger._mint(state.owner, surplus)
    return surplus


@external
def receiveApproval(_sender: address, _amount: uint256, _token: address, _data: Bytes[DATA_CAP]) -> bool:
    """
    @notice RLC's `approveAndCall`: stake the approved amount, then make the deal of `_data` if there is any.
    @param _data Empty, or a call of matchOrders whose requester is the sender.
    """
    assert _token == TOKEN, "wrong-token"
    self._take_deposit(_sender, _sender, _amount)
    if len(_data) != 0:
        self._match(_sender, _data)
    return True


@internal
@nonreentrant
def _take_deposit(payer: address, account: address, amount: uint256):
    assert extcall Token(TOKEN).transferFrom(payer, self, amount), "failed-transferFrom"
    ledger._mint(account, amount)


@internal
def _pay_out(receiver: address, amount: uint256):
    ledger._burn(msg.sender, amount)
    assert extcall Token(TOKEN).transfer(receiver, amount), "failed-transfer"


@internal
def _match(sender: address, data: Bytes[DATA_CAP]):
    """
    @dev Run an encoded matchOrders whose requester is `sender`.
    """
    method: bytes4 = empty(bytes4)
    if len(data) >= 4:
        method = convert(slice(data, 0, 4), bytes4)
    if method != MATCH_ORDERS:
        raw_revert(abi_encode(method, method_id=method_id("UnsupportedOperation(bytes4)")))
    # The fourth argument is the request order, its seventh field the requester.
    request: uint256 = 4 + extract32(data, 100, output_type=uint256)
    if extract32(data, request + 192, output_type=uint256) != convert(sender, uint256):
        raw_revert(method_id("CallerIsNotTheRequester()"))
    success: bool = False
    answer: Bytes[ANSWER_CAP] = b""
    success, answer = raw_call(self, data, max_outsize=ANSWER_CAP, revert_on_failure=False)
    if not success:
        if len(answer) == 0:
            raw_revert(method_id("OperationFailed()"))
        raw_revert(answer)


# The ERC-20 face: free stake


@external
@view
def totalSupply() -> uint256:
    """
    @notice All stakes, free and locked.
    """
    return state.total_supply


@external
@view
def balanceOf(_account: address) -> uint256:
    """
    @notice Free stake. The hub's own is what it holds locked for all.
    """
    return ledger._stake_of(_account)


@external
@view
def frozenOf(_account: address) -> uint256:
    """
    @notice Locked stake.
    """
    return ledger._locked_of(_account)


@external
@view
def allowance(_account: address, _spender: address) -> uint256:
    """
    @notice What a spender may still move.
    """
    return state.allowances[_account][_spender]


@external
@nonreentrant
def transfer(_recipient: address, _amount: uint256) -> bool:
    """
    @notice Move free stake of the caller.
    """
    ledger._move(msg.sender, _recipient, _amount)
    return True


@external
@nonreentrant
def transferFrom(_sender: address, _recipient: address, _amount: uint256) -> bool:
    """
    @notice Move free stake of an account that approved the caller. No allowance is infinite.
    """
    ledger._move(_sender, _recipient, _amount)
    self._approve(_sender, msg.sender, state.allowances[_sender][msg.sender] - _amount)
    return True


@external
@nonreentrant
def approve(_spender: address, _value: uint256) -> bool:
    """
    @notice Let a spender move stake of the caller.
    """
    self._approve(msg.sender, _spender, _value)
    return True


@external
@nonreentrant
def increaseAllowance(_spender: address, _addedValue: uint256) -> bool:
    """
    @notice Let a spender move more.
    """
    self._approve(msg.sender, _spender, state.allowances[msg.sender][_spender] + _addedValue)
    return True


@external
@nonreentrant
def decreaseAllowance(_spender: address, _subtractedValue: uint256) -> bool:
    """
    @notice Let a spender move less.
    """
    self._approve(msg.sender, _spender, state.allowances[msg.sender][_spender] - _subtractedValue)
    return True


@external
def approveAndCall(_spender: address, _value: uint256, _extraData: Bytes[DATA_CAP]) -> bool:
    """
    @notice Approve a contract and call its receiveApproval.
    """
    self._approve(msg.sender, _spender, _value)
    assert extcall TokenSpender(_spender).receiveApproval(msg.sender, _value, self, _extraData), "approval-refused"
    return True


@internal
def _approve(account: address, spender: address, amount: uint256):
    assert account != empty(address), "ERC20: approve from the zero address"
    assert spender != empty(address), "ERC20: approve to the zero address"
    state.allowances[account][spender] = amount
    log ledger.Approval(owner=account, spender=spender, value=amount)


@external
@view
def viewAccount(_user: address) -> ledger.Account:
    """
    @notice Free and locked stake of an account.
    """
    return ledger.Account(stake=ledger._stake_of(_user), locked=ledger._locked_of(_user))


@external
@view
def viewAccountABILegacy(_user: address) -> (uint256, uint256):
    """
    @notice viewAccount, unwrapped.
    """
    return ledger._stake_of(_user), ledger._locked_of(_user)


# The owner's calls


@external
@view
def owner() -> address:
    """
    @notice Who may set the hub up.
    """
    return state.owner


@external
@nonreentrant
def transferOwnership(newOwner: address):
    """
    @notice Hand the hub to another owner.
    """
    self._check_owner()
    assert newOwner != empty(address), "Ownable: new owner is the zero address"
    self._set_owner(newOwner)


@external
@nonreentrant
def renounceOwnership():
    """
    @notice Leave the hub without an owner, for good.
    """
    self._check_owner()
    self._set_owner(empty(address))


@external
@nonreentrant
def configure(
    _token: address,
    _name: String[256],
    _symbol: String[256],
    _decimals: uint8,
    _appregistry: address,
    _datasetregistry: address,
    _workerpoolregistry: address,
    _v3_iexecHub: address,
):
    """
    @notice Set the hub up, once. This hub was set up when it was deployed, so it always refuses.
    """
    self._check_owner()
    raise "already-configured"


@external
@nonreentrant
def updateDomainSeparator():
    """
    @notice Nothing to do here: the separator is computed from the chain's id at each use, so it is never out of date.
    """
    assert TOKEN != empty(address), "not-configured"


@external
@view
def teebroker() -> address:
    """
    @notice Who vouches for enclaves in the place of workerpool owners, zero for nobody.
    """
    return convert(state.broker & ADDRESS_MASK, address)


@external
@nonreentrant
def setTeeBroker(_teebroker: address):
    """
    @notice Name who vouches for enclaves.
    """
    self._check_owner()
    state.broker = ((state.broker >> 160) << 160) | convert(_teebroker, uint256)
    log TeeBrokerSet(teebroker=_teebroker)


@external
@view
def callbackgas() -> uint256:
    """
    @notice Gas that a requester's contract gets with its result.
    """
    return state.broker >> 160


@external
@nonreentrant
def setCallbackGas(_callbackgas: uint256):
    """
    @notice Set the gas of callbacks.
    """
    self._check_owner()
    assert _callbackgas < 2**96
    state.broker = (state.broker & ADDRESS_MASK) | (_callbackgas << 160)
    log CallbackGasSet(callbackgas=_callbackgas)


@external
@nonreentrant
def createCategory(
    _name: String[state.CATEGORY_NAME_CAP],
    _description: String[state.CATEGORY_DESCRIPTION_CAP],
    _workClockTimeRef: uint256,
) -> uint256:
    """
    @notice Add a category of tasks.
    @param _workClockTimeRef Seconds that a task's deadlines are multiples of; zero is allowed.
    @return The category's number.
    """
    self._check_owner()
    assert _workClockTimeRef < CLOCK_CAP
    category: uint256 = state.category_count
    assert category < CATEGORY_CAP
    state.category_count = category + 1
    state.clocks[category] = CLOCK_CAP | _workClockTimeRef
    state.labels[category] = state.Label(name=_name, description=_description)
    log CreateCategory(catid=category, name=_name, description=_description, workClockTimeRef=_workClockTimeRef)
    return category


@internal
@view
def _check_owner():
    assert msg.sender == state.owner, "Ownable: caller is not the owner"


@internal
def _set_owner(account: address):
    log OwnershipTransferred(previousOwner=state.owner, newOwner=account)
    state.owner = account


# Scores


@external
@view
def viewScore(_worker: address) -> uint256:
    """
    @notice How often a worker was right with others, less two thirds for every time it was wrong.
    """
    return state.scores[_worker]


@external
@nonreentrant
def importScore(_worker: address):
    """
    @notice Take over a worker's score from the former hub, once, if it is the better one.
    """
    assert not state.imported[_worker], "score-already-imported"
    state.imported[_worker] = True
    score: uint256 = max(state.scores[_worker], staticcall FormerHub(FORMER_HUB).viewScore(_worker))
    state.scores[_worker] = score
    log ScoreImported(worker=_worker, score=score)
