"""datasets.packing and files: what the owner has becomes an archive and a schema."""

from __future__ import annotations

import base64
import io
import json
import math
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.vectors.loading import load_cases

from cloister.datasets.archive import Archive
from cloister.datasets.packing import MAX_FOLDER_SCHEMA, Packed, pack
from cloister.datasets.reader import ProtectedDataReader
from cloister.datasets.values import I128_MAX, I128_MIN, parse_value
from cloister.errors import InputError, NotFound

NAMES = st.text(alphabet="abcXYZ019-_", min_size=1, max_size=6)
LEAVES = st.one_of(
    st.booleans(),
    st.integers(I128_MIN, I128_MAX),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    st.binary(max_size=40),
)
OBJECTS = st.dictionaries(
    NAMES, st.recursive(LEAVES, lambda inner: st.dictionaries(NAMES, inner, max_size=3), max_leaves=8), max_size=4
)


def build(packed: Packed) -> bytes:
    built = b"".join(packed.chunks)
    assert len(built) == packed.size
    return built


def archive(value: object, **options: Any) -> Archive:
    return Archive(io.BytesIO(build(pack(value, **options))))


def leaves(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, item in value.items():
        found.update(leaves(item, f"{prefix}{key}/") if isinstance(item, dict) else {prefix + key: item})
    return found


@given(OBJECTS)
@settings(deadline=None)
def test_reads_what_it_packs(tmp_path_factory: pytest.TempPathFactory, value: dict[str, Any]) -> None:
    if not leaves(value):
        with pytest.raises(InputError, match="nothing in it"):
            pack(value)
        return
    packed = pack(value)
    built = build(packed)
    assert built == build(packed) == build(pack(value))
    path = tmp_path_factory.mktemp("packed") / "data.zip"
    path.write_bytes(built)
    with ProtectedDataReader(path) as reader:
        assert reader.schema == packed.schema == json.loads(packed.schema_json)
        for name, item in leaves(value).items():
            assert reader.read(name) == item
            assert reader.read(name.replace("/", ".")) == item
            assert type(reader.read(name)) is type(item)


@pytest.mark.parametrize("case", load_cases("datasets/dataprotector_archives.json"))
def test_packs_what_the_reference_client_packs(case: dict[str, Any]) -> None:
    value: dict[str, Any] = {}
    convert = {
        "string": str,
        "number": float,
        "bigint": int,
        "boolean": lambda text: text == "true",
        "bytes": base64.b64decode,
    }
    for item in case["values"]:
        *folders, name = item["path"].split(".")
        place = value
        for folder in folders:
            place = place.setdefault(folder, {})
        place[name] = convert[item["kind"]](item["value"])
    packed = pack(value)
    assert packed.schema == json.loads(case["schema"])
    mine, theirs = (
        zipfile.ZipFile(io.BytesIO(build(packed))),
        zipfile.ZipFile(io.BytesIO(base64.b64decode(case["archive"]))),
    )
    assert sorted(mine.namelist()) == sorted(theirs.namelist())
    for name in theirs.namelist():
        assert mine.read(name) == theirs.read(name)
    assert {info.compress_type for info in theirs.infolist()} == {zipfile.ZIP_STORED}


class Odd:
    """Something that is no data."""


REFUSED: dict[str, Any] = {
    "empty key": {"": 1},
    "special character": {"a.b": 1},
    "space": {"a b": 1},
    "accent": {"é": 1},
    "nested special character": {"a": {"b/c": 1}},
    "null": {"a": None},
    "array": {"a": [1]},
    "function": {"a": lambda: 1},
    "infinity": {"a": math.inf},
    "minus infinity": {"a": -math.inf},
    "not a number": {"a": math.nan},
    "under i128": {"a": -(2**127) - 1},
}


@pytest.mark.parametrize("case", load_cases("datasets/dataprotector_refusals.json"), ids=lambda case: case["name"])
def test_refuses_in_the_reference_words(case: dict[str, str | None]) -> None:
    name = str(case["name"])
    if name not in REFUSED:
        assert name in ("undefined", "over i128", "empty object")  # no such value here; refused here, accepted there
        return
    with pytest.raises(InputError) as refusal:
        pack(REFUSED[name])
    assert str(refusal.value) == f"data is not valid: {case['message']}"


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"a": {}},
        None,
        [1],
        5,
        "text",
        Odd(),
        {"a": Odd()},
        {"a": Odd},
        {"a": (1,)},
        {"a": {1, 2}},
        {"a": 2**127},
        {1: "x"},
        {"a": np.array([1, 2])},
        {"a": pd.Series([1])},
        {"a": 1j},
        {"a": np.datetime64("2026-01-01")},
    ],
)
def test_refuses_what_it_cannot_pack(value: object) -> None:
    with pytest.raises(InputError, match="data is not valid"):
        pack(value)


