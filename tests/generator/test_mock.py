"""Mocks keep names, types and shapes, are the same for the same seed, and hold nothing of the real thing."""

from __future__ import annotations

import csv
import io
import json
import string
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloister.datasets.packing import pack
from cloister.datasets.reader import ProtectedDataReader
from cloister.datasets.schema import MEDIA_TYPES, VALUE_TYPES, build_schema, detect_media_type
from cloister.errors import CloisterError, Conflict, InputError, NotFound
from cloister.generator.mock import (
    Mock,
    Table,
    Wish,
    mock_path,
    mock_schema,
    mock_value,
    parse_fields,
    write_mock,
)
from cloister.generator.mock.media import BUILDERS, build_media
from cloister.generator.mock.tables import TYPES, parse_columns
from cloister.generator.mock.values import Inventor

NAMES = st.text(string.ascii_letters + string.digits + "-_", min_size=1, max_size=12)
KINDS = st.sampled_from(sorted(VALUE_TYPES | MEDIA_TYPES))
SCHEMAS = st.recursive(
    st.dictionaries(NAMES, KINDS, min_size=1, max_size=5),
    lambda inner: st.dictionaries(NAMES, inner | KINDS, min_size=1, max_size=4),
    max_leaves=12,
)


@given(SCHEMAS, st.integers(0, 1 << 40))
@settings(max_examples=40, deadline=None)
def test_a_mock_of_a_schema_packs_to_that_schema(schema: dict[str, Any], seed: int) -> None:
    value = mock_value(schema, seed=seed)
    assert build_schema(pack(value).schema) == build_schema(schema)
    assert mock_value(schema, seed=seed) == value


@given(SCHEMAS, st.integers(0, 99))
@settings(max_examples=15, deadline=None)
def test_what_is_written_reads_back_with_that_schema_and_the_same_seed_gives_the_same_bytes(
    tmp_path_factory: pytest.TempPathFactory, schema: dict[str, Any], seed: int
) -> None:
    mock = mock_schema(schema, "data", Wish(seed))
    assert mock_schema(schema, "data", Wish(seed)) == mock
    folder = tmp_path_factory.mktemp("mock")
    (path,) = write_mock(mock, folder, replace=False)
    if path.suffix == ".json":
        assert pack(json.loads(path.read_text())).schema == schema
    else:
        with ProtectedDataReader(path) as data:
            assert data.schema == schema


def test_every_seed_has_its_own_values() -> None:
    schema = {"name": "string", "age": "i128", "score": "f64", "photo": "image/png"}
    assert len({json.dumps(mock_value(schema, seed=seed), default=bytes.hex) for seed in range(20)}) == 20


def test_types_of_older_releases_become_those_of_today() -> None:
    assert pack(mock_value({"a": "boolean", "b": "number"})).schema == {"a": "bool", "b": "f64"}


@pytest.mark.parametrize("media_type", sorted(MEDIA_TYPES))
def test_a_file_of_each_media_type_is_known_as_one(media_type: str) -> None:
    content = build_media(media_type, Inventor(7))
    assert detect_media_type(content[:16]) == media_type
    assert len(content) < 4096
    assert set(BUILDERS) == MEDIA_TYPES


def test_files_are_whole() -> None:
    png = build_media("image/png", Inventor(1))
    place, kinds = 8, []
    while place < len(png):
        size = struct.unpack_from(">I", png, place)[0]
        body = png[place + 4 : place + 8 + size]
        assert struct.unpack_from(">I", png, place + 8 + size)[0] == zlib.crc32(body)
        kinds.append(body[:4])
        place += 12 + size
    assert kinds == [b"IHDR", b"IDAT", b"IEND"]
    with zipfile.ZipFile(io.BytesIO(build_media("application/zip", Inventor(1)))) as archive:
        assert archive.testzip() is None
    for riff in ("audio/x-wav", "image/webp", "video/x-msvideo"):
        content = build_media(riff, Inventor(1))
        assert struct.unpack_from("<I", content, 4)[0] == len(content) - 8
    pdf = build_media("application/pdf", Inventor(1))
    start = int(pdf.rsplit(b"startxref\n", 1)[1].split(b"\n")[0])
    assert pdf[start:].startswith(b"xref")
    for number, line in enumerate(pdf[start:].splitlines()[3:8], 1):
        assert pdf[int(line[:10]) :].startswith(b"%d 0 obj" % number)
    box = build_media("video/mp4", Inventor(1))
    assert struct.unpack_from(">I", box, 0)[0] + struct.unpack_from(">I", box, 24)[0] == len(box)


