"""What ``/openapi.json`` tells of the indexer beside what its routes say: names, and the form of refusals."""

from __future__ import annotations

from cloister.services.descriptions import TEXT, Description, Operation, list_of, with_members

_PATH = "/subgraphs/name/{network}/{subgraph}"

INDEXER = Description(
    {
        ("POST", _PATH): Operation("querySubgraph", text="A GraphQL query; one that is refused is answered 200."),
        ("GET", _PATH): Operation("querySubgraphByUrl", text="The same, in the query string."),
    },
    with_members(errors=list_of(with_members(message=TEXT))),
)
