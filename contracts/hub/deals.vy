#pragma version 0.4.3
"""
@title Deals
@license Apache-2.0
@notice A deal as clients see it, and as it is kept: one page, written by the match and never changed.
@dev The page, offsets in bytes, integers big-endian:

       0  STOP
       1  deal id (32)
      33  app price (10) | dataset price (10) | workerpool price (10) | scheduler reward ratio (1) | flags (1)
      65  app (20) | start time (5) | category seconds (5) | category (2)
      97  app owner (20) | first index (5) | number of tasks (5) | low 16 bits of the tag (2)
     129  workerpool (20) | trust (4) | worker stake ratio (3)
     156  workerpool owner (20)
     176  requester (20)
     196  dataset (20) and its owner (20) if HAS_DATASET, beneficiary (20) if HAS_BENEFICIARY (else the requester), callback (20)
          if HAS_CALLBACK, sponsor (20) if HAS_SPONSOR (else the requester), the whole tag (32) if HAS_TAG, then the parameters

     Prices fit: the sponsor has locked them, and no account reaches 2**80 (see `ledger`).
"""

from . import pages
from . import state

struct Resource:
    pointer: address
    owner: address
    price: uint256


struct Deal:
    app: Resource
    dataset: Resource
    workerpool: Resource
    trust: uint256
    category: uint256
    tag: bytes32
    requester: address
    beneficiary: address
    callback: address
    params: String[pages.TAIL_BOUND]
    startTime: uint256
    botFirst: uint256
    botSize: uint256
    workerStake: uint256
    schedulerRewardRatio: uint256
    sponsor: address


# What contributing to a task and settling it needs to know of the deal.
struct Terms:
    id: bytes32
    app_owner: address
    app_price: uint256
    dataset_owner: address
    dataset_price: uint256
    workerpool_owner: address
    workerpool_price: uint256
    sponsor: address
    callback: address
    reward_ratio: uint256
    worker_stake: uint256
    trust: uint256
    tee: bool
    start_time: uint256
    clock: uint256


HEAD_SIZE: constant(uint256) = 196
ADDRESS_MASK: constant(uint256) = 2**160 - 1
PRICE_MASK: constant(uint256) = 2**80 - 1
MASK_40: constant(uint256) = 2**40 - 1
MASK_32: constant(uint256) = 2**32 - 1
MASK_24: constant(uint256) = 2**24 - 1
MASK_16: constant(uint256) = 2**16 - 1
# Indices of one request order: volumes beyond are cut to this.
VOLUME_CAP: constant(uint256) = MASK_40

HAS_DATASET: constant(uint256) = 1
HAS_BENEFICIARY: constant(uint256) = 2
HAS_CALLBACK: constant(uint256) = 4
HAS_SPONSOR: constant(uint256) = 8
HAS_TAG: constant(uint256) = 16

CONTRIBUTION_RATIO: constant(uint256) = 7
REVEAL_RATIO: constant(uint256) = 2
FINAL_RATIO: constant(uint256) = 10
WORKERPOOL_STAKE_RATIO: constant(uint256) = 30


@internal
@pure
def _id(request_hash: bytes32, consumed: uint256) -> bytes32:
    return keccak256(concat(request_hash, convert(consumed, bytes32)))


@internal
@view
def _page_of(deal_id: bytes32) -> address:
    """
    @dev Address of a deal's page, zero if there is no such deal.
    """
    page: address = pages._address_of(deal_id)
    if page.codesize == 0:
        return empty(address)
    return page


@internal
@view
def _bot_size(page: address) -> uint256:
    return (pages._word(page, 129) >> 16) & MASK_40


