"""What an iApp leaves: files, the word on which of them counts, callback data, pictures."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy
import pandas
import pyarrow
import pytest

from cloister import iapp
from cloister.enclave import outputs as enclave
from cloister.errors import CloisterError, InputError, NotFound, TooLarge
from cloister.iapp import outputs

Inside = Callable[..., Path]


def computed(folder: Path) -> object:
    return json.loads((folder / "computed.json").read_bytes())


def test_limits_are_those_of_the_enclave() -> None:
    assert (outputs.MAX_NAME, outputs.MAX_DEPTH, outputs.MAX_CALLBACK) == (
        enclave.MAX_NAME,
        enclave.MAX_DEPTH,
        enclave.MAX_CALLBACK,
    )
    assert (outputs.COMPUTED_NAME, outputs.RECEIPT_NAME) == (enclave.COMPUTED_NAME, enclave.RECEIPT_NAME)


def test_the_first_file_counts_until_another_is_named(inside: Inside) -> None:
    out = inside()
    assert iapp.write("hello.txt", "hé") == out / "hello.txt"
    assert (out / "hello.txt").read_bytes() == "hé".encode()
    assert computed(out) == {"deterministic-output-path": f"{out}/hello.txt"}
    iapp.write("sub/raw", b"\0\1")
    assert computed(out) == {"deterministic-output-path": f"{out}/hello.txt"}
    iapp.deterministic("sub")
    iapp.write("hello.txt", "again")
    assert computed(out) == {"deterministic-output-path": f"{out}/sub"}
    assert sorted(p.name for p in out.rglob("*")) == ["computed.json", "hello.txt", "raw", "sub"]
    assert (out / "hello.txt").read_text() == "again"


def test_a_computed_file_of_the_iapps_own_is_kept(inside: Inside) -> None:
    out = inside()
    (out / "computed.json").write_text('{"deterministic-output-path": "/iexec_out/mine", "more": 1}')
    iapp.write("x", "1")
    iapp.callback(b"\1")
    assert computed(out) == {"deterministic-output-path": "/iexec_out/mine", "more": 1, "callback-data": "0x01"}
    (out / "computed.json").write_text("[]")
    with pytest.raises(InputError, match=r"computed\.json is there already and is not a JSON object"):
        iapp.write("x", "1")


@dataclass
class Row:
    name: str
    scores: numpy.ndarray


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"b": 1, "a": [True, None, 0.5]}, '{\n "a": [\n  true,\n  null,\n  0.5\n ],\n "b": 1\n}'),
        (Row("é", numpy.array([1, 2])), '{\n "name": "é",\n "scores": [\n  1,\n  2\n ]\n}'),
        ({"n": numpy.float32(0.5), "d": datetime.date(2026, 1, 2)}, '{\n "d": "2026-01-02",\n "n": 0.5\n}'),
        ({"s": {3, 1, 2}, "p": Path("a/b")}, '{\n "p": "a/b",\n "s": [\n  1,\n  2,\n  3\n ]\n}'),
        (pandas.Series([1, 2]), "[\n 1,\n 2\n]"),
        (7, "7"),
    ],
)
def test_what_is_neither_text_nor_bytes_is_json(inside: Inside, value: object, text: str) -> None:
    inside()
    assert iapp.write("x.json", value).read_text() == text


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ({"x": float("nan")}, "it holds NaN or an infinity"),
        ({"x": object()}, "a value of type object has no form in JSON"),
        ({"x": b"raw"}, "a value of type bytes has no form in JSON"),
        ({1: 1, "a": 2}, "'<' not supported between instances"),
    ],
)
def test_what_json_has_no_form_for(inside: Inside, value: object, why: str) -> None:
    out = inside()
    with pytest.raises(InputError, match=f"x.json cannot be JSON: {why}"):
        iapp.write("x.json", value)
    assert list(out.iterdir()) == []


def test_json_that_holds_itself(inside: Inside) -> None:
    inside()
    value: list[object] = []
    value.append(value)
    with pytest.raises(InputError, match="cannot be JSON: it holds itself"):
        iapp.write("x.json", value)


def test_tables(inside: Inside) -> None:
    inside()
    table = pandas.DataFrame({"a": [1, 2], "b": ["x", "y"]})
    assert iapp.write("t.csv", table).read_text() == "a,b\n1,x\n2,y\n"
    assert iapp.write("t.csv", table.set_index("b")).read_text() == "b,a\nx,1\ny,2\n"
    path = iapp.write("t.parquet", table)
    pandas.testing.assert_frame_equal(pandas.read_parquet(path), table)
    first = path.read_bytes()
    assert iapp.write("t.parquet", pandas.DataFrame(table)).read_bytes() == first
    arrow = pyarrow.table({"a": [1, 2]})
    assert iapp.write("t.csv", arrow).read_text() == '"a"\n1\n2\n'
    assert pandas.read_parquet(iapp.write("u.parquet", arrow))["a"].tolist() == [1, 2]
    with pytest.raises(InputError, match=r"a table is written as \.csv or \.parquet, not as \.txt"):
        iapp.write("t.txt", table)


def test_a_path_is_the_file_to_copy(inside: Inside, tmp_path: Path) -> None:
    inside()
    (tmp_path / "model").write_bytes(b"weights")
    assert iapp.write("model.bin", tmp_path / "model").read_bytes() == b"weights"
    with pytest.raises(InputError, match=r"there is no file .*gone"):
        iapp.write("model.bin", tmp_path / "gone")
    assert (tmp_path / "iexec_out" / "model.bin").read_bytes() == b"weights"


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("../x", "is not inside"),
        ("/etc/passwd", "is not inside"),
        ("a/../../x", "is not inside"),
        ("", "is not the name of a result file"),
        ("a/", "is not the name of a result file"),
        (".", "is not the name of a result file"),
        ("a" * 32, "has 32 characters; a result's has at most 31"),
        ("a" * 32 + "/b", "has 32 characters; a result's has at most 31"),
        ("a\nb", "has characters that no result may have"),
        ("a\\b", "has characters that no result may have"),
        ("/".join("a" * 17), "is nested deeper than 16 folders"),
        ("receipt.cose", "a name that the enclave writes itself"),
        ("./computed.json", "a name that the enclave writes itself"),
    ],
)
def test_names_that_no_result_may_have(inside: Inside, name: str, why: str) -> None:
    out = inside()
    for call in (lambda: iapp.write(name, "x"), lambda: iapp.output(name), lambda: iapp.deterministic(name)):
        with pytest.raises(InputError, match=why):
            call()
    assert list(out.iterdir()) == []


def test_names_that_a_result_may_have(inside: Inside) -> None:
    out = inside()
    assert iapp.write(out / "sub" / "computed.json", "x") == out / "sub" / "computed.json"
    assert iapp.write("a" * 31, "x").exists()
    assert iapp.write("bulk.json", "x").exists()
    inside(IEXEC_BULK_SLICE_SIZE="1")
    with pytest.raises(InputError, match=r"bulk\.json is a name that the enclave writes itself"):
        iapp.write("bulk.json", "x")


def test_a_folder_in_the_place_of_a_file(inside: Inside) -> None:
    out = inside()
    iapp.write("a/b", "x")
    with pytest.raises(InputError, match="a folder or a file is in its place"):
        iapp.write("a", "x")
    with pytest.raises(InputError, match="a folder or a file is in its place"):
        iapp.write("a/b/c", "x")
    assert sorted(p.name for p in out.rglob("*")) == ["a", "b", "computed.json"]


def test_output_is_a_place_for_libraries_that_write_themselves(inside: Inside) -> None:
    out = inside()
    path = iapp.output("models/a.bin")
    path.write_bytes(b"1")
    assert path == out / "models" / "a.bin"
    assert computed(out) == {"deterministic-output-path": f"{out}/models/a.bin"}


def test_callback_data(inside: Inside) -> None:
    out = inside()
    iapp.callback(bytearray(b"\1\xff"))
    assert computed(out) == {"callback-data": "0x01ff"}
    iapp.write("x", "1")
    iapp.callback("0xAB")
    assert computed(out) == {"callback-data": "0xab", "deterministic-output-path": f"{out}/x"}
    for wrong in ("ab", "0xa", "0x a", "0xzz", "0x\uff11\uff11"):
        with pytest.raises(InputError, match="callback data as text is 0x-prefixed hex"):
            iapp.callback(wrong)
    with pytest.raises(InputError, match="callback data is bytes or 0x-prefixed hex, not int"):
        iapp.callback(7)  # type: ignore[arg-type]
    with pytest.raises(TooLarge, match="16385 bytes is over the cap of 16384"):
        iapp.callback(bytes(16385))


class Figure:
    """Draws what it is asked to, as matplotlib's figures do."""

    def savefig(self, target: object, **options: object) -> None:
        target.write(json.dumps(options, sort_keys=True).encode())  # type: ignore[attr-defined]


