"""What iExec's JavaScript packages need to know of a network: the options of each, ready to paste or import.

Source: the packages' own option names (reference section 2).
"""

from __future__ import annotations

import json
from typing import Any

from cloister.protocol.networks import NetworkDescription

SUBGRAPH_NETWORK = "arbitrum-sepolia"
"""The name that iExec's subgraph URLs carry for chain 421614. Ours answer under any name."""


def subgraph_url(description: NetworkDescription, name: str) -> str:
    """URL of a subgraph: ``dataprotector-v2`` or ``poco-v5``."""
    return f"{description.services.indexer}/subgraphs/name/{SUBGRAPH_NETWORK}/{name}"


def list_urls(description: NetworkDescription) -> dict[str, str]:
    """Every URL that a client may need, by what it serves."""
    services = description.services
    return {
        "rpc": description.rpc_url,
        "market": services.market,
        "market_events": f"{services.market}/ws",
        "sms": services.sms,
        "scheduler": services.scheduler,
        "compass": services.compass,
        "result_proxy": services.result_proxy,
        "ipfs_api": f"{services.gateway}/api/v0",
        "ipfs_gateway": f"{services.gateway}/ipfs",
        "dataprotector_subgraph": subgraph_url(description, "dataprotector-v2"),
        "poco_subgraph": subgraph_url(description, "poco-v5"),
        "openapi": f"{description.origin}/docs",
        "network": f"{description.origin}/-/network",
    }


def build_configuration(description: NetworkDescription) -> dict[str, Any]:
    """The options of each package, by the name that the JavaScript module exports them under."""
    services, contracts = description.services, description.contracts
    iexec = {
        "hubAddress": contracts.hub,
        "smsURL": services.sms,
        "ipfsGatewayURL": services.gateway,
        "ipfsNodeURL": services.gateway,
        "iexecGatewayURL": services.market,
        "compassURL": services.compass,
        "pocoSubgraphURL": subgraph_url(description, "poco-v5"),
    }
    iexec8 = iexec | {"resultProxyURL": services.result_proxy}
    storage = {"ipfsNode": services.gateway, "ipfsGateway": services.gateway}
    protector_subgraph = subgraph_url(description, "dataprotector-v2")
    return {
        "ethProvider": description.rpc_url,
        "workerpool": description.workerpool,
        "iexecOptions": iexec,
        "iexec8Options": iexec8,
        "dataProtectorOptions": {
            "dataprotectorContractAddress": contracts.dataprotector,
            "subgraphUrl": protector_subgraph,
            **storage,
            "iexecOptions": iexec,
        },
        "dataProtector0Options": {
            "contractAddress": contracts.dataprotector,
            "subgraphUrl": protector_subgraph,
            **storage,
            "iexecOptions": iexec8,
        },
        "chainJson": {
            "default": description.name,
            "chains": {
                description.name: {
                    "id": str(description.chain_id),
                    "host": description.rpc_url,
                    "hub": contracts.hub,
                    "sms": services.sms,
                    "iexecGateway": services.market,
                    "ipfsGateway": services.gateway,
                    "compass": services.compass,
                    "pocoSubgraph": subgraph_url(description, "poco-v5"),
                }
            },
        },
    }


_COMMENTS = {
    "ethProvider": "the chain, read-only; to sign: utils.getSignerFromPrivateKey(ethProvider, key)",
    "workerpool": "pass it where a call takes a workerpool; the packages' own defaults name iExec's",
    "iexecOptions": "iexec 9: new IExec({ ethProvider: signer }, iexecOptions)",
    "iexec8Options": "iexec 8.24: new IExec({ ethProvider: signer }, iexec8Options)",
    "dataProtectorOptions": "@iexec/dataprotector 2: new IExecDataProtectorCore(signer, dataProtectorOptions)",
    "dataProtector0Options": "@iexec/dataprotector 0.5: new IExecDataProtector(signer, dataProtector0Options)",
    "chainJson": "iexec CLI: the content of chain.json",
}


def write_module(description: NetworkDescription) -> str:
    """An ES module that exports the options of each package."""
    lines = [f"// cloister network {description.name}, chain {description.chain_id}"]
    for name, value in build_configuration(description).items():
        lines += ["", f"// {_COMMENTS[name]}", f"export const {name} = {json.dumps(value, indent=2)};"]
    return "\n".join(lines) + "\n"
