"""Puts the indexer together."""

from __future__ import annotations

from cloister.chain.events import EventReader
from cloister.chain.rpc import JsonRpc
from cloister.protocol.eip712 import hub_domain
from cloister.services.database import Database
from cloister.services.following import Follower
from cloister.services.indexer.freshness import NewestBlock, SharedHead
from cloister.services.indexer.http import IndexerPart
from cloister.services.indexer.service import QueryService
from cloister.services.indexer.slices import BulkContent, SliceReader
from cloister.services.indexer.watcher import WATCHED, Contracts, IndexWatcher


def build_indexer_part(
    contracts: Contracts, *, database: Database, rpc: JsonRpc, from_block: int, content: BulkContent
) -> IndexerPart:
    """Build the indexer over a database, a chain and content storage.

    ``from_block`` is the first that may hold an event of the contracts; ``content`` is where the files of bulk
    requests are read.
    """
    newest = NewestBlock()
    slices = SliceReader(database, content, lambda: hub_domain(rpc.chain_id, contracts.hub))
    follower = Follower(
        "indexer",
        sink=IndexWatcher(database, rpc, contracts, on_bulk=slices.wake),
        source=lambda cursor: newest.watch(EventReader(rpc, contracts.addresses(), WATCHED, from_block, cursor=cursor)),
        head=SharedHead(rpc.block_number).block_number,
    )
    newest.follow(follower)
    return IndexerPart(database=database, queries=QueryService(database, newest), follower=follower, slices=slices)
