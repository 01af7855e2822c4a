"""datasets.reader: what an iApp reads."""

from __future__ import annotations

import base64
import io
import zipfile
from pathlib import Path
from typing import Any

import pytest
from tests.vectors.loading import load_cases

from cloister.datasets.packing import pack
from cloister.datasets.reader import DataEntry, ProtectedDataReader, find_protected_data, load_bulk
from cloister.errors import DecodeError, InputError, NotFound
from cloister.sealing.iexec import open_cbc

TYPES = {"string": "string", "number": "f64", "bigint": "i128", "boolean": "bool", "bytes": "application/octet-stream"}
CONVERT = {
    "string": str,
    "number": float,
    "bigint": int,
    "boolean": lambda text: text == "true",
    "bytes": base64.b64decode,
}


@pytest.fixture
def data(tmp_path: Path) -> ProtectedDataReader:
    (tmp_path / "file.csv").write_text("x,y\n1,2\n")
    value = {
        "user": {"email": "a@b.c", "age": 42},
        "score": 0.5,
        "ok": True,
        "raw": b"GIF89a...",
        "csv": tmp_path / "file.csv",
    }
    path = tmp_path / "data.zip"
    path.write_bytes(b"".join(pack(value).chunks))
    return ProtectedDataReader(path)


@pytest.mark.parametrize("case", load_cases("datasets/dataprotector_archives.json"))
def test_reads_what_the_reference_client_packed_and_encrypted(tmp_path: Path, case: dict[str, Any]) -> None:
    path = tmp_path / "0xdata"
    opened = b"".join(open_cbc(base64.b64decode(case["key"]), [base64.b64decode(case["encrypted"])]))
    assert opened == base64.b64decode(case["archive"])
    path.write_bytes(opened)
    with ProtectedDataReader(path) as reader:
        for item in case["values"]:
            expected = CONVERT[item["kind"]](item["value"])
            found = reader.read(item["path"], TYPES[item["kind"]])
            assert found == expected
            assert type(found) is type(expected)
            if item["kind"] in ("string", "bytes"):
                assert reader.read(item["path"]) == expected


def test_values_have_the_types_that_the_owner_gave(data: ProtectedDataReader) -> None:
    assert data.read("user.email") == "a@b.c"
    assert data.read("user/age") == 42
    assert data.read("score") == 0.5
    assert data.read("ok") is True
    assert data.read("raw") == b"GIF89a..."
    assert data.read_bytes("ok") == b"\x01"
    assert data.entries()[0] == DataEntry("user/email", "string", 9)
    assert data.schema == {
        "user": {"email": "string", "age": "i128"},
        "score": "f64",
        "ok": "bool",
        "raw": "image/gif",
        "csv": "application/octet-stream",
    }


@pytest.mark.parametrize(
    ("path", "kind"), [("score", "number"), ("ok", "boolean"), ("csv", "string"), ("raw", "image/png")]
)
def test_types_that_mean_the_same_are_accepted(data: ProtectedDataReader, path: str, kind: str) -> None:
    assert data.read(path, kind) in (0.5, True, "x,y\n1,2\n", b"GIF89a...")


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("user.age", "f64"),
        ("score", "i128"),
        ("score", "string"),
        ("ok", "i128"),
        ("user.email", "image/png"),
        ("raw", "i128"),
        ("raw", "bool"),
    ],
)
def test_another_type_than_the_owner_gave_is_refused(data: ProtectedDataReader, path: str, kind: str) -> None:
    with pytest.raises(DecodeError, match="is of type"):
        data.read(path, kind)


def test_the_schema_says_i128_and_the_content_is_float(tmp_path: Path) -> None:
    made = tmp_path / "a.zip"
    with zipfile.ZipFile(made, "w") as other:
        info = zipfile.ZipInfo("age")
        info.comment = b"i128"
        other.writestr(info, bytes(8))
        other.writestr("bare", bytes(8))
    reader = ProtectedDataReader(made)
    for path, kind in (("age", None), ("age", "i128"), ("bare", "i128"), ("bare", "bool")):
        with pytest.raises(DecodeError):
            reader.read(path, kind)
    assert reader.read("bare") == bytes(8)
    with pytest.raises(InputError, match="unknown type"):
        reader.read("bare", "u8")


