"""The hub's interface as PoCo 6.1 publishes it (function and event signatures), and what this hub adds to it."""

from __future__ import annotations

from tests.contracts.hub.actors import AppOrder, DatasetOrder, RequestOrder, WorkerpoolOrder

APP, DATASET, WORKERPOOL, REQUEST = (kind.abi() for kind in (AppOrder, DatasetOrder, WorkerpoolOrder, RequestOrder))
FOUR = f"{APP},{DATASET},{WORKERPOOL},{REQUEST}"
RESOURCE = "(address,address,uint256)"
DEAL = (
    f"({RESOURCE},{RESOURCE},{RESOURCE},uint256,uint256,bytes32,address,address,address,string,"
    "uint256,uint256,uint256,uint256,uint256,address)"
)
TASK = "(uint8,bytes32,uint256,uint256,uint256,uint256,uint256,bytes32,uint256,uint256,address[],bytes32,bytes,uint256,bytes)"
CONTRIBUTION = "(uint8,bytes32,bytes32,address,uint256)"

# Signature -> what it returns.
FUNCTIONS: dict[str, str] = {
    "allowance(address,address)": "(uint256)",
    "appregistry()": "(address)",
    "approve(address,uint256)": "(bool)",
    "approveAndCall(address,uint256,bytes)": "(bool)",
    f"assertDatasetDealCompatibility({DATASET},bytes32)": "()",
    "balanceOf(address)": "(uint256)",
    f"broadcastAppOrder({APP})": "()",
    f"broadcastDatasetOrder({DATASET})": "()",
    f"broadcastRequestOrder({REQUEST})": "()",
    f"broadcastWorkerpoolOrder({WORKERPOOL})": "()",
    "callbackgas()": "(uint256)",
    "claim(bytes32)": "()",
    "claimArray(bytes32[])": "(bool)",
    f"computeDealVolume({FOUR})": "(uint256)",
    "configure(address,string,string,uint8,address,address,address,address)": "()",
    "contribute(bytes32,bytes32,bytes32,address,bytes,bytes)": "()",
    "contributeAndFinalize(bytes32,bytes32,bytes,bytes,address,bytes,bytes)": "()",
    "contribution_deadline_ratio()": "(uint256)",
    "countCategory()": "(uint256)",
    "createCategory(string,string,uint256)": "(uint256)",
    "datasetregistry()": "(address)",
    "decimals()": "(uint8)",
    "decreaseAllowance(address,uint256)": "(bool)",
    "deposit(uint256)": "(bool)",
    "depositFor(uint256,address)": "(bool)",
    "depositForArray(uint256[],address[])": "(bool)",
    "domain()": "((string,string,uint256,address))",
    "eip712domain_separator()": "(bytes32)",
    "final_deadline_ratio()": "(uint256)",
    "finalize(bytes32,bytes,bytes)": "()",
    "frozenOf(address)": "(uint256)",
    "groupmember_purpose()": "(uint256)",
    "importScore(address)": "()",
    "increaseAllowance(address,uint256)": "(bool)",
    "initialize(bytes32,uint256)": "(bytes32)",
    "initializeAndClaimArray(bytes32[],uint256[])": "(bool)",
    "initializeArray(bytes32[],uint256[])": "(bool)",
    "kitty_address()": "(address)",
    "kitty_min()": "(uint256)",
    "kitty_ratio()": "(uint256)",
    f"manageAppOrder(({APP},uint8,bytes))": "()",
    f"manageDatasetOrder(({DATASET},uint8,bytes))": "()",
    f"manageRequestOrder(({REQUEST},uint8,bytes))": "()",
    f"manageWorkerpoolOrder(({WORKERPOOL},uint8,bytes))": "()",
    f"matchOrders({FOUR})": "(bytes32)",
    "name()": "(string)",
    "owner()": "(address)",
    "receiveApproval(address,uint256,address,bytes)": "(bool)",
    "recover()": "(uint256)",
    "renounceOwnership()": "()",
    "reopen(bytes32)": "()",
    "resultFor(bytes32)": "(bytes)",
    "reveal(bytes32,bytes32)": "()",
    "reveal_deadline_ratio()": "(uint256)",
    "setCallbackGas(uint256)": "()",
    "setTeeBroker(address)": "()",
    f"sponsorMatchOrders({FOUR})": "(bytes32)",
    "symbol()": "(string)",
    "teebroker()": "(address)",
    "token()": "(address)",
    "totalSupply()": "(uint256)",
    "transfer(address,uint256)": "(bool)",
    "transferFrom(address,address,uint256)": "(bool)",
    "transferOwnership(address)": "()",
    "updateDomainSeparator()": "()",
    "verifyPresignature(address,bytes32)": "(bool)",
    "verifyPresignatureOrSignature(address,bytes32,bytes)": "(bool)",
    "verifySignature(address,bytes32,bytes)": "(bool)",
    "viewAccount(address)": "((uint256,uint256))",
    "viewAccountABILegacy(address)": "(uint256,uint256)",
    "viewApp(address)": "((address,string,string,bytes,bytes32,bytes))",
    "viewCategory(uint256)": "((string,string,uint256))",
    "viewCategoryABILegacy(uint256)": "(string,string,uint256)",
    "viewConfigABILegacy(bytes32)": "(uint256,uint256,uint256,uint256,uint256,uint256)",
    "viewConsumed(bytes32)": "(uint256)",
    "viewContribution(bytes32,address)": f"({CONTRIBUTION})",
    "viewContributionABILegacy(bytes32,address)": "(uint8,bytes32,bytes32,address)",
    "viewDataset(address)": "((address,string,bytes,bytes32))",
    "viewDeal(bytes32)": f"({DEAL})",
    "viewDealABILegacy_pt1(bytes32)": "(address,address,uint256,address,address,uint256,address,address,uint256)",
    "viewDealABILegacy_pt2(bytes32)": "(uint256,bytes32,address,address,address,string)",
    "viewPresigned(bytes32)": "(address)",
    "viewScore(address)": "(uint256)",
    "viewTask(bytes32)": f"({TASK})",
    "viewTaskABILegacy(bytes32)": (
        "(uint8,bytes32,uint256,uint256,uint256,uint256,uint256,bytes32,uint256,uint256,address[],bytes)"
    ),
    "viewWorkerpool(address)": "((address,string,uint256,uint256))",
    "withdraw(uint256)": "(bool)",
    "withdrawTo(uint256,address)": "(bool)",
    "workerpool_stake_ratio()": "(uint256)",
    "workerpoolregistry()": "(address)",
}