REAL = [("Xanthippe Quill", 77_123, "12345.678", "true"), ("Yngwie Zork", 88_456, "98765.432", "false")] * 6


def _real_csv(folder: Path) -> Path:
    path = folder / "people.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file, delimiter=";")
        writer.writerow(("name", "salary", "score", "member"))
        writer.writerows(REAL)
    return path


def test_a_csv_keeps_names_types_and_row_count_and_no_value(tmp_path: Path) -> None:
    content = mock_path(_real_csv(tmp_path), Wish(3)).files["people.csv"].decode()
    rows = list(csv.reader(content.splitlines(), delimiter=";"))
    assert rows[0] == ["name", "salary", "score", "member"]
    assert len(rows) == 1 + len(REAL)
    for name, salary, score, member in rows[1:]:
        assert not name.isdigit()
        assert str(int(salary)) == salary
        assert str(float(score)) == score
        assert member in ("true", "false")
    for real in REAL:
        assert not any(str(cell) in content for cell in real[:3])


def test_categories_are_taken_only_when_they_are_asked_for(tmp_path: Path) -> None:
    content = mock_path(_real_csv(tmp_path), Wish(3, rows=50, categories=True)).files["people.csv"].decode()
    names = {row[0] for row in csv.reader(content.splitlines()[1:], delimiter=";")}
    assert names <= {"Xanthippe Quill", "Yngwie Zork"}


def test_a_first_line_of_data_is_not_taken_for_names(tmp_path: Path) -> None:
    path = tmp_path / "plain.csv"
    path.write_text("Secretive Person,41\nAnother One,42\n")
    content = mock_path(path, Wish()).files["plain.csv"].decode()
    assert len(content.splitlines()) == 2
    assert "Secretive" not in content
    path.write_text("Secretive,Person\nAnother,One\n")
    assert "Secretive" not in mock_path(path, Wish(header=False)).files["plain.csv"].decode()


def test_a_real_object_keeps_its_keys_and_no_value(tmp_path: Path) -> None:
    real = {"name": "Xanthippe", "diagnosis": {"code": "Q99.9", "since": 2019, "sure": True, "share": 0.731}}
    path = tmp_path / "patient.json"
    path.write_text(json.dumps(real))
    content = mock_path(path, Wish(5)).files["patient.json"].decode()
    assert pack(json.loads(content)).schema == pack(real).schema
    assert "Xanthippe" not in content
    assert "Q99.9" not in content
    assert "0.731" not in content


def test_a_folder_keeps_its_names_and_kinds_and_no_content(tmp_path: Path) -> None:
    folder = tmp_path / "records"
    (folder / "scans").mkdir(parents=True)
    (folder / "notes.txt").write_text("Xanthippe is ill")
    (folder / "list.json").write_text('[{"who": "Xanthippe", "when": [1, 2]}]')
    (folder / "scans" / "a.bin").write_bytes(b"Xanthippe" * 1000)
    (folder / "scans" / "b.png").write_bytes(build_media("image/png", Inventor(99)))
    _real_csv(folder)
    mock = mock_path(folder, Wish())
    assert set(mock.files) == {f"records/{path.relative_to(folder)}" for path in folder.rglob("*") if path.is_file()}
    assert not any(b"Xanthippe" in content for content in mock.files.values())
    assert mock.files["records/scans/b.png"] != (folder / "scans" / "b.png").read_bytes()
    write_mock(mock, tmp_path / "mock", replace=False)
    assert pack(tmp_path / "mock" / "records").schema == pack(folder).schema
    (folder / "link").symlink_to("notes.txt")
    with pytest.raises(InputError, match="no plain file"):
        mock_path(folder, Wish())