def test_what_is_not_there_is_named_with_what_is(data: ProtectedDataReader) -> None:
    with pytest.raises(NotFound) as refusal:
        data.read("user.phone")
    assert "user.phone" in str(refusal.value)
    assert "user/email" in str(refusal.value.hint)
    with pytest.raises(NotFound):
        data.read("user")


def test_large_entries_are_files(data: ProtectedDataReader) -> None:
    with data.open("csv") as stream:
        assert stream.readline() == b"x,y\n"
        stream.seek(0)
        assert io.TextIOWrapper(stream).read() == "x,y\n1,2\n"


def test_a_name_for_two_entries_must_be_given_in_full(tmp_path: Path) -> None:
    for name in ("a b", "a.b"):
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / name).write_bytes(name.encode())
    made = tmp_path / "data.zip"
    made.write_bytes(b"".join(pack(tmp_path / "in").chunks))
    reader = ProtectedDataReader(made)
    assert reader.read("a b") == b"a b"
    assert reader.read("a.b") == b"a.b"
    with pytest.raises(InputError, match="more than one"):
        reader.read("a_b")


def test_csv_files_are_tables_and_text_is_not(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("x,y\n1,2\n")
    (tmp_path / "t.txt").write_text("x,y\n")
    (tmp_path / "bad.bin").write_bytes(b"PAR1 and nothing more")
    made = tmp_path / "data.zip"
    made.write_bytes(b"".join(pack(tmp_path).chunks))
    with ProtectedDataReader(made) as reader:
        assert reader.dataframe("t_csv").to_dict("list") == {"x": [1], "y": [2]}
        for path in ("t.txt", "bad.bin"):
            with pytest.raises(DecodeError):
                reader.dataframe(path)


def test_untyped_archives_tell_strings_and_media_types(tmp_path: Path) -> None:
    made = tmp_path / "a.zip"
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as other:
        other.writestr("s", b"\x05\0\0\0hello")
        other.writestr("n", bytes(8))
        other.writestr("p/img", b"\x89PNG\r\n\x1a\n")
    reader = ProtectedDataReader(made)
    assert reader.schema == {"s": "string", "n": "application/octet-stream", "p": {"img": "image/png"}}
    assert reader.read("s") == "hello"
    assert reader.read("p.img") == b"\x89PNG\r\n\x1a\n"
    with reader.open("s") as stream:
        assert stream.read() == b"\x05\0\0\0hello"


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"plain text")
    with pytest.raises(DecodeError, match="not a zip archive"):
        ProtectedDataReader(tmp_path / "a")
    with pytest.raises(NotFound, match="missing protected data"):
        ProtectedDataReader(tmp_path / "none")


def test_the_environment_names_the_file(tmp_path: Path) -> None:
    packed = b"".join(pack({"a": 1}).chunks)
    (tmp_path / "0xabc").write_bytes(packed)
    environment = {"IEXEC_IN": str(tmp_path), "IEXEC_DATASET_FILENAME": "0xabc"}
    assert ProtectedDataReader(environment=environment).read("a") == 1
    for missing in (
        {},
        {"IEXEC_IN": "/in"},
        {"IEXEC_DATASET_FILENAME": "x"},
        {"IEXEC_IN": "/in", "IEXEC_DATASET_FILENAME": ""},
    ):
        with pytest.raises(NotFound, match="missing protected data"):
            find_protected_data(missing)


def test_a_bulk_has_a_reader_for_every_item(tmp_path: Path) -> None:
    environment = {"IEXEC_IN": str(tmp_path), "IEXEC_BULK_SLICE_SIZE": "3"}
    for number in (1, 2, 3):
        (tmp_path / f"0x{number}").write_bytes(b"".join(pack({"a": number}).chunks))
        environment[f"IEXEC_DATASET_{number}_FILENAME"] = f"0x{number}"
    assert [reader.read("a") for reader in load_bulk(environment)] == [1, 2, 3]
    assert load_bulk({}) == []
    with pytest.raises(InputError):
        load_bulk({"IEXEC_BULK_SLICE_SIZE": "x"})