@internal
@view
def _load_terms(page: address) -> Terms:
    """
    @dev Terms of an existing deal, read straight from its code.
    """
    head: Bytes[HEAD_SIZE] = slice(page.code, 0, HEAD_SIZE)
    prices: uint256 = extract32(head, 33, output_type=uint256)
    app: uint256 = extract32(head, 65, output_type=uint256)
    owner: uint256 = extract32(head, 97, output_type=uint256)
    workerpool: uint256 = extract32(head, 124, output_type=uint256)
    requester: address = self._address(extract32(head, 164, output_type=uint256))
    flags: uint256 = prices & 255
    workerpool_price: uint256 = (prices >> 16) & PRICE_MASK
    terms: Terms = Terms(
        id=extract32(head, 1),
        app_owner=self._address(owner >> 96),
        app_price=prices >> 176,
        dataset_owner=empty(address),
        dataset_price=(prices >> 96) & PRICE_MASK,
        workerpool_owner=self._address(extract32(head, 144, output_type=uint256)),
        workerpool_price=workerpool_price,
        sponsor=requester,
        callback=empty(address),
        reward_ratio=(prices >> 8) & 255,
        worker_stake=unsafe_div(unsafe_mul(workerpool_price, workerpool & MASK_24), 100),
        trust=(workerpool >> 24) & MASK_32,
        tee=owner & 1 != 0,
        start_time=(app >> 56) & MASK_40,
        clock=(app >> 16) & MASK_40,
    )
    end: uint256 = HEAD_SIZE
    if flags & HAS_DATASET != 0:
        end = HEAD_SIZE + 40
        terms.dataset_owner = self._address(pages._word(page, end))
    if flags & (HAS_CALLBACK | HAS_SPONSOR) != 0:
        if flags & HAS_BENEFICIARY != 0:
            end += 20
        if flags & HAS_CALLBACK != 0:
            end += 20
            terms.callback = self._address(pages._word(page, end))
        if flags & HAS_SPONSOR != 0:
            end += 20
            terms.sponsor = self._address(pages._word(page, end))
    return terms


@internal
@view
def _load_deal(deal_id: bytes32) -> Deal:
    """
    @dev The whole deal for views, all zero if there is none.
    """
    deal: Deal = empty(Deal)
    page: address = self._page_of(deal_id)
    if page == empty(address):
        return deal
    terms: Terms = self._load_terms(page)
    flags: uint256 = pages._word(page, 65) & 255
    app: uint256 = pages._word(page, 97)
    owner: uint256 = pages._word(page, 129)
    deal.app = Resource(pointer=self._address(app >> 96), owner=terms.app_owner, price=terms.app_price)
    deal.dataset = Resource(pointer=empty(address), owner=terms.dataset_owner, price=terms.dataset_price)
    deal.workerpool = Resource(
        pointer=self._address(pages._word(page, 149)), owner=terms.workerpool_owner, price=terms.workerpool_price
    )
    deal.trust = terms.trust
    deal.category = app & MASK_16
    deal.tag = convert(owner & MASK_16, bytes32)
    deal.requester = self._address(pages._word(page, HEAD_SIZE))
    deal.beneficiary = deal.requester
    deal.callback = terms.callback
    deal.startTime = terms.start_time
    deal.botFirst = (owner >> 56) & MASK_40
    deal.botSize = (owner >> 16) & MASK_40
    deal.workerStake = terms.worker_stake
    deal.schedulerRewardRatio = terms.reward_ratio
    deal.sponsor = terms.sponsor

    end: uint256 = HEAD_SIZE
    if flags & HAS_DATASET != 0:
        end += 40
        deal.dataset.pointer = self._address(pages._word(page, end - 20))
    if flags & HAS_BENEFICIARY != 0:
        end += 20
        deal.beneficiary = self._address(pages._word(page, end))
    if flags & HAS_CALLBACK != 0:
        end += 20
    if flags & HAS_SPONSOR != 0:
        end += 20
    if flags & HAS_TAG != 0:
        end += 32
        deal.tag = convert(pages._word(page, end), bytes32)
    deal.params = convert(pages._tail(page, end), String[pages.TAIL_BOUND])
    return deal


@internal
@pure
def _address(word: uint256) -> address:
    return convert(word & ADDRESS_MASK, address)
