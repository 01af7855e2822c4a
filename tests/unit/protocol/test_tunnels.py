"""Destinations and tunnel frames: what is refused by name, and that windows cannot be overdrawn."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.errors import CloisterError, DecodeError, InputError
from cloister.protocol.bundles import Manifest
from cloister.protocol.channel import TUNNEL, Frame
from cloister.protocol.destinations import Destination, parse_destination
from cloister.protocol.tunnels import (
    IN_ALL,
    PIECE,
    WINDOW,
    Close,
    CloseCause,
    Data,
    End,
    Grant,
    Open,
    Opened,
    Sending,
    Taking,
    build_tunnel,
    parse_tunnel,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rates.example.org", "rates.example.org:443"),
        ("Rates.Example.ORG:8443", "rates.example.org:8443"),
        ("xn--bcher-kva.example:1", "xn--bcher-kva.example:1"),
        ("intranet:65535", "intranet:65535"),
        ("1.example", "1.example:443"),
    ],
)
def test_hosts_have_one_spelling(text: str, expected: str) -> None:
    assert str(parse_destination(text)) == expected
    assert Manifest("a", "1", "a.py", network=(text, expected)).network == (expected,)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("*.example.org", "pattern"),
        ("*", "pattern"),
        ("10.0.0.1", "address"),
        ("10.0.0.1:443", "address"),
        ("127.1", "address"),
        ("2130706433", "address"),
        ("0x7f000001", "address"),
        ("0x7f.1:443", "address"),
        ("a.0x", "address"),
        ("[::1]:443", "address"),
        ("[::1]", "address"),
        ("::1", "address"),
        ("fe80::1:443", "address"),
        ("https://example.org", "scheme"),
        ("example.org/path", "scheme"),
        ("example.org:0", "from 1 to 65535"),
        ("example.org:65536", "from 1 to 65535"),
        ("example.org:+80", "from 1 to 65535"),
        ("example.org:", "from 1 to 65535"),
        ("example.org:https", "from 1 to 65535"),
        ("example.org.", "not a host name"),
        ("user@example.org", "not a host name"),
        ("exämple.org", "not a host name"),
        ("a b", "not a host name"),
        ("a\r\nb", "not a host name"),
        ("-a.example", "not a host name"),
        (f"{'a' * 64}.example", "not a host name"),
        (".".join(["a"] * 127 + ["bb"]), "not a host name"),
        ("", "not a host name"),
    ],
)
def test_what_is_no_host_is_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        parse_destination(text)
    with pytest.raises(InputError, match=f"network: .*{reason}"):
        Manifest("a", "1", "a.py", network=(text,))


ids = st.integers(1, IN_ALL)
messages = st.one_of(
    st.builds(Open, ids, st.builds(Destination, st.just("a.example"), st.integers(1, 65535))),
    st.builds(Opened, ids),
    st.builds(Data, ids, st.binary(min_size=1, max_size=64)),
    st.builds(Grant, ids, st.integers(1, WINDOW)),
    st.builds(End, ids),
    st.builds(Close, ids, st.sampled_from(CloseCause)),
)


@given(messages)
def test_what_was_built_is_parsed(message: Open | Opened | Data | Grant | End | Close) -> None:
    frame = build_tunnel(message)
    assert frame.kind == TUNNEL
    assert parse_tunnel(frame) == message


JUNK = st.one_of(st.none(), st.booleans(), st.integers(-5, 1 << 70), st.text(max_size=8), st.lists(st.integers()))


@given(
    st.dictionaries(st.sampled_from(["op", "id", "host", "port", "size", "cause", "x"]), JUNK),
    st.sampled_from(["open", "opened", "data", "window", "end", "close", "", "exec", 7, None]),
    st.binary(max_size=4),
)
def test_no_other_error_leaves_the_parser(header: dict[str, object], op: object, body: bytes) -> None:
    with suppress(CloisterError):
        parse_tunnel(Frame(TUNNEL, header | {"op": op}, body))


@pytest.mark.parametrize(
    ("header", "body", "reason"),
    [
        ({"op": "listen", "id": 1}, b"", "no operation"),
        ({"op": ["open"], "id": 1}, b"", "no operation"),
        ({"id": 1}, b"", "no operation"),
        ({"op": "data"}, b"x", "missing key id"),
        ({"op": "data", "id": 0}, b"x", "tunnel 0"),
        ({"op": "data", "id": IN_ALL + 1}, b"x", "is not from 1"),
        ({"op": "data", "id": 1}, b"", "empty"),
        ({"op": "data", "id": 1}, bytes(PIECE + 1), "over its cap"),
        ({"op": "data", "id": 1, "host": "a"}, b"x", "unknown key"),
        ({"op": "end", "id": 1}, b"x", "has a body"),
        ({"op": "window", "id": 1, "size": 0}, b"", "window of 0"),
        ({"op": "window", "id": 1, "size": WINDOW + 1}, b"", "window of"),
        ({"op": "open", "id": 1, "host": "10.0.0.1", "port": 443}, b"", "address"),
        ({"op": "open", "id": 1, "host": "a.example", "port": 0}, b"", "65535"),
        ({"op": "close", "id": 1, "cause": "because"}, b"", "closes for because"),
    ],
)
def test_malformed_frames_are_refused_by_name(header: dict[str, object], body: bytes, reason: str) -> None:
    with pytest.raises(DecodeError, match=reason):
        parse_tunnel(Frame(TUNNEL, header, body))


@given(st.lists(st.integers(1, WINDOW), max_size=60))
def test_windows_never_promise_more_than_they_hold(sizes: list[int]) -> None:
    sending, taking = Sending(), Taking()
    for size in sizes:
        piece = min(size, sending.left)
        if piece:
            sending.spend(piece)
            taking.take(piece)
        granted = taking.pass_on(piece)
        if granted:
            sending.grant(granted)
        # What is kept back is never so much that the sender stands still.
        assert WINDOW * 3 // 4 < sending.left <= WINDOW
    with pytest.raises(DecodeError, match="given"):
        sending.grant(WINDOW + 1)
    with pytest.raises(DecodeError, match="brings"):
        taking.take(WINDOW + 1)
