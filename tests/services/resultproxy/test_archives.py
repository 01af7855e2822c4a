"""Results as JSON streams: every way to cut them up reads the same, and nothing else than an archive is read."""

from __future__ import annotations

import base64
import json
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.errors import CloisterError, DecodeError, TooLarge
from cloister.services.resultproxy.archives import ResultArchive

PLAIN = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63),
    st.text(max_size=40),
    st.floats(allow_nan=False, allow_infinity=False),
)
MAGIC = b"PK\x03\x04"


def cut(body: bytes, sizes: list[int]) -> Iterator[bytes]:
    position = 0
    for size in sizes:
        yield body[position : position + size]
        position += size
    yield body[position:]


def read(body: bytes, sizes: list[int] | None = None, max_zip: int = 10**6) -> tuple[bytes, dict[str, Any]]:
    archive = ResultArchive(cut(body, sizes or []), max_zip)
    return b"".join(archive.chunks()), archive.members


@given(
    content=st.binary(max_size=200),
    members=st.dictionaries(st.text(max_size=12).filter(lambda name: name != "zip"), PLAIN, max_size=5),
    sizes=st.lists(st.integers(0, 30), max_size=40),
    place=st.integers(0, 5),
    array=st.booleans(),
    indent=st.sampled_from([None, 0, 2]),
    escape=st.booleans(),
)
def test_a_result_reads_the_same_however_it_is_cut_and_spelled(
    content: bytes,
    members: dict[str, Any],
    sizes: list[int],
    place: int,
    array: bool,
    indent: int | None,
    escape: bool,
) -> None:
    content = MAGIC + content
    items = list(members.items())
    items.insert(place, ("zip", list(content) if array else base64.b64encode(content).decode()))
    body = json.dumps(dict(items), indent=indent)
    if escape and not array:
        body = body.replace("/", "\\/")
    assert read(body.encode(), sizes) == (content, members)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b'{"zip"',
        b'{"zip":"UEsDBA=="',
        b'{"zip":"UEsDBA==',
        b'{"zip":"UEsDBA==",}',
        b'{"zip":"UEsDBA=="}x',
        b'{"zip":"UEsDBA==","zip":"UEsDBA=="}',
        b'{"a":1,"a":1,"zip":"UEsDBA=="}',
        b'{"a":1}',
        b'{"a":{},"zip":"UEsDBA=="}',
        b'{"a":[1],"zip":"UEsDBA=="}',
        b'{"a":NaN,"zip":"UEsDBA=="}',
        b'{"a":undefined,"zip":"UEsDBA=="}',
        b'{"a":01,"zip":"UEsDBA=="}',
        b'{"a":"\x01","zip":"UEsDBA=="}',
        b'{"a":"\\x","zip":"UEsDBA=="}',
        b'{"a":"\xff","zip":"UEsDBA=="}',
        b'{"zip":"UEsDBA"}',
        b'{"zip":"UEsD BA=="}',
        b'{"zip":"UEsD\\nBA=="}',
        b'{"zip":"UEsDBA==UEsDBA=="}',
        b'{"zip":7}',
        b'{"zip":{}}',
        b'{"zip":[80,75,3,4,]}',
        b'{"zip":[,80,75,3,4]}',
        b'{"zip":[80,75,3,-4]}',
        b'{"zip":[80,75,3,4.0]}',
        b'{"zip":[80,75,3,0x4]}',
        b'{"zip":[80,75,3,256]}',
        b'{"zip":[80,75,3,"4"]}',
        b'{"zip":[80,75,3 4]}',
        b'{"zip":[[80]]}',
        b'{"zip":[80,75,3,4',
        b'{"zip":[80,75,3,999999999999999999999999999999999999999999999999999999]}',
    ],
)
@pytest.mark.parametrize("step", [1, 3, 1000])
def test_anything_else_is_refused(body: bytes, step: int) -> None:
    with pytest.raises(DecodeError):
        read(body, [step] * (len(body) // step))


@pytest.mark.parametrize(
    "body",
    [
        b'{"zip":"' + base64.b64encode(MAGIC + bytes(2000)) + b'"}',
        b'{"a":"' + b"x" * 20_000 + b'","zip":"UEsDBA=="}',
        b'{"' + b"x" * 20_000 + b'":1,"zip":"UEsDBA=="}',
        b"{" + b",".join(b'"%d":1' % n for n in range(100)) + b',"zip":"UEsDBA=="}',
    ],
)
def test_everything_has_a_cap(body: bytes) -> None:
    with pytest.raises(TooLarge):
        read(body, [100] * (len(body) // 100), max_zip=1000)


@pytest.mark.parametrize("opening", [b'{"a":', b'{"a":1', b'{"zip":[1', b'{"zip":[', b'{"a":"\\'])
def test_an_endless_body_ends_early_or_costs_nothing(opening: bytes) -> None:
    """Endless space between members is stopped by whoever caps the body; it must not gather here."""

    def endless() -> Iterator[bytes]:
        yield opening
        for _ in range(2000):
            yield b" " * 10_000 if opening != b'{"a":1' else b"1" * 10_000

    tracemalloc.start()
    try:
        with pytest.raises(CloisterError):
            b"".join(ResultArchive(endless(), 10**6).chunks())
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
