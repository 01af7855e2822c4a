"""datasets.schema: names and types of protected data."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.vectors.loading import load_cases

from cloister.datasets.schema import (
    HEAD_SIZE,
    INDEXED_TYPES,
    build_schema,
    detect_media_type,
    parse_schema,
    schema_entries,
    schema_leaves,
    schema_name,
    verify_key,
)
from cloister.errors import DecodeError, InputError, TooLarge

NAMES = st.text(alphabet="abcXYZ019-_", min_size=1, max_size=8)
SCHEMAS = st.recursive(
    st.sampled_from(sorted(INDEXED_TYPES)), lambda inner: st.dictionaries(NAMES, inner, max_size=4), max_leaves=12
).filter(lambda value: isinstance(value, dict))


@given(SCHEMAS)
def test_parses_what_it_builds(schema: Any) -> None:
    text = build_schema(schema)
    assert parse_schema(text) == schema
    assert list(parse_schema(text)) == list(schema)
    assert " " not in text


@given(SCHEMAS)
def test_every_leaf_is_an_entry(schema: Any) -> None:
    assert schema_entries(schema) == [f"{path}:{kind}" for path, kind in schema_leaves(schema)]


def test_the_text_is_what_javascript_writes() -> None:
    assert build_schema({"email": "string", "a": {"b": "f64"}}) == '{"email":"string","a":{"b":"f64"}}'
    assert schema_entries({"email": "string", "a": {"b": "f64"}}) == ["email:string", "a.b:f64"]


def test_an_indexer_skips_what_it_does_not_know() -> None:
    schema = {
        "ok": "bool",
        "type": "u8",
        "a name": "bool",
        "in": {"é": "string", "fine": "image/png", "x": "text/html"},
    }
    assert schema_entries(schema) == ["ok:bool", "in.fine:image/png"]


@pytest.mark.parametrize("case", load_cases("datasets/media_types.json"), ids=lambda case: case["name"])
def test_media_types_are_the_reference_clients(case: dict[str, str]) -> None:
    assert detect_media_type(base64.b64decode(case["head"])[:HEAD_SIZE]) == case["type"]


@given(st.binary(max_size=HEAD_SIZE))
def test_any_head_has_a_media_type_that_is_indexed(head: bytes) -> None:
    assert detect_media_type(head) in INDEXED_TYPES


@pytest.mark.parametrize("key", ["a", "A-z_0", "-", "0"])
def test_good_names_pass(key: str) -> None:
    assert verify_key(key) == key


@pytest.mark.parametrize("key", ["a.b", "a/b", " ", "é", "a\n", "a\0", "\u0660", "${x}"])
def test_other_names_are_refused_in_the_reference_words(key: str) -> None:
    with pytest.raises(InputError, match="data is not valid: Unsupported special character in key"):
        verify_key(key)


def test_empty_and_foreign_names_are_refused() -> None:
    with pytest.raises(InputError, match="Unsupported empty key"):
        verify_key("")
    with pytest.raises(InputError, match="names are strings"):
        verify_key(5)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        '"x"',
        "{",
        '{"a":1}',
        '{"a":null}',
        '{"a":["x"]}',
        '{"a":"b"}x',
        '{"a":"b","a":"c"}',
        '{"a":{"b":{}},"c":true}',
    ],
)
def test_what_is_no_schema_is_refused(text: str) -> None:
    with pytest.raises(DecodeError):
        parse_schema(text)


@pytest.mark.parametrize("text", ['{"a":' * 100_000, "[" * 100_000, '{"a":' * 65 + '"x"' + "}" * 65])
def test_deep_nesting_is_refused_in_bounded_time(text: str) -> None:
    with pytest.raises(DecodeError, match="deeper"):
        parse_schema(text)


def test_brackets_in_names_are_no_nesting() -> None:
    schema = {"{" * 100: "string", '\\"[': "f64"}
    assert parse_schema(json.dumps(schema)) == schema


def test_a_long_text_is_refused() -> None:
    with pytest.raises(TooLarge):
        parse_schema(" " * ((1 << 20) + 1))


def test_leaves_refuse_deep_nesting() -> None:
    schema: dict[str, Any] = {"a": "bool"}
    for _ in range(70):
        schema = {"a": schema}
    with pytest.raises(InputError):
        list(schema_leaves(schema))


def test_file_names_become_schema_names() -> None:
    assert schema_name("table.parquet") == "table"
    assert schema_name("my photo.jpg") == "my_photo_jpg"
    assert schema_name(".parquet") == "_parquet"
