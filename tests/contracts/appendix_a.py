"""Selectors and topics that clients of the field know, as published with PoCo 6.1: ours must be exactly these.

A key with brackets is a full signature; without, the function of that name (there is one).
"""

from __future__ import annotations

HUB_FUNCTIONS: dict[str, str] = {
    "domain": "0xc2fb26a6",
    "token": "0xfc0c546a",
    "appregistry": "0x45b637a9",
    "datasetregistry": "0xb1b11d2c",
    "workerpoolregistry": "0x90a0f546",
    "viewAccount": "0x6b55f4a5",
    "viewConsumed": "0x4b2bec8c",
    "viewPresigned": "0xd286eb16",
    "verifySignature": "0x01751998",
    "matchOrders": "0x156194d4",
    "sponsorMatchOrders": "0x2f391533",
    "manageAppOrder": "0xb2b07e66",
    "manageDatasetOrder": "0x4b747106",
    "manageWorkerpoolOrder": "0x7e34a077",
    "manageRequestOrder": "0x8dd971d5",
    "viewDeal": "0xb74861b2",
    "viewTask": "0xadccf0d5",
    "viewContribution": "0xe741363b",
    "viewCategory": "0x4f5f44ec",
    "countCategory": "0xc140996f",
    "final_deadline_ratio": "0xdb8aaa26",
    "initialize": "0x5b36c66b",
    "contribute": "0x34623484",
    "reveal": "0xfc334e8c",
    "finalize": "0x8fc375e5",
    "contributeAndFinalize": "0x5facd761",
    "reopen": "0xf6c68e10",
    "claim": "0xbd66528a",
    "claimArray": "0xfa055d7e",
    "initializeAndClaimArray": "0xf722cb32",
    "assertDatasetDealCompatibility": "0x80f03425",
    "withdraw": "0x2e1a7d4d",
    "deposit(uint256)": "0xb6b55f25",
    "depositFor": "0x36efd16f",
    "receiveApproval": "0x8f4ffcb1",
    "approveAndCall": "0xcae9ca51",
    "createCategory": "0x298503d9",
    "resultFor": "0xd09cc57e",
}
"""Functions of the hub."""

HUB_ERRORS: dict[str, str] = {
    "IncompatibleDatasetOrder(string)": "0x0afd9382",
}
"""Custom errors of the hub."""

REGISTRY_FUNCTIONS: dict[str, str] = {
    "createApp": "0x3f7868ff",
    "predictApp": "0xe92118ed",
    "createDataset": "0x3354bcdb",
    "predictDataset": "0xfe17fc7a",
    "createWorkerpool": "0xe40238f4",
    "predictWorkerpool": "0x064a6c2a",
    "isRegistered": "0xc3c5a547",
    "tokenOfOwnerByIndex": "0x2f745c59",
}
"""Functions of the three registries."""

OTHER_FUNCTIONS: dict[str, str] = {
    "keyHasPurpose": "0xd202158d",
    "addResourceToWhitelist(address)": "0x051a68e2",
    "receiveResult(bytes32,bytes)": "0x5dd80855",
    "createDatasetWithSchema": "0x167fbf5f",
}
"""Group contracts, callbacks and DataProtector."""

SHARING_FUNCTIONS: dict[str, str] = {
    "createCollection": "0x2069e953",
    "addProtectedDataToCollection": "0x40e6158d",
    "removeProtectedDataFromCollection": "0xd0b06c66",
    "setSubscriptionParams": "0xff19d9df",
    "subscribeToCollection": "0xd3c52389",
    "setProtectedDataToSubscription": "0xfe4c31a4",
    "removeProtectedDataFromSubscription": "0x72d570ce",
    "setProtectedDataToRenting": "0xff811f60",
    "rentProtectedData": "0x9a82c2bd",
    "removeProtectedDataFromRenting": "0x185e4e8d",
    "setProtectedDataForSale": "0xdc30b8fc",
    "buyProtectedData": "0x53574f9e",
    "removeProtectedDataForSale": "0x01d0b634",
    "consumeProtectedData": "0xd835c337",
    "protectedDataDetails": "0x328cb1f7",
    "collectionDetails": "0xdfe0bc11",
    "getCollectionSubscriber": "0xc3533ba2",
    "getProtectedDataRenter": "0xea46d1aa",
    "burn": "0x42966c68",
}
"""Functions of the sharing contract."""

