#pragma version 0.4.3
"""
@title State
@license Apache-2.0
@notice Every word the hub keeps, in one module: the hub's parts run on one storage by delegate call, and a part that
        initializes this module first and nothing else with storage cannot disagree about the layout.
@dev Packed words, lowest bits first. The modules that own them say what they mean:

     accounts     stake (128) | locked (128)                                              ledger
     escrow       what the hub itself holds (127) | 1 | what the kitty holds locked (128) ledger
     marks        consumed (254) | presigned (1) | closed (1)                             marks
     tasks        deal's address (160) | status (8) | index (40) | time (40) | flags (8)  tasks
     broker       teebroker (160) | callback gas (96)
     clocks       seconds (40) | exists (1)                                               categories
"""

struct Vote:
    resultHash: bytes32
    resultSeal: bytes32
    # enclave challenge (160) | status (8) << 160 | weight << 168
    record: uint256


struct Ballot:
    consensusValue: bytes32
    resultDigest: bytes32
    # sum of all groups' weights
    total: uint256
    winners: uint256
    reveals: uint256
    resultsTimestamp: uint256


struct Label:
    name: String[CATEGORY_NAME_CAP]
    description: String[CATEGORY_DESCRIPTION_CAP]


# Bytes of a deal's parameters, of a task's results and of its callback data; a signature; workers on one task.
PARAMS_CAP: constant(uint256) = 16384
RESULTS_CAP: constant(uint256) = 4096
SIGN_CAP: constant(uint256) = 1024
CONTRIBUTORS_CAP: constant(uint256) = 64
BATCH_CAP: constant(uint256) = 64
CATEGORY_NAME_CAP: constant(uint256) = 256
CATEGORY_DESCRIPTION_CAP: constant(uint256) = 2048
# The largest thing written as code: a deal with its parameters.
PAGE_CAP: constant(uint256) = PARAMS_CAP + 512

owner: address
accounts: HashMap[address, uint256]
allowances: HashMap[address, HashMap[address, uint256]]
total_supply: uint256
escrow: uint256
marks: HashMap[bytes32, uint256]
presigners: HashMap[bytes32, address]
tasks: HashMap[bytes32, uint256]
ballots: HashMap[bytes32, Ballot]
groups: HashMap[bytes32, HashMap[bytes32, uint256]]
votes: HashMap[bytes32, HashMap[address, Vote]]
contributors: HashMap[bytes32, DynArray[address, CONTRIBUTORS_CAP]]
scores: HashMap[address, uint256]
imported: HashMap[address, bool]
broker: uint256
category_count: uint256
clocks: HashMap[uint256, uint256]
labels: HashMap[uint256, Label]

# The bytes that a data contract under construction fetches, see `pages`.
page: transient(Bytes[PAGE_CAP])
# Who pays for the match that follows in this transaction, when it is not the requester.
patron: transient(address)