def test_refuses_deep_and_endless_nesting() -> None:
    endless: dict[str, Any] = {}
    endless["again"] = endless
    with pytest.raises(InputError, match="deeper than 64"):
        pack(endless)


def test_numpy_scalars_are_what_they_stand_for() -> None:
    value = {
        "i": np.int64(-7),
        "u": np.uint64(2**64 - 1),
        "f": np.float32(0.5),
        "d": np.float64(0.1),
        "b": np.bool_(True),
    }
    packed = pack({**value, "s": np.str_("x"), "y": np.bytes_(b"x")})
    assert packed.schema_json == (
        '{"i":"i128","u":"i128","f":"f64","d":"f64","b":"bool","s":"string","y":"application/octet-stream"}'
    )
    entries = Archive(io.BytesIO(build(packed)))
    read = {name: parse_value(entries.member(name).comment, entries.read(name)) for name in entries.names()}
    assert read == {"i": -7, "u": 2**64 - 1, "f": 0.5, "d": 0.1, "b": True, "s": "x", "y": b"x"}


@pytest.mark.parametrize(
    "value", [b"\x89PNG\r\n\x1a\n..", bytearray(b"\x89PNG\r\n\x1a\n.."), memoryview(b"\x89PNG\r\n\x1a\n..")]
)
def test_bytes_stand_alone_or_in_a_dict(value: bytes) -> None:
    assert pack(value).schema == {"data": "image/png"}
    assert archive(value, name="photo").read("photo") == bytes(value)
    assert archive({"a": value}).read("a") == bytes(value)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "b" / "empty").mkdir(parents=True)
    (tmp_path / "b" / "table.csv").write_text("x,y\n1,2\n")
    (tmp_path / "My Photo.png").write_bytes(b"\x89PNG\r\n\x1a\n12345")
    (tmp_path / "é").write_bytes(b"")
    (tmp_path / "large.bin").write_bytes(bytes(3_000_000))
    return tmp_path


def test_a_folder_keeps_its_names_and_order(folder: Path) -> None:
    packed = pack(folder)
    assert packed.schema == {
        "My_Photo_png": "image/png",
        "b": {"empty": {}, "table_csv": "application/octet-stream"},
        "large_bin": "application/octet-stream",
        "_": "application/octet-stream",
    }
    entries = Archive(io.BytesIO(build(packed)))
    assert [m.path for m in entries.members] == ["My Photo.png", "b/", "b/empty/", "b/table.csv", "large.bin", "é"]
    assert entries.read("large.bin") == bytes(3_000_000)


def test_a_file_stands_alone_or_in_a_dict(folder: Path) -> None:
    photo = folder / "My Photo.png"
    assert archive(photo).names() == ["My Photo.png"]
    assert pack(photo).schema == {"My_Photo_png": "image/png"}
    assert pack({"photo": photo, "b": folder / "b"}).schema == {
        "photo": "image/png",
        "b": {"empty": {}, "table_csv": "application/octet-stream"},
    }
    assert archive({"photo": photo}).read("photo") == photo.read_bytes()
    assert archive({"in": {"b": folder / "b"}}).names() == ["in/b/table.csv"]


def test_a_large_folder_has_a_short_schema(tmp_path: Path) -> None:
    for number in range(300):
        (tmp_path / f"part{number % 3}" / str(number)).mkdir(parents=True)
        (tmp_path / f"part{number % 3}" / str(number) / "x").write_bytes(b"x")
    packed = pack(tmp_path)
    assert packed.schema == {f"part{number}": "application/octet-stream" for number in range(3)}
    assert len(archive({"a": tmp_path}).names()) == 300
    assert pack({"a": tmp_path}).schema == {"a": "application/octet-stream"}


