"""The sender on a real chain: each intent takes effect at most once, whatever happens in between."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.anvil import CHAIN_ID, Anvil

from cloister.chain.calls import Call
from cloister.chain.journal import Attempt, Journal, call_digest
from cloister.chain.rpc import TransactionReverted
from cloister.chain.sender import SenderOptions, TransactionSender
from cloister.errors import Conflict, UnavailableError
from cloister.protocol.codec import Address, keccak256
from cloister.protocol.signatures import PrivateKey
from cloister.protocol.transactions import Transaction

QUICK = SenderOptions(poll=0.02, check=0.1, patience=10)
RECEIVER = Address("0x" + "ab" * 20)
# Init code of a contract whose every call reverts with Error("no entry"):
# the runtime copies the 100 bytes behind its 12 of code to memory and reverts with them.
REASON = bytes.fromhex("08c379a0") + (32).to_bytes(32, "big") + (8).to_bytes(32, "big") + b"no entry".ljust(32, b"\0")
REFUSING_RUNTIME = bytes.fromhex("6064600c5f3960645ffd0000") + REASON
# The runtime counts calls in slot 0.
COUNTING_RUNTIME = bytes.fromhex("5f546001015f5500")


def deploy_code(runtime: bytes) -> bytes:
    """Init code that returns ``runtime``: PUSH2 size, DUP1, PUSH1 11, PUSH0, CODECOPY, PUSH0, RETURN."""
    return bytes.fromhex("61") + len(runtime).to_bytes(2, "big") + bytes.fromhex("80600a5f395ff3") + runtime


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path / "wallet" / "transactions.sqlite")
    yield journal
    journal.close()


def fresh_key(node: Anvil, label: str) -> PrivateKey:
    return node.fund(PrivateKey(keccak256(f"{label} {time.monotonic_ns()}".encode())))


def sender_for(node: Anvil, journal: Journal, label: str = "sender") -> TransactionSender:
    return TransactionSender(node.rpc, fresh_key(node, label), journal, options=QUICK)


def balance(node: Anvil, address: Address = RECEIVER) -> int:
    return node.rpc.balance(address, block="latest")


def counter(sender: TransactionSender) -> Address:
    receipt = sender.send(Call(None, deploy_code(COUNTING_RUNTIME)), intent="deploy-counter")
    assert receipt.contract_address is not None
    return receipt.contract_address


def count(node: Anvil, address: Address) -> int:
    return int(str(node.rpc.call("eth_getStorageAt", address, "0x0", "latest")), 16)


def test_sends_and_returns_the_receipt(anvil: Anvil, journal: Journal) -> None:
    sender = sender_for(anvil, journal)
    before = balance(anvil)
    receipt = sender.send(Call(RECEIVER, value=5), intent="pay")
    assert receipt.succeeded
    assert balance(anvil) == before + 5


def test_an_intent_takes_effect_once(anvil: Anvil, journal: Journal) -> None:
    sender = sender_for(anvil, journal)
    address = counter(sender)
    receipts = [sender.send(Call(address), intent="count") for _ in range(3)]
    assert len({receipt.transaction for receipt in receipts}) == 1
    assert count(anvil, address) == 1


def test_an_intent_is_not_reused_for_another_call(anvil: Anvil, journal: Journal) -> None:
    sender = sender_for(anvil, journal)
    sender.send(Call(RECEIVER, value=1), intent="pay")
    with pytest.raises(Conflict, match="used for another"):
        sender.send(Call(RECEIVER, value=2), intent="pay")


def test_a_refusal_is_told_before_signing(anvil: Anvil, journal: Journal) -> None:
    sender = sender_for(anvil, journal)
    refusing = sender.send(Call(None, deploy_code(REFUSING_RUNTIME)), intent="deploy").contract_address
    with pytest.raises(TransactionReverted) as caught:
        sender.send(Call(refusing), intent="enter")
    assert caught.value.reason == "no entry"
    assert anvil.rpc.transaction_count(sender.address, block="latest") == 1


def test_a_mined_revert_gives_its_reason_and_may_be_tried_again(anvil: Anvil, journal: Journal) -> None:
    sender = sender_for(anvil, journal)
    refusing = sender.send(Call(None, deploy_code(REFUSING_RUNTIME)), intent="deploy").contract_address
    assert refusing is not None
    for expected in (2, 3):
        with pytest.raises(TransactionReverted) as caught:
            sender.send(Call(refusing, gas=100_000), intent="enter")
        assert caught.value.reason == "no entry"
        assert anvil.rpc.transaction_count(sender.address, block="latest") == expected
    anvil.rpc.call("anvil_setCode", refusing, "0x" + COUNTING_RUNTIME.hex())
    assert sender.send(Call(refusing, gas=100_000), intent="enter").succeeded


def test_an_empty_account_is_told_so(anvil: Anvil, journal: Journal) -> None:
    sender = TransactionSender(anvil.rpc, PrivateKey(keccak256(b"nothing in it")), journal, options=QUICK)
    with pytest.raises(Conflict) as caught:
        sender.send(Call(RECEIVER, value=1, gas=21_000), intent="pay")
    assert caught.value.code == "insufficient-funds"


def test_threads_share_one_queue_of_nonces(anvil: Anvil, journal: Journal) -> None:
    sender = sender_for(anvil, journal)
    address = counter(sender)
    failures: list[BaseException] = []

    def work(worker: int) -> None:
        try:
            for item in range(5):
                sender.send(Call(address), intent=f"count:{worker}:{item}")
        except BaseException as error:  # noqa: BLE001  # told by the assertion below
            failures.append(error)

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert count(anvil, address) == 20


def test_two_journals_of_one_key_do_not_lose_each_others_transactions(anvil: Anvil, tmp_path: Path) -> None:
    key = fresh_key(anvil, "shared")
    senders = [
        TransactionSender(anvil.rpc, key, Journal(tmp_path / f"{number}.sqlite"), options=QUICK) for number in (1, 2)
    ]
    address = counter(senders[0])
    for item in range(3):
        for sender in senders:
            sender.send(Call(address), intent=f"count:{item}")
    assert count(anvil, address) == 6


def test_a_crash_after_journalling_sends_what_was_signed(anvil: Anvil, tmp_path: Path) -> None:
    key = fresh_key(anvil, "crash")
    journal = Journal(tmp_path / "j.sqlite")
    before = balance(anvil)
    genesis = anvil.rpc.block(0)
    assert genesis is not None
    signed = Transaction(CHAIN_ID, 0, 10**9, 10**10, 21_000, RECEIVER, 7, b"").sign(key)
    attempt = Attempt(0, signed.hash, signed.raw, 10**10, 10**9, 21_000)
    journal.record(
        chain_id=CHAIN_ID,
        genesis=genesis.hash,
        sender=key.address,
        intent="pay",
        digest=call_digest(RECEIVER, b"", 7),
        attempt=attempt,
    )
    journal.close()
    reopened = Journal(tmp_path / "j.sqlite")
    receipt = TransactionSender(anvil.rpc, key, reopened, options=QUICK).send(Call(RECEIVER, value=7), intent="pay")
    assert receipt.transaction == signed.hash
    assert balance(anvil) == before + 7


def test_recover_sends_what_a_crash_left(anvil: Anvil, tmp_path: Path) -> None:
    key = fresh_key(anvil, "recover")
    journal = Journal(tmp_path / "j.sqlite")
    genesis = anvil.rpc.block(0)
    assert genesis is not None
    before = balance(anvil)
    for nonce in (0, 1):
        signed = Transaction(CHAIN_ID, nonce, 10**9, 10**10, 21_000, RECEIVER, 3, b"").sign(key)
        journal.record(
            chain_id=CHAIN_ID,
            genesis=genesis.hash,
            sender=key.address,
            intent=f"pay:{nonce}",
            digest=call_digest(RECEIVER, b"", 3),
            attempt=Attempt(nonce, signed.hash, signed.raw, 10**10, 10**9, 21_000),
        )
    assert TransactionSender(anvil.rpc, key, journal, options=QUICK).recover() == 2
    anvil.mine()
    assert balance(anvil) == before + 6


def test_a_taken_nonce_is_signed_anew(anvil: Anvil, tmp_path: Path) -> None:
    """The journal holds nonce 0, but somebody else with the key used it while we were down."""
    key = fresh_key(anvil, "taken")
    journal = Journal(tmp_path / "j.sqlite")
    genesis = anvil.rpc.block(0)
    assert genesis is not None
    signed = Transaction(CHAIN_ID, 0, 10**9, 10**10, 21_000, RECEIVER, 11, b"").sign(key)
    journal.record(
        chain_id=CHAIN_ID,
        genesis=genesis.hash,
        sender=key.address,
        intent="pay",
        digest=call_digest(RECEIVER, b"", 11),
        attempt=Attempt(0, signed.hash, signed.raw, 10**10, 10**9, 21_000),
    )
    other = Transaction(CHAIN_ID, 0, 10**9, 10**10, 21_000, key.address, 0, b"").sign(key)
    anvil.rpc.call("eth_sendRawTransaction", "0x" + other.raw.hex())
    before = balance(anvil)
    sender = TransactionSender(anvil.rpc, key, journal, options=QUICK)
    receipt = sender.send(Call(RECEIVER, value=11), intent="pay")
    assert receipt.transaction != signed.hash
    assert balance(anvil) == before + 11
    assert anvil.rpc.transaction_count(key.address, block="latest") == 2


def test_a_stuck_transaction_is_replaced_with_higher_fees(still_anvil: Anvil, journal: Journal) -> None:
    key = fresh_key(still_anvil, "stuck")
    options = SenderOptions(poll=0.02, check=0.05, stuck=0.2, patience=10)
    sender = TransactionSender(still_anvil.rpc, key, journal, options=options)
    submission = sender.submit(Call(RECEIVER, value=1), intent="pay")
    miner = threading.Timer(0.9, still_anvil.mine)
    miner.start()
    receipt = sender.wait(submission)
    miner.join()
    entry = journal.get(submission.entry_id)
    assert len(entry.attempts) >= 2
    fees = [attempt.max_fee for attempt in entry.attempts]
    assert all(later * 100 >= earlier * 110 for earlier, later in itertools.pairwise(fees))
    assert receipt.transaction != submission.transaction
    assert balance(still_anvil) == 1


def test_a_wait_that_gives_up_loses_nothing(still_anvil: Anvil, journal: Journal) -> None:
    sender = sender_for(still_anvil, journal)
    with pytest.raises(UnavailableError):
        sender.send(Call(RECEIVER, value=1), intent="pay", timeout=0.2)
    still_anvil.mine()
    assert sender.send(Call(RECEIVER, value=1), intent="pay").succeeded
    assert balance(still_anvil) == 1


def test_calls_that_build_on_pending_ones_are_submitted_at_once(still_anvil: Anvil, journal: Journal) -> None:
    sender = sender_for(still_anvil, journal)
    submissions = [sender.submit(Call(RECEIVER, value=1), intent=f"pay:{number}") for number in range(5)]
    still_anvil.mine()
    assert all(sender.wait(item).succeeded for item in submissions)
    assert balance(still_anvil) == 5


def test_a_forgotten_transaction_is_sent_again(still_anvil: Anvil, journal: Journal) -> None:
    sender = sender_for(still_anvil, journal)
    submissions = [sender.submit(Call(RECEIVER, value=1), intent=f"pay:{number}") for number in range(3)]
    still_anvil.rpc.call("anvil_dropAllTransactions")
    still_anvil.mine()
    assert balance(still_anvil) == 0
    miner = threading.Timer(2.6, still_anvil.mine)
    miner.start()
    assert all(sender.wait(item).succeeded for item in submissions)
    miner.join()
    assert balance(still_anvil) == 3


def test_a_chain_that_went_back_gets_its_transactions_again(anvil: Anvil, journal: Journal) -> None:
    """As when a local chain comes back from a checkpoint: mined intents are gone, and later ones follow."""
    sender = sender_for(anvil, journal)
    address = counter(sender)
    snapshot = anvil.rpc.call("evm_snapshot")
    first = [sender.send(Call(address), intent=f"count:{number}") for number in range(3)]
    assert count(anvil, address) == 3
    assert anvil.rpc.call("evm_revert", snapshot) is True
    assert count(anvil, address) == 0
    sender = TransactionSender(anvil.rpc, sender._key, journal, options=QUICK)
    sender.send(Call(address), intent="count:3")
    assert count(anvil, address) == 4
    again = [sender.send(Call(address), intent=f"count:{number}") for number in range(3)]
    assert [item.transaction for item in again] == [item.transaction for item in first]
    assert count(anvil, address) == 4


def test_another_chain_of_the_same_id_knows_none_of_it(tmp_path: Path) -> None:
    """A network that was wiped and made anew has another genesis: nothing of the old one is sent there."""
    key = PrivateKey(keccak256(b"wiped"))
    journal = Journal(tmp_path / "j.sqlite")
    node = Anvil(("--timestamp", "1700000000")).start()
    try:
        node.fund(key)
        TransactionSender(node.rpc, key, journal, options=QUICK).send(Call(RECEIVER, value=1), intent="pay")
        node.kill()
        node.arguments = ("--timestamp", "1800000000")
        node.start()
        node.fund(key)
        sender = TransactionSender(node.rpc, key, journal, options=QUICK)
        sender.send(Call(RECEIVER, value=2), intent="pay")
        assert balance(node) == 2
    finally:
        node.kill()


def test_a_strangers_pending_transaction_keeps_its_nonce(still_anvil: Anvil, journal: Journal) -> None:
    """Somebody else with the key has a transaction in the pool: ours goes behind it."""
    key = fresh_key(still_anvil, "neighbour")
    other = Transaction(CHAIN_ID, 0, 10**9, 10**11, 21_000, RECEIVER, 100, b"").sign(key)
    still_anvil.rpc.call("eth_sendRawTransaction", "0x" + other.raw.hex())
    sender = TransactionSender(still_anvil.rpc, key, journal, options=QUICK)
    submission = sender.submit(Call(RECEIVER, value=1), intent="pay")
    assert journal.get(submission.entry_id).nonce == 1
    still_anvil.mine()
    assert sender.wait(submission).succeeded
    assert balance(still_anvil) == 101


def test_a_gap_below_a_journalled_transaction_is_filled(anvil: Anvil, journal: Journal) -> None:
    """A crash can leave nonce 1 journalled and nonce 0 unused; nonce 1 would wait for ever."""
    key = fresh_key(anvil, "gap")
    genesis = anvil.rpc.block(0)
    assert genesis is not None
    signed = Transaction(CHAIN_ID, 1, 10**9, 10**10, 21_000, RECEIVER, 9, b"").sign(key)
    journal.record(
        chain_id=CHAIN_ID,
        genesis=genesis.hash,
        sender=key.address,
        intent="pay",
        digest=call_digest(RECEIVER, b"", 9),
        attempt=Attempt(1, signed.hash, signed.raw, 10**10, 10**9, 21_000),
    )
    before = balance(anvil)
    receipt = TransactionSender(anvil.rpc, key, journal, options=QUICK).send(Call(RECEIVER, value=9), intent="pay")
    assert receipt.transaction == signed.hash
    assert balance(anvil) == before + 9
    assert anvil.rpc.transaction_count(key.address, block="latest") == 2


def test_a_reverted_transaction_is_not_sent_again_on_a_chain_that_went_back(anvil: Anvil, journal: Journal) -> None:
    """Its nonce is filled instead: sent again it might succeed beside the intent's later success."""
    sender = sender_for(anvil, journal)
    code = sender.send(Call(None, deploy_code(REFUSING_RUNTIME)), intent="deploy").contract_address
    assert code is not None
    snapshot = anvil.rpc.call("evm_snapshot")
    with pytest.raises(TransactionReverted):
        sender.send(Call(code, gas=100_000), intent="count")
    anvil.rpc.call("anvil_setCode", code, "0x" + COUNTING_RUNTIME.hex())
    sender.send(Call(code, gas=100_000), intent="count")
    assert count(anvil, code) == 1
    assert anvil.rpc.call("evm_revert", snapshot) is True
    anvil.rpc.call("anvil_setCode", code, "0x" + COUNTING_RUNTIME.hex())
    again = TransactionSender(anvil.rpc, sender._key, journal, options=QUICK)
    assert again.send(Call(code, gas=100_000), intent="count").succeeded
    assert count(anvil, code) == 1


def test_fees_over_the_cap_are_not_paid(anvil: Anvil, journal: Journal) -> None:
    key = fresh_key(anvil, "dear")
    sender = TransactionSender(anvil.rpc, key, journal, options=SenderOptions(max_fee_cap=1))
    with pytest.raises(UnavailableError, match="cap"):
        sender.send(Call(RECEIVER, value=1), intent="pay")
    assert anvil.rpc.transaction_count(key.address, block="latest") == 0


def test_the_journal_is_for_its_owner_alone(journal: Journal, tmp_path: Path) -> None:
    files = list((tmp_path / "wallet").iterdir())
    assert files
    assert all(file.stat().st_mode & 0o077 == 0 for file in files)