def test_packed_data_keeps_names_types_and_no_value(tmp_path: Path) -> None:
    real = {"who": "Xanthippe", "n": {"age": 77_123, "ok": True}, "blob": b"Xanthippe" * 10}
    path = tmp_path / "packed.zip"
    path.write_bytes(b"".join(pack(real).chunks))
    mock = mock_path(path, Wish())
    assert b"Xanthippe" not in mock.files["packed.zip"]
    (written,) = write_mock(mock, tmp_path / "mock", replace=False)
    with ProtectedDataReader(path) as before, ProtectedDataReader(written) as after:
        assert after.schema == before.schema
        assert after.read("n.age") != 77_123


def test_tables_have_every_type_and_pack_as_tables() -> None:
    pytest.importorskip("pyarrow")
    value = mock_value({"all": Table({kind: kind for kind in TYPES}), "email": "string"}, rows=9)
    assert value["all"].num_rows == 9
    assert value["all"].column_names == list(TYPES)
    assert pack(value).schema == {"all": "application/octet-stream", "email": "string"}


def test_a_parquet_file_keeps_columns_types_and_row_count_and_no_value(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    columns = {
        "name": pa.array(["Xanthippe", "Yngwie", None]),
        "n": pa.array([77_123, 88_456, 99_789], pa.int32()),
        "small": pa.array([201, 202, 203], pa.uint8()),
        "kind": pa.array(["Zork", "Zork", "Quill"]).dictionary_encode(),
        "tags": pa.array([["Zork"], [], ["Quill"]]),
        "place": pa.array([{"lat": 77.123}] * 3),
        "amount": pa.array([1, 2, 3], pa.decimal128(10, 2)),
        "at": pa.array([0, 1, 2], pa.timestamp("ms", tz="UTC")),
    }
    table = pa.table(columns).replace_schema_metadata({"pandas": "Xanthippe"})
    path = tmp_path / "t.parquet"
    pq.write_table(table, path)
    content = mock_path(path, Wish()).files["t.parquet"]
    mocked = pq.read_table(io.BytesIO(content))
    assert mocked.schema.remove_metadata() == table.schema.remove_metadata()
    assert mocked.num_rows == 3
    assert all(word not in content for word in (b"Xanthippe", b"Yngwie", b"Zork", b"Quill"))
    assert not set(mocked["n"].to_pylist()) & set(table["n"].to_pylist())
    path.write_bytes(b"PAR1 Xanthippe")
    with pytest.raises(InputError) as refused:
        mock_path(path, Wish())
    assert "Xanthippe" not in refused.value.message


@pytest.mark.parametrize(
    ("fields", "columns", "problem"),
    [
        (("email",), "", "is no field"),
        (("a=text",), "", "there is no type text"),
        (("a b=string",), "", "special character"),
        (("a=string", "a=bool"), "", "twice"),
        (("a=string", "a.b=bool"), "", "both a value and a folder"),
        ((), "age", "is no column"),
        ((), "age=int99", "there is no type int99"),
        ((), "a=bool,a=bool", "twice"),
    ],
)
def test_what_cannot_be_mocked_is_refused_by_name(fields: tuple[str, ...], columns: str, problem: str) -> None:
    with pytest.raises(CloisterError, match=problem):
        mock_value(parse_fields(fields, (("t", parse_columns(columns)),) if columns else ()))


def test_a_file_that_is_there_stays(tmp_path: Path) -> None:
    mock = Mock("a.json", {"a.json": b"{}"})
    write_mock(mock, tmp_path, replace=False)
    write_mock(mock, tmp_path, replace=False)
    with pytest.raises(Conflict, match="is there already"):
        write_mock(Mock("a.json", {"a.json": b"[]"}), tmp_path, replace=False)
    assert (tmp_path / "a.json").read_bytes() == b"{}"
    write_mock(Mock("a.json", {"a.json": b"[]"}), tmp_path, replace=True)
    assert (tmp_path / "a.json").read_bytes() == b"[]"
    with pytest.raises(NotFound):
        mock_path(tmp_path / "nowhere", Wish())
