"""The page of a directory."""

from __future__ import annotations

import html
from collections.abc import Iterator
from urllib.parse import quote

from cloister.storage.reading import Entry


def build_page(entry: Entry, reference: str) -> str:
    """Return a directory's listing as HTML; ``reference`` is the CID and path that led to it.

    Links are absolute within the origin, so they hold whatever slash the page was asked with.
    """
    return "".join(_parts(entry, reference))


def _parts(entry: Entry, reference: str) -> Iterator[str]:
    title = html.escape(f"/ipfs/{reference}")
    yield f"<!doctype html><meta charset=utf-8><title>{title}</title><h1>{title}</h1><table>"
    base = "/ipfs/" + quote(reference.rstrip("/"))
    if "/" in reference.rstrip("/"):
        yield f'<tr><td><a href="{base.rpartition("/")[0]}">..</a><td><td>'
    for link in entry.links:
        place = f"{base}/{quote(link.name, safe='')}"
        yield f'<tr><td><a href="{place}">{html.escape(link.name)}</a><td>{link.total_size}<td>{link.cid}'
    yield "</table>"