ADDITIONS: dict[str, str] = {
    "isClosed(bytes32)": "(bool)",
    "contributeAndFinalizeArray(bytes32[],bytes32[],bytes[],bytes[],address[],bytes[],bytes[])": "(bool)",
}

# Name -> types, `indexed` marked with a star.
EVENTS: dict[str, str] = {
    "AccurateContribution": "address*,bytes32*",
    "Approval": "address*,address*,uint256",
    "BroadcastAppOrder": APP,
    "BroadcastDatasetOrder": DATASET,
    "BroadcastRequestOrder": REQUEST,
    "BroadcastWorkerpoolOrder": WORKERPOOL,
    "ClosedAppOrder": "bytes32",
    "ClosedDatasetOrder": "bytes32",
    "ClosedRequestOrder": "bytes32",
    "ClosedWorkerpoolOrder": "bytes32",
    "CreateCategory": "uint256,string,string,uint256",
    "DealSponsored": "bytes32,address",
    "FaultyContribution": "address*,bytes32*",
    "Lock": "address,uint256",
    "OrdersMatched": "bytes32,bytes32,bytes32,bytes32,bytes32,uint256",
    "OwnershipTransferred": "address*,address*",
    "Reward": "address,uint256,bytes32",
    "SchedulerNotice": "address*,bytes32",
    "Seize": "address,uint256,bytes32",
    "SignedAppOrder": "bytes32",
    "SignedDatasetOrder": "bytes32",
    "SignedRequestOrder": "bytes32",
    "SignedWorkerpoolOrder": "bytes32",
    "TaskClaimed": "bytes32*",
    "TaskConsensus": "bytes32*,bytes32",
    "TaskContribute": "bytes32*,address*,bytes32",
    "TaskFinalize": "bytes32*,bytes",
    "TaskInitialize": "bytes32*,address*",
    "TaskReopen": "bytes32*",
    "TaskReveal": "bytes32*,address*,bytes32",
    "Transfer": "address*,address*,uint256",
    "Unlock": "address,uint256",
}

OWN_EVENTS: dict[str, str] = {
    "CallbackGasSet": "uint256",
    "ScoreImported": "address*,uint256",
    "TeeBrokerSet": "address",
}
