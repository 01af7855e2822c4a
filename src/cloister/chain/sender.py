"""Sends transactions of one key, each intent at most once, whatever dies in between.

* Signed and journalled before a node sees it; a crash leaves either nothing or a transaction that is found again.
* One queue of nonces per key, shared by threads and, through the journal's lock, by processes.
* Fees by EIP-1559; a transaction that is stuck is replaced by the same with higher fees.
* A chain that went back (a reorganisation, a local chain restored from a checkpoint) gets the missing transactions
  again; where somebody else took the nonce, the intent is signed anew.

An intent that reverted had no effect, so sending it again tries again.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from cloister.chain.calls import Call, Receipt, parse_receipt
from cloister.chain.journal import Attempt, Entry, Journal, call_digest
from cloister.chain.rpc import (
    Head,
    JsonRpc,
    RpcError,
    TransactionReverted,
    block_parameter,
    parse_head,
    parse_quantity,
)
from cloister.errors import Conflict, RemoteError, UnavailableError, quoted
from cloister.protocol.codec import Bytes32, to_hex
from cloister.protocol.signatures import PrivateKey
from cloister.protocol.transactions import Transaction

_KNOWN: Final = ("already known", "already imported", "already in mempool", "known transaction")
_NONCE_TAKEN: Final = ("nonce too low", "nonce is too low", "underpriced", "nonce has already been used")
_NO_FUNDS: Final = ("insufficient funds", "insufficient balance")
_BUMP_PERCENT: Final = 125
"""Nodes ask for at least 110 (some 112.5) per cent of the old fees; less is refused as underpriced."""


@dataclass(frozen=True, slots=True)
class SenderOptions:
    """How patient a sender is. Times are seconds, fees wei per gas."""

    poll: float = 0.05
    slow_poll: float = 0.5
    patience: float = 180.0
    """How long ``send`` waits before it gives up (the transaction stays in the journal and may still be mined)."""
    check: float = 1.0
    """How often a waiting transaction is looked for, and sent again when the node forgot it."""
    stuck: float = 30.0
    """After how long a transaction is replaced by one with higher fees."""
    gas_margin_percent: int = 125
    max_fee_cap: int = 2_000 * 10**9


@dataclass(frozen=True, slots=True)
class Submission:
    """A journalled intent on its way. ``transaction`` is the hash signed last; a replacement may be mined instead."""

    entry_id: int
    intent: str
    transaction: Bytes32
    call: Call


@dataclass(frozen=True, slots=True)
class _ChainView:
    """The chain as one submission saw it."""

    genesis: Bytes32
    count: int
    pending_count: int
    head: Head
    tip: int


class TransactionSender:
    """Sends for one key. Safe to use from several threads.

    Every method raises ``UnavailableError`` when the node does not answer: the same call may be made again, and a
    transaction that was already signed is taken up, not repeated.
    """

    def __init__(
        self,
        rpc: JsonRpc,
        key: PrivateKey,
        journal: Journal,
        *,
        options: SenderOptions | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.rpc = rpc
        self.address = key.address
        self._key = key
        self._journal = journal
        self._options = options or SenderOptions()
        self._clock = clock
        self._sent_at: dict[Bytes32, float] = {}
        self._sent_lock = threading.Lock()

    def __repr__(self) -> str:
        return f"TransactionSender({self.address})"

    @staticmethod
    def fresh_intent(label: str) -> str:
        """Name an intent that is new each time: for acts that a person repeats on purpose."""
        return f"{label}:{secrets.token_hex(16)}"

    def send(self, call: Call, *, intent: str, timeout: float | None = None) -> Receipt:
        """Submit a call and wait until it is mined.

        Raises:
            TransactionReverted: the contract refused, before or after mining.
            Conflict: the intent was used for another call, or the account cannot pay for gas.
            UnavailableError: not mined in time, or the node does not answer.
        """
        return self.wait(self.submit(call, intent=intent), timeout=timeout)

    def submit(self, call: Call, *, intent: str) -> Submission:
        """Sign, journal and broadcast a call, or take up what was journalled for the intent before.

        Raises:
            TransactionReverted: the contract would refuse; nothing was signed.
            Conflict: the intent was used for another call, or the account cannot pay for gas.
        """
        digest = call_digest(call.to, call.data, call.value)
        with self._journal.exclusive():
            view = self._look()
            entry = self._journal.find(view.genesis, self.address, intent)
            if entry is not None:
                if entry.digest != digest:
                    raise Conflict(f"intent {quoted(intent)} was used for another transaction", code="intent-in-use")
                receipt = self._receipt(entry)
                if receipt is None or receipt.succeeded:
                    if receipt is None:
                        self._repair(view)
                    return Submission(entry.id, intent, entry.newest.hash, call)
                self._journal.settle(entry.id, "reverted", receipt.transaction)
            self._repair(view)
            gas = self._estimate(call, view) if call.gas is None else call.gas
            attempt = self._sign(call, view, nonce=self._next_nonce(view), gas=gas)
            entry = self._journal.record(
                chain_id=self.rpc.chain_id,
                genesis=view.genesis,
                sender=self.address,
                intent=intent,
                digest=digest,
                attempt=attempt,
            )
            self._broadcast(entry, call, view)
            return Submission(entry.id, intent, self._journal.get(entry.id).newest.hash, call)

    def wait(self, submission: Submission, *, timeout: float | None = None) -> Receipt:
        """Wait until a submission is mined; send it again or replace it where needed.

        Raises:
            TransactionReverted: it was mined and reverted.
            UnavailableError: not mined in time.
        """
        options = self._options
        started = self._clock()
        deadline = started + (options.patience if timeout is None else timeout)
        next_check = started + options.check
        next_bump = started + options.stuck
        taken_once = False
        while True:
            entry = self._journal.get(submission.entry_id)
            receipt = self._receipt(entry)
            if receipt is not None:
                return self._settled(entry, receipt, submission.call)
            now = self._clock()
            if now >= deadline:
                raise UnavailableError(
                    f"transaction {entry.newest.hash} is not mined yet",
                    hint="try again: it is journalled and will not be sent twice",
                    code="not-mined",
                )
            if now >= next_check:
                next_check = now + options.check
                taken_once = self._look_after(entry, submission.call, was_taken=taken_once, bump=now >= next_bump)
                if now >= next_bump:
                    next_bump = now + options.stuck
            fast = now - started < 10
            time.sleep(min(options.poll if fast else options.slow_poll, max(deadline - now, 0.001)))

    def recover(self) -> int:
        """Send again what the journal holds and the chain lost; returns how many. For a daemon's start."""
        with self._journal.exclusive():
            return self._repair(self._look(), recent=0.0)

    # The chain

    def _look(self) -> _ChainView:
        head, tip, count, pending, genesis = self.rpc.batch(
            [
                ("eth_getBlockByNumber", ("latest", False)),
                ("eth_maxPriorityFeePerGas", ()),
                ("eth_getTransactionCount", (self.address, "latest")),
                ("eth_getTransactionCount", (self.address, "pending")),
                ("eth_getBlockByNumber", ("0x0", False)),
            ]
        )
        return _ChainView(
            genesis=parse_head(genesis).hash,
            count=parse_quantity(count),
            pending_count=parse_quantity(pending),
            head=parse_head(head),
            tip=parse_quantity(tip),
        )

    def _estimate(self, call: Call, view: _ChainView) -> int:
        """Ask how much gas the call needs on top of what is pending.

        Raises:
            TransactionReverted: the contract would refuse.
        """
        request = {"from": self.address, "data": to_hex(call.data), "value": hex(call.value)}
        if call.to is not None:
            request["to"] = call.to
        try:
            needed = parse_quantity(self.rpc.call("eth_estimateGas", request, "pending"))
        except RpcError as error:
            raise _explained(error) from error
        return min(needed * self._options.gas_margin_percent // 100, view.head.gas_limit or needed * 2)

    def _receipt(self, entry: Entry) -> Receipt | None:
        """Find the receipt of whichever attempt was mined."""
        hashes = {attempt.hash for attempt in entry.attempts}
        for answer in self.rpc.batch([("eth_getTransactionReceipt", (item,)) for item in sorted(hashes)]):
            if answer is not None:
                return parse_receipt(answer)
        return None

    def _settled(self, entry: Entry, receipt: Receipt, call: Call) -> Receipt:
        if receipt.succeeded:
            if entry.state != "succeeded":
                self._journal.settle(entry.id, "succeeded", receipt.transaction)
            return receipt
        self._journal.settle(entry.id, "reverted", receipt.transaction)
        raise TransactionReverted(self._reason(receipt, entry, call), transaction=receipt.transaction)

    def _reason(self, receipt: Receipt, entry: Entry, call: Call) -> str:
        """Run a reverted call again on the block before its own to learn the reason; empty when it cannot be learnt."""
        request = {"from": self.address, "data": to_hex(call.data), "value": hex(call.value)}
        if call.to is not None:
            request["to"] = call.to
        request["gas"] = hex(entry.newest.gas)
        try:
            self.rpc.call("eth_call", request, block_parameter(max(receipt.block_number - 1, 0)))
        except TransactionReverted as error:
            return error.reason
        except RemoteError:
            return ""
        return ""

    # Signing and sending

    def _fees(self, view: _ChainView) -> tuple[int, int]:
        """Return (whole, priority) fee: room for the base fee to double while we wait."""
        whole = 2 * view.head.base_fee + view.tip
        if whole > self._options.max_fee_cap:
            raise UnavailableError(f"gas costs {whole} wei, more than the cap of {self._options.max_fee_cap}")
        return whole, view.tip

    def _sign(self, call: Call, view: _ChainView, *, nonce: int, gas: int, over: Attempt | None = None) -> Attempt:
        """Sign the call; ``over`` is an attempt of the same nonce that must be outbid."""
        max_fee, tip = self._fees(view)
        if over is not None:
            max_fee = max(max_fee, over.max_fee * _BUMP_PERCENT // 100 + 1)
            tip = max(tip, over.max_priority_fee * _BUMP_PERCENT // 100 + 1)
            max_fee = min(max(max_fee, tip), max(self._options.max_fee_cap, tip))
        transaction = Transaction(
            chain_id=self.rpc.chain_id,
            nonce=nonce,
            max_priority_fee=tip,
            max_fee=max_fee,
            gas=gas,
            to=call.to,
            value=call.value,
            data=call.data,
        )
        signed = transaction.sign(self._key)
        return Attempt(nonce, signed.hash, signed.raw, max_fee, tip, gas)

    def _next_nonce(self, view: _ChainView) -> int:
        """The lowest nonce that neither the chain, nor the journal, nor a stranger's pending transaction uses."""
        taken = {entry.nonce for entry in self._journal.from_nonce(view.genesis, self.address, view.count)}
        nonce = view.count
        while nonce in taken:
            nonce += 1
        if nonce < view.pending_count:
            nonce = view.pending_count
            while nonce in taken:
                nonce += 1
        return nonce

    def _post(self, attempt: Attempt) -> None:
        """Hand a signed transaction to the node; one that it knows already is fine.

        Raises:
            RpcError: refused.
        """
        try:
            self.rpc.call("eth_sendRawTransaction", to_hex(attempt.raw))
        except RpcError as error:
            if not any(text in error.message.lower() for text in _KNOWN):
                raise
        with self._sent_lock:
            now = self._clock()
            if len(self._sent_at) > 1000:
                self._sent_at = {name: at for name, at in self._sent_at.items() if now - at < 60}
            self._sent_at[attempt.hash] = now

    def _broadcast(self, entry: Entry, call: Call, view: _ChainView) -> None:
        """Send an attempt that no node has seen; sign again while strangers take its nonce. Holds the journal's lock.

        Only such an attempt may be signed again at once: refused, it cannot be mined later.

        Raises:
            Conflict: the account cannot pay; the intent is given up.
            RpcError: refused for another reason; the intent is given up.
        """
        for _ in range(5):
            try:
                self._post(entry.newest)
            except RpcError as error:
                text = error.message.lower()
                if not any(word in text for word in _NONCE_TAKEN):
                    self._journal.settle(entry.id, "abandoned")
                    raise _explained(error) from error
                view = self._look()
                nonce = max(self._next_nonce(view), entry.newest.nonce + 1)
                entry = self._journal.add_attempt(entry.id, self._sign(call, view, nonce=nonce, gas=entry.newest.gas))
            else:
                return
        raise UnavailableError("somebody else uses this account's nonces as fast as we do", code="nonce-contention")

    def _is_known(self, hashes: list[Bytes32]) -> list[bool]:
        answers = self.rpc.batch([("eth_getTransactionByHash", (item,)) for item in hashes])
        return [answer is not None for answer in answers]

    def _repair(self, view: _ChainView, *, recent: float = 2.0) -> int:
        """Send again every journalled transaction from the chain's nonce on that the node does not know.

        Those are transactions whose broadcast was cut off, and, on a chain that went back, mined ones that are gone.
        Those that this process sent less than ``recent`` seconds ago are taken to be on their way. A nonce that nothing
        will use is filled, because those above it would wait for ever; so is that of a transaction that had reverted:
        sent again it might succeed, beside the intent's later success.
        """
        now = self._clock()
        entries = self._journal.from_nonce(view.genesis, self.address, view.count)
        doubtful = [
            entry
            for entry in entries
            if entry.state != "reverted" and now - self._sent_at.get(entry.newest.hash, float("-inf")) >= recent
        ]
        if not doubtful:
            return 0
        self._fill_gaps(view, {entry.nonce for entry in entries if entry.state != "reverted"})
        known = self._is_known([entry.newest.hash for entry in doubtful])
        count = 0
        for entry, is_known in zip(doubtful, known, strict=True):
            if is_known:
                continue
            try:
                self._post(entry.newest)
            except RpcError:
                # Its own waiter, who has the call, signs it again; the others need not fail for it.
                continue
            if entry.state != "sent":
                self._journal.settle(entry.id, "sent")
            count += 1
        return count

    def _fill_gaps(self, view: _ChainView, used: set[int]) -> None:
        """Use up the nonces below the highest one that no transaction of ours or of a stranger will use."""
        for nonce in range(max(view.count, view.pending_count), max(used)):
            if nonce in used:
                continue
            filler = self._sign(Call(self.address), view, nonce=nonce, gas=21_000)
            try:
                self._post(filler)
            except RpcError:
                return

    def _look_after(self, entry: Entry, call: Call, *, was_taken: bool, bump: bool) -> bool:
        """See what became of a transaction that is not mined. Returns whether its nonce seems to be taken.

        The count is read before the receipts: a transaction mined in between is then found by its receipt. A nonce
        counts as taken when it looks so twice, because nodes behind one address do not always agree.
        """
        with self._journal.exclusive():
            view = self._look()
            entry = self._journal.get(entry.id)
            if self._receipt(entry) is not None:
                return False
            if view.count > entry.nonce:
                if any(self._is_known([attempt.hash for attempt in entry.attempts])):
                    return False
                if was_taken:
                    attempt = self._sign(call, view, nonce=self._next_nonce(view), gas=entry.newest.gas)
                    self._broadcast(self._journal.add_attempt(entry.id, attempt), call, view)
                return not was_taken
            self._repair(view)
            if bump:
                self._replace(entry, call, view)
        return False

    def _replace(self, entry: Entry, call: Call, view: _ChainView) -> None:
        """Outbid the newest attempt with the same nonce."""
        attempt = self._sign(call, view, nonce=entry.nonce, gas=entry.newest.gas, over=entry.newest)
        entry = self._journal.add_attempt(entry.id, attempt)
        try:
            self._post(attempt)
        except RpcError as error:
            # The older attempt stands; it is as good.
            if not any(word in error.message.lower() for word in (*_NONCE_TAKEN, *_NO_FUNDS)):
                raise


def _explained(error: RpcError) -> RpcError | Conflict:
    """Say an empty account in words of ours; leave other refusals as they are."""
    if any(word in error.message.lower() for word in _NO_FUNDS):
        return Conflict(
            "the account cannot pay for gas", hint="send it some of the chain's own coin", code="insufficient-funds"
        )
    return error