def test_a_flat_large_folder_is_one_schema_entry(tmp_path: Path) -> None:
    for number in range(300):
        (tmp_path / f"file-number-{number}").write_bytes(b"x")
    assert pack(tmp_path, name="photos").schema == {"photos": "application/octet-stream"}
    assert len(pack(tmp_path).schema_json) < MAX_FOLDER_SCHEMA


@pytest.mark.parametrize("kind", ["link", "dangling", "folder link", "fifo"])
def test_links_and_devices_in_a_folder_are_refused(tmp_path: Path, kind: str) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "secret").write_text("secret")
    match kind:
        case "link":
            (inside / "a").symlink_to(tmp_path / "secret")
        case "dangling":
            (inside / "a").symlink_to("nowhere")
        case "folder link":
            (inside / "a").symlink_to(tmp_path)
        case _:
            os.mkfifo(inside / "a")
    with pytest.raises(InputError, match=r"symbolic link|not a regular file"):
        pack(inside)


def test_missing_files_and_devices_are_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        pack(tmp_path / "none")
    with pytest.raises(NotFound):
        pack({"a": tmp_path / "none"})
    with pytest.raises(InputError, match="regular file"):
        pack(Path("/dev/null"))
    with pytest.raises(InputError, match="nothing in it"):
        pack(tmp_path)


@pytest.mark.parametrize("size", [0, 5, 2_000_000])
def test_a_file_that_changes_after_it_was_looked_at_is_refused(tmp_path: Path, size: int) -> None:
    path = tmp_path / "a"
    path.write_bytes(bytes(1000))
    packed = pack(path)
    path.write_bytes(bytes(size))
    with pytest.raises(InputError, match="changed while it was read"):
        list(packed.chunks)
    path.unlink()
    with pytest.raises(InputError, match="cannot be read"):
        list(packed.chunks)


def test_a_folder_nested_too_deep_is_refused(tmp_path: Path) -> None:
    (tmp_path / "/".join("a" * 70)).mkdir(parents=True)
    with pytest.raises(InputError, match="deeper than 64"):
        pack(tmp_path)


def test_a_name_that_no_reader_takes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a\\b").write_bytes(b"x")
    with pytest.raises(InputError, match="backslash"):
        pack(tmp_path)


FRAME = pd.DataFrame({"x": [1, 2, 3], "name": ["a", "b", None], "t": pd.to_datetime(["2026-01-01"] * 3)})


@pytest.mark.parametrize("table", [FRAME, pa.Table.from_pandas(FRAME)], ids=["pandas", "pyarrow"])
def test_tables_become_parquet(tmp_path: Path, table: Any) -> None:
    assert pack(table).schema == {"data": "application/octet-stream"}
    packed = pack({"in": {"table": table}, "n": 1})
    assert packed.schema == {"in": {"table": "application/octet-stream"}, "n": "i128"}
    built = build(packed)
    assert built == build(pack({"in": {"table": table}, "n": 1}))
    (tmp_path / "data.zip").write_bytes(built)
    with ProtectedDataReader(tmp_path / "data.zip") as reader:
        assert [e.path for e in reader.entries()] == ["in/table.parquet", "n"]
        for path in ("in.table", "in/table", "in/table.parquet"):
            pd.testing.assert_frame_equal(reader.dataframe(path), FRAME)


def test_a_table_that_parquet_cannot_hold_is_refused() -> None:
    with pytest.raises(InputError, match="Parquet"):
        pack(pd.DataFrame({"x": [1, object()]}))


def test_packing_a_dict_imports_neither_pandas_nor_numpy() -> None:
    code = (
        "import sys; from cloister.datasets.packing import pack; b''.join(pack({'a': 1, 'b': b'x'}).chunks);"
        "from cloister.datasets.reader import ProtectedDataReader;"
        "top = {name.partition('.')[0] for name in sys.modules};"
        "foreign = top - set(sys.stdlib_module_names) - {'cloister', '__main__'};"
        "sys.exit(' '.join(sorted(name for name in foreign if not name.startswith('_'))) or None)"
    )
    source = Path(__file__).parents[3] / "src"
    command = [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {str(source)!r}); {code}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