HUB_EVENTS: dict[str, str] = {
    "OrdersMatched": "0xd811b592ed0899225773e8933d8df64bd0b62761a9d7aad4ed5b22735f4610a4",
    "SchedulerNotice": "0x692ad61076dceddd0f1a861f737553dd61fc8501cf4190d29c4e90af6607f765",
    "DealSponsored": "0x81eec3d5401bb1693dbef61f0800bc16602905d6677d691c1262d6f08456e9a0",
    "ClosedAppOrder": "0x7343f75be43aba524f85326508cd975d016ef7884676377366c69a7c32e30668",
    "ClosedDatasetOrder": "0xcf52e3228bc482a6656d8ab56c09888b1c5bf6aaadba0185e96a34836f2bb1d4",
    "ClosedWorkerpoolOrder": "0x145ad51e4496173bca15e24e7eb46f9ab3a10eea0497e2801a3a6806c06113a3",
    "ClosedRequestOrder": "0x582f43f2a741cbe708aae3b8d38a4efc3d09d7e81919697b3ca693f4c444cc05",
    "SignedAppOrder": "0x50933cf5a9c44d5ed66b895deb27212aa33d811b46a7b41093e047e213c0bcab",
    "SignedDatasetOrder": "0x79ce85909be2c590a728d1634ce6ec8a7cbf815260bacc05387890a313da8130",
    "SignedWorkerpoolOrder": "0x3a61aabf2ab04790d082ff1e332853b2f66944c2e951a146121f80272812a476",
    "SignedRequestOrder": "0x3b0ac04165536d6b11d04220f998c840bd6e439d59c5d8721bba8a4e1fb9ebfd",
    "TaskInitialize": "0x252992fb0468d68d6a5784ec03214f0d0a362083f2d7ebd157af43b017a22e06",
    "TaskContribute": "0x3fdb8d7797562d49a81078dbf7fa1771958ea452f8b13d1148383bd9506aecfb",
    "TaskConsensus": "0xf6d49bf3e05d33a4bc497d3c793fb5756388bb96b947cf51bb60aaecb0e022e3",
    "TaskReveal": "0x4b1763d473ac8fa80b4432ba90047e1b92444d8fabc55e6a002d9b1a316d7959",
    "TaskReopen": "0x3afe0f24796ce653c6ab1f3e7aba5ce564eece5e82aee724aff28253e829f07b",
    "TaskFinalize": "0x78ce8a8bc0fcb704e8ba3b3dbb36aa88002df8038128b4af2f27ef65db665044",
    "TaskClaimed": "0xcbc308b5f91040d2659a5201858344b0b583cd2f9e18e8470c2fa052c5b21ff8",
    "CreateCategory": "0x62bf08360c9d561749c54eaf4f8bf8cb6c8b6f4f40607bcec39a8172e714d25c",
    "Lock": "0x625fed9875dada8643f2418b838ae0bc78d9a148a18eee4ee1979ff0f3f5d427",
    "Unlock": "0x6381d9813cabeb57471b5a7e05078e64845ccdb563146a6911d536f24ce960f1",
    "Reward": "0xc2aca55aa696938c7e95842e8939ca0fbb2120a3eeb8948cdcee2b70da566672",
    "Seize": "0x1bccc549c38561cd5b57f0db11ceb8dde1b0b6ee05ab5e155b51c7c5ba64becb",
}
"""Events of the hub and their first topic."""

DATAPROTECTOR_EVENTS: dict[str, str] = {
    "DatasetSchema": "0x37b19b8900a9b045473748167f459fa16828f33c13d71473bca4b5e52e5f4d5d",
}
"""Events of DataProtector."""
