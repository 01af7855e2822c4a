"""Puts the indexer together."""

from __future__ import annotations

from cloister.chain.events import EventReader
from cloister.chain.rpc import JsonRpc
from cloister.services.database import Database
from cloister.services.following import Follower
from cloister.services.indexer.http import IndexerPart
from cloister.services.indexer.service import QueryService
from cloister.services.indexer.watcher import WATCHED, Contracts, IndexWatcher


def build_indexer_part(contracts: Contracts, *, database: Database, rpc: JsonRpc, from_block: int) -> IndexerPart:
    """Build the indexer over a database and a chain; ``from_block`` is the first that may hold an event of the
    contracts.
    """
    follower = Follower(
        "indexer",
        sink=IndexWatcher(database, rpc, contracts),
        source=lambda cursor: EventReader(rpc, contracts.addresses(), WATCHED, from_block, cursor=cursor),
        head=rpc.block_number,
    )
    return IndexerPart(database=database, queries=QueryService(database), follower=follower)
