"""An indexer in a process of the test's own: real HTTP, real database, real chain."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import urllib3
from tests.support.deployed import DeployedChain

from cloister.clients.indexer import IndexerClient
from cloister.protocol.orders import DatasetOrder
from cloister.protocol.signatures import PrivateKey
from cloister.services.application import BackgroundServer, build_application
from cloister.services.database import Database, open_database
from cloister.services.indexer.part import build_indexer_part
from cloister.services.indexer.slices import BulkContent
from cloister.services.indexer.watcher import Contracts
from cloister.storage.local import LocalStore

T = TypeVar("T")


class IndexerWorld:
    """An indexer of a chain."""

    def __init__(
        self, chain: DeployedChain, folder: Path, *, database_url: str | None = None, content: BulkContent | None = None
    ) -> None:
        self.chain = chain
        self.database: Database = open_database(database_url or folder / "indexer.db")
        self.content = LocalStore(folder / "content")
        self._source = content or self.content
        self.url = ""
        self._http = urllib3.PoolManager(retries=False)

    def account(self, name: str) -> PrivateKey:
        """A funded account of this world's own, though the chain is shared."""
        return self.chain.account(f"indexer {name} {self.database.dialect}")

    def put_json(self, value: object) -> str:
        """Store a JSON file; returns its CID."""
        return str(self.content.put([json.dumps(value).encode()]).cid)

    def put_bulk(self, slices: Sequence[Sequence[DatasetOrder]]) -> str:
        """Store slices and their root as iExec's clients do; returns the root's CID."""
        return self.put_json([self.put_json([order.to_json() for order in each]) for each in slices])

    def eventually(self, ask: Callable[[], T], wanted: Callable[[T], bool], seconds: float = 20.0) -> T:
        """Ask until the answer is as wanted."""
        deadline = time.monotonic() + seconds
        while not wanted(found := ask()):
            assert time.monotonic() < deadline, found
            time.sleep(0.05)
        return found

    @contextmanager
    def serving(self) -> Iterator[IndexerWorld]:
        """Run the indexer; may be entered again after it ended, on the same database."""
        deployment = self.chain.deployment
        contracts = Contracts(
            hub=deployment.hub,
            dataprotector=deployment.dataprotector,
            app_registry=deployment.app_registry,
            dataset_registry=deployment.dataset_registry,
            workerpool_registry=deployment.workerpool_registry,
        )
        part = build_indexer_part(
            contracts,
            database=self.database,
            rpc=self.chain.node.rpc,
            from_block=deployment.block,
            content=self._source,
        )
        with BackgroundServer(build_application([part])) as server:
            self.url = server.url
            self._client = IndexerClient(server.url)
            yield self

    @property
    def client(self) -> IndexerClient:
        """A client, once all that was mined is taken in: a loaded machine needs more than a query waits for."""
        head = self.chain.rpc.block_number()
        self.eventually(self._client.block, lambda block: block >= head, 60.0)
        return self._client

    def ask(
        self, query: str, variables: dict[str, Any] | None = None, *, subgraph: str = "dataprotector-v2"
    ) -> dict[str, Any]:
        """Post a query and return the whole answer, which knows all that was mined before."""
        _ = self.client
        answer = self._http.request(
            "POST",
            f"{self.url}/subgraphs/name/arbitrum-sepolia/{subgraph}",
            body=json.dumps({"query": query, "variables": variables}).encode(),
            headers={"content-type": "application/json"},
        )
        assert answer.status == 200, answer.data
        return dict(json.loads(answer.data))

    def data(self, query: str, variables: dict[str, Any] | None = None, *, subgraph: str = "dataprotector-v2") -> Any:
        """Post a query that must succeed."""
        answer = self.ask(query, variables, subgraph=subgraph)
        assert "errors" not in answer, answer
        return answer["data"]

    def refusal(self, query: str, variables: dict[str, Any] | None = None) -> str:
        """Post a query that must be refused."""
        answer = self.ask(query, variables)
        assert answer.get("errors"), answer
        return str(answer["errors"][0]["message"])

    def post(self, path: str, body: bytes) -> int:
        """Post raw bytes; returns the status."""
        return self._http.request("POST", self.url + path, body=body).status
