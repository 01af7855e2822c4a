"""The gateway's operations, as ``/openapi.json`` tells them: Kubo's RPC, and content by path."""

from __future__ import annotations

from collections.abc import Mapping

from cloister.services.descriptions import (
    ANY_OBJECT,
    COUNT,
    TEXT,
    Description,
    Operation,
    Schema,
    answer,
    exactly,
    list_of,
    nullable,
    with_members,
)

_BYTES: Schema = {"type": "string", "format": "binary"}
_CID: Schema = {"type": "string", "pattern": "^(Qm|ba)[0-9A-Za-z]+$"}
_LINES: Schema = {"description": "one JSON object a line"}
_LINES_OR_ONE: Schema = {"description": "one JSON object, or with ``stream`` or ``progress`` one JSON object a line"}
_MEDIA = (
    *("*/*", "application/vnd.ipld.raw", "application/vnd.ipld.car"),
    *("application/vnd.ipld.dag-json", "application/x-tar", "text/html"),
)
_FORMS = dict.fromkeys(_MEDIA, _BYTES)


def _call(name: str, schema: Schema | None = None, *, media: str = "application/json") -> Operation:
    body: Mapping[str, Schema] = answer(schema if schema is not None else ANY_OBJECT, media)
    return Operation(name, {200: body}, (403, 404, 413))


def _plain(name: str, schema: Schema) -> Operation:
    return Operation(name, {200: answer(schema)})


_NO_BODIES: dict[int, None] = {301: None, 304: None}
_CONTENT_PARAMETERS: dict[str, Schema] = {
    "format": {"type": "string", "enum": ["", "raw", "car", "tar", "dag-json"]},
}

GATEWAY = Description(
    {
        ("POST", "/api/v0/add"): Operation(
            "add",
            {200: answer(_LINES)},
            (403, 507),
            answer({"type": "object", "properties": {"file": _BYTES}, "required": ["file"]}, "multipart/form-data"),
        ),
        ("GET", "/ipfs/{reference}"): Operation(
            "getContent",
            {200: _FORMS, 206: _FORMS, **_NO_BODIES},
            (404, 413, 416),
            parameters=_CONTENT_PARAMETERS,
        ),
        ("HEAD", "/ipfs/{reference}"): Operation(
            "headContent",
            {200: None, 206: None, **_NO_BODIES},
            (404, 413, 416),
            parameters=_CONTENT_PARAMETERS,
        ),
        ("POST", "/api/v0/cat"): _call("cat", _BYTES, media="application/octet-stream"),
        ("POST", "/api/v0/get"): Operation(
            "get",
            {200: {"application/x-tar": _BYTES, "application/gzip": _BYTES}},
            (403, 404, 413),
        ),
        ("POST", "/api/v0/ls"): _call("ls", _LINES_OR_ONE),
        ("POST", "/api/v0/files/stat"): _call(
            "filesStat", exactly(Hash=_CID, Size=COUNT, CumulativeSize=COUNT, Blocks=COUNT, Type=TEXT)
        ),
        ("POST", "/api/v0/refs"): _call("refs", _LINES),
        ("POST", "/api/v0/block/get"): _call("blockGet", _BYTES, media="application/octet-stream"),
        ("POST", "/api/v0/block/stat"): _call("blockStat", exactly(Key=_CID, Size=COUNT)),
        ("POST", "/api/v0/object/stat"): _call("objectStat", with_members(Hash=_CID, NumLinks=COUNT, BlockSize=COUNT)),
        ("POST", "/api/v0/dag/get"): _call("dagGet", {}),
        ("POST", "/api/v0/dag/resolve"): _call("dagResolve", exactly(Cid=ANY_OBJECT, RemPath=TEXT)),
        ("POST", "/api/v0/dag/export"): _call("dagExport", _BYTES, media="application/vnd.ipld.car"),
        ("POST", "/api/v0/resolve"): _call("resolve", exactly(Path={"type": "string", "pattern": "^/ipfs/"})),
        ("POST", "/api/v0/pin/add"): _call("pinAdd", _LINES_OR_ONE),
        ("POST", "/api/v0/pin/ls"): _call("pinLs", _LINES_OR_ONE),
        ("POST", "/api/v0/version"): _plain("nodeVersion", with_members(Version=TEXT)),
        ("POST", "/api/v0/id"): _plain("nodeId", with_members(ID=TEXT, AgentVersion=TEXT, Addresses=list_of(TEXT))),
        ("POST", "/api/v0/repo/stat"): _plain("repoStat", with_members(RepoSize=COUNT, NumObjects=COUNT)),
        ("POST", "/api/v0/repo/version"): _plain("repoVersion", exactly(Version=TEXT)),
        ("POST", "/api/v0/swarm/peers"): _plain("swarmPeers", exactly(Peers=list_of(ANY_OBJECT))),
        ("POST", "/api/v0/{command}"): Operation("otherCommand", {}, (404,), text="What this node does not do."),
    },
    exactly(
        Message=TEXT,
        Code={"enum": [0, 1, 3, 4]},
        Type={"enum": ["error"]},
        error=TEXT,
        code=TEXT,
        hint=nullable(TEXT),
    ),
)
