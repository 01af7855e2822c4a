"""The multipart parser: any cut of the stream gives the same parts; bad bodies are refused in bounded memory."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.errors import DecodeError, InputError, TooLarge
from cloister.services.gateway.multipart import (
    HEAD_CAP,
    Event,
    MultipartParser,
    PartBegins,
    PartData,
    PartEnds,
    parse_boundary,
)

BOUNDARY = b"----x"


def body_of(*parts: tuple[bytes, bytes], boundary: bytes = BOUNDARY) -> bytes:
    out = b""
    for head, data in parts:
        out += b"--" + boundary + b"\r\n" + head + b"\r\n\r\n" + data + b"\r\n"
    return out + b"--" + boundary + b"--\r\n"


def parse(body: bytes, step: int) -> list[tuple[PartBegins, bytes]]:
    parser = MultipartParser(BOUNDARY)
    events: list[Event] = []
    for start in range(0, len(body), step):
        events += parser.feed(body[start : start + step])
    parser.finish()
    parts: list[tuple[PartBegins, bytes]] = []
    open_part: tuple[PartBegins, bytearray] | None = None
    for event in events:
        match event:
            case PartBegins():
                assert open_part is None
                open_part = (event, bytearray())
            case PartData(data):
                assert open_part is not None
                open_part[1].extend(data)
            case PartEnds():
                assert open_part is not None
                parts.append((open_part[0], bytes(open_part[1])))
                open_part = None
    assert open_part is None
    return parts


HEAD = b'Content-Disposition: form-data; name="file"; filename="a%2Fb.txt"\r\nContent-Type: text/plain; charset=utf-8'
TRICKY = [b"", b"\r\n", b"\r\n--", b"\r\n----", b"-" + BOUNDARY, b"x\r\n-----", b"\r\r\n" * 5, bytes(range(256)) * 20]


@pytest.mark.parametrize("step", [1, 2, 3, 7, 64, 10_000])
def test_any_cut_gives_the_same_parts(step: int) -> None:
    parts = parse(body_of(*((HEAD, data) for data in TRICKY)), step)
    assert [data for _, data in parts] == TRICKY
    assert {begins for begins, _ in parts} == {PartBegins("file", "a/b.txt", "text/plain")}


@given(st.lists(st.binary(max_size=100), max_size=4), st.integers(1, 50))
def test_what_is_written_is_read(datas: list[bytes], step: int) -> None:
    usable = [data for data in datas if b"\r\n--" + BOUNDARY not in b"\r\n" + data]
    assert [data for _, data in parse(body_of(*((HEAD, data) for data in usable)), step)] == usable


def test_heads_without_names_and_a_preamble_are_understood() -> None:
    assert parse(b"preamble\r\n" + body_of((b"X-Y: z", b"1")), 5) == [
        (PartBegins("", "", "application/octet-stream"), b"1")
    ]
    quoted = b'content-disposition: form-data; name="file"; filename="a\\"b"'
    assert parse(body_of((quoted, b"")), 9)[0][0].filename == 'a"b'


@given(st.binary(max_size=300))
def test_foreign_bytes_end_in_an_error_of_the_tree(body: bytes) -> None:
    parser = MultipartParser(BOUNDARY)
    with contextlib.suppress(DecodeError):
        parser.feed(body)
        parser.finish()


@pytest.mark.parametrize("cut", [1, 10, 40, 80, 120])
def test_a_body_that_is_cut_short_is_refused(cut: int) -> None:
    body = body_of((HEAD, b"data"))
    with pytest.raises(DecodeError):
        parse(body[: -cut - 3], 16)


def test_endless_heads_and_preambles_are_refused_at_the_cap() -> None:
    parser = MultipartParser(BOUNDARY)
    parser.feed(b"--" + BOUNDARY + b"\r\n")
    with pytest.raises(TooLarge):
        parser.feed(b"x" * (HEAD_CAP + 100))
    with pytest.raises(DecodeError, match="does not begin"):
        MultipartParser(BOUNDARY).feed(b"x" * (HEAD_CAP + 100))
    follower = MultipartParser(BOUNDARY)
    with pytest.raises(DecodeError, match="followed by"):
        follower.feed(b"--" + BOUNDARY + b"y" * (HEAD_CAP + 1))


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "text/plain",
        "multipart/form-data",
        'multipart/form-data; boundary=""',
        "multipart/form-data; boundary=",
        "multipart/form-data; boundary=" + "x" * 71,
        'multipart/form-data; boundary="a\\"b"',
    ],
)
def test_headers_without_a_usable_boundary_are_refused(header: str | None) -> None:
    with pytest.raises(InputError):
        parse_boundary(header)


def test_boundaries_are_read_in_both_forms() -> None:
    assert parse_boundary('multipart/form-data; charset=x; boundary="a b"') == b"a b"
    assert parse_boundary("Multipart/Form-Data;boundary=----abc123") == b"----abc123"
