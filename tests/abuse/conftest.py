"""Abuse cases, one test each, named by its number in the list of cases. Every one drives the real SMS over HTTP, or the
contracts on a real chain.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.deployed import deployed
from tests.support.sms_world import DATASET, DATASET_KEY, World

from cloister.protocol import authorization

__all__ = ["deployed"]


def push_key(world: World) -> None:
    """The data owner gives the SMS the key of the data."""
    challenge = authorization.sms_web3_challenge(DATASET, DATASET_KEY)
    status, body = world.set_secret(
        "POST", f"/secrets/web3?secretAddress={DATASET}", DATASET_KEY, challenge, world.owner
    )
    assert status == 204, body


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A deal with one task, and an SMS that has the key and would release it to an honest enclave."""
    with World(tmp_path).serving() as running:
        push_key(running)
        yield running
