"""A process that fulfils a list of intents; run by ``test_sender_killed``, which kills it."""

from __future__ import annotations

import sys
from pathlib import Path

from cloister.chain.calls import Call
from cloister.chain.journal import Journal
from cloister.chain.rpc import JsonRpc
from cloister.chain.sender import SenderOptions, TransactionSender
from cloister.protocol.codec import Address
from cloister.protocol.signatures import PrivateKey


def main(url: str, journal: str, key: str, counter: str, count: str) -> None:
    """Send ``count`` intents, three in flight at a time."""
    options = SenderOptions(poll=0.01, check=0.2, patience=30)
    sender = TransactionSender(JsonRpc(url), PrivateKey.parse(key), Journal(Path(journal)), options=options)
    sender.recover()
    for start in range(0, int(count), 3):
        numbers = range(start, min(start + 3, int(count)))
        submissions = [sender.submit(Call(Address(counter)), intent=f"count:{number}") for number in numbers]
        for submission in submissions:
            sender.wait(submission)


if __name__ == "__main__":
    main(*sys.argv[1:])
