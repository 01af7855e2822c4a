"""Who signed a standing policy, by the chain's own word: accounts, and contracts that own data (ERC-1271)."""

from __future__ import annotations

import pytest
from tests.support.deployed import DeployedChain

from cloister.protocol.codec import Address, Bytes32
from cloister.protocol.data_policies import DataPolicy, sign_data_policy
from cloister.services.sms.chain_ledger import ChainLedger

SAYS_YES = "0x631626ba7e60e01b60005260206000f3"
"""Answers any call with isValidSignature's magic word."""
SAYS_NO = "0x600060005260206000f3"
REVERTS = "0x60006000fd"


@pytest.mark.parametrize(
    ("code", "signed"), [(SAYS_YES, True), (SAYS_NO, False), (REVERTS, False)], ids=["yes", "no", "reverts"]
)
def test_a_contract_says_itself_what_it_signed(deployed: DeployedChain, code: str, signed: bool) -> None:
    wallet = Address.from_raw(code.encode().rjust(40, b"\x01")[:20])
    deployed.rpc.call("anvil_setCode", str(wallet), code)
    ledger, block = ChainLedger(deployed.rpc, deployed.deployment.hub), deployed.rpc.block_number()
    assert ledger.signed_by(wallet, Bytes32("0x" + "ab" * 32), b"\x01" * 65, block=block) is signed


def test_an_account_signed_what_it_signed(deployed: DeployedChain) -> None:
    owner, other = deployed.account("policy owner"), deployed.account("policy stranger")
    statement = DataPolicy(Address("0x" + "d1" * 20), Bytes32("0x" + "ab" * 32), 1, 1_790_000_000)
    signature = sign_data_policy(statement, {}, owner, deployed.domain).signature
    digest = statement.digest(deployed.domain)
    ledger, block = ChainLedger(deployed.rpc, deployed.deployment.hub), deployed.rpc.block_number()
    assert ledger.signed_by(owner.address, digest, signature, block=block)
    for signer, given, made in (
        (other.address, digest, signature),
        (owner.address, statement.policy, signature),
        (owner.address, digest, b""),
        (owner.address, digest, bytes(65)),
        (owner.address, digest, signature + b"\x00"),
    ):
        assert not ledger.signed_by(signer, given, made, block=block)