class Axes:
    figure = Figure()


class Picture:
    """As PIL's images do."""

    def getbands(self) -> tuple[str, ...]:
        return ("L",)

    def save(self, target: object, format: str) -> None:  # noqa: A002
        if format == "odd":
            raise KeyError(format)
        target.write(format.encode())  # type: ignore[attr-defined]


def test_pictures(inside: Inside) -> None:
    out = inside()
    assert iapp.plot(Figure()) == out / "plot.png"
    assert (out / "plot.png").read_text() == '{"format": "png", "metadata": {"Software": null}}'
    assert (
        '"dpi": 120, "format": "svg", "metadata": {"Creator": null' in iapp.plot(Axes(), "a.svg", dpi=120).read_text()
    )
    assert iapp.plot(Picture(), "b.jpg").read_text() == "JPEG"
    assert computed(out) == {"deterministic-output-path": f"{out}/plot.png"}
    with pytest.raises(InputError, match="a value of type int is no figure and no picture"):
        iapp.plot(7)
    with pytest.raises(InputError, match=r"c\.odd cannot be drawn"):
        iapp.plot(Picture(), "c.odd")
    with pytest.raises(NotFound, match="there is no figure"):
        iapp.plot()


def test_errors_of_the_library_are_of_one_tree(inside: Inside) -> None:
    inside()
    with pytest.raises(CloisterError):
        iapp.write("x", object())
