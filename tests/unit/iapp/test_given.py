"""What a task gives to its iApp: arguments, protected data, items, secrets, input files, its own names."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pandas
import pytest
from tests.unit.iapp.conftest import ADDRESS

from cloister import iapp
from cloister.datasets.packing import pack
from cloister.errors import DecodeError, InputError, NotFound

Inside = Callable[..., Path]
VALUE = {"user": {"email": "a@b.c", "age": 42}, "score": 0.5, "ok": True, "photo": b"\xff\xd8\xff\xe0"}


def test_values_come_back_as_their_owner_gave_them(inside: Inside) -> None:
    inside(VALUE)
    assert iapp.read("user.email") == "a@b.c"
    assert iapp.read("user/age") == 42
    assert iapp.read("score", type="f64") == 0.5
    assert iapp.read("ok") is True
    assert iapp.read("photo") == b"\xff\xd8\xff\xe0"
    with iapp.data() as data:
        assert data.schema["user"] == {"email": "string", "age": "i128"}


def test_a_path_that_is_not_there_names_what_is(inside: Inside) -> None:
    inside(VALUE)
    with pytest.raises(NotFound, match=r"no user\.name in the protected data: there is user/email, user/age, score"):
        iapp.read("user.name")
    with pytest.raises(DecodeError, match="score is of type f64, not string"):
        iapp.read("score", type="string")


def test_many_names_are_cut(inside: Inside) -> None:
    inside({f"n{number}": number for number in range(30)})
    with pytest.raises(NotFound, match="n9 and 20 more"):
        iapp.read("x")


def test_a_task_without_protected_data(inside: Inside) -> None:
    inside()
    for call in (lambda: iapp.read("x"), iapp.data, iapp.dataframe, iapp.items):
        with pytest.raises(NotFound, match="this task was given no protected data"):
            call()


def test_outside_of_a_task(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("IEXEC_TASK_ID", "IEXEC_IN", "IEXEC_OUT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("IEXEC_DATASET_FILENAME", "data")
    with pytest.raises(NotFound, match="IEXEC_TASK_ID is not set: this is not running as a task"):
        assert iapp.task
    with pytest.raises(NotFound, match="IEXEC_IN is not set"):
        iapp.read("x")
    with pytest.raises(NotFound, match="IEXEC_OUT is not set"):
        iapp.write("x", "")


def test_data_that_is_named_and_not_there(inside: Inside) -> None:
    inside(IEXEC_DATASET_FILENAME="gone")
    with pytest.raises(NotFound, match=r"there is no file .*gone"):
        iapp.read("x")


def test_the_data_is_looked_for_at_each_call(inside: Inside) -> None:
    """Many reads open one file once, and another file of that name is another file."""
    inside({"x": "first"})
    assert iapp.read("x") == "first"
    inside({"x": "the second one"})
    assert iapp.read("x") == "the second one"
    found: list[object] = []
    thread = threading.Thread(target=lambda: found.append(iapp.read("x")))
    thread.start()
    thread.join()
    assert found == ["the second one"]


def test_the_only_table_needs_no_name(inside: Inside) -> None:
    table = pandas.DataFrame({"age": [1, 2], "name": ["a", "b"]})
    inside({"people": table, "note": "x"})
    pandas.testing.assert_frame_equal(iapp.dataframe(), table)
    pandas.testing.assert_frame_equal(iapp.dataframe("people"), table)
    inside({"people": table, "others": table})
    with pytest.raises(InputError, match=r"2 tables, name one: people\.parquet, others\.parquet"):
        iapp.dataframe()
    inside(VALUE)
    with pytest.raises(NotFound, match="no table in the protected data: there is user/email"):
        iapp.dataframe()


def test_the_items_of_a_bulk_task(inside: Inside, tmp_path: Path) -> None:
    names = ["0x" + f"{number:040x}" for number in (1, 2, 3)]
    inside(
        IEXEC_BULK_SLICE_SIZE="3",
        CLOISTER_DATASET_3_CAUSE="no-grant",
        **{f"IEXEC_DATASET_{number}_FILENAME": name for number, name in enumerate(names, start=1)},
    )
    (tmp_path / "iexec_in" / names[0]).write_bytes(b"".join(pack({"age": 7}).chunks))
    items = list(iapp.items())
    assert [(item.index, item.address, item.available, item.cause) for item in items] == [
        (1, names[0], True, None),
        (2, names[1], False, None),
        (3, names[2], False, "no-grant"),
    ]
    assert items[0].read("age", type="i128") == 7
    with items[0].data() as data:
        assert [entry.path for entry in data.entries()] == ["age"]
    with pytest.raises(NotFound, match=r"item 2 .* is not available: it was refused, or could not be opened"):
        items[1].read("age")
    with pytest.raises(NotFound, match=r"item 3 .* is not available: no-grant"):
        items[2].data()
    with pytest.raises(NotFound, match="this is a bulk task of 3 protected data"):
        iapp.read("age")


def test_single_data_is_one_item(inside: Inside) -> None:
    inside(VALUE, IEXEC_BULK_SLICE_SIZE="0")  # as iExec's generator says it of a task that is not of bulk
    (item,) = iapp.items()
    assert (item.index, item.address, item.available) == (1, ADDRESS, True)
    assert item.read("ok", type="bool") is True


def test_secrets(inside: Inside) -> None:
    inside(IEXEC_REQUESTER_SECRET_1="first", IEXEC_REQUESTER_SECRET_12="", IEXEC_APP_DEVELOPER_SECRET="owner's")
    assert iapp.secret() == iapp.secret(1) == "first"
    assert iapp.secret(12) == ""
    assert iapp.app_secret() == "owner's"
    with pytest.raises(NotFound, match="no secret 2: the request gave 1, 12"):
        iapp.secret(2)
    for wrong in (0, -1, "1", True):
        with pytest.raises(InputError, match="secrets count from 1"):
            iapp.secret(wrong)  # type: ignore[arg-type]


def test_no_secrets(inside: Inside) -> None:
    inside()
    with pytest.raises(NotFound, match="no secret 1: the request gave none"):
        iapp.secret()
    with pytest.raises(NotFound, match="given no app secret"):
        iapp.app_secret()


def test_arguments_and_the_task(inside: Inside) -> None:
    inside(arguments=("Ada", "b c"))
    assert iapp.args() == ["Ada", "b c"]
    assert iapp.task == iapp.Task(id="0x" + "11" * 32, deal="0x" + "22" * 32, index=3, size=2, first=2)


def test_input_files(inside: Inside, tmp_path: Path) -> None:
    inside(IEXEC_INPUT_FILES_NUMBER="2", IEXEC_INPUT_FILE_NAME_1="0xaa", IEXEC_INPUT_FILE_NAME_2="0xbb")
    folder = tmp_path / "iexec_in"
    assert iapp.inputs() == (folder / "0xaa", folder / "0xbb")
    assert iapp.input() == folder / "0xaa"
    assert iapp.input(2) == folder / "0xbb"
    with pytest.raises(NotFound, match="no input file 3: the request named 2"):
        iapp.input(3)
    with pytest.raises(InputError, match="input files count from 1, got 0"):
        iapp.input(0)
    inside()
    assert iapp.inputs() == ()
    with pytest.raises(NotFound, match="no input file 1: the request named none"):
        iapp.input(1)


def test_every_public_name_is_there() -> None:
    assert set(iapp.__all__) == set(dir(iapp))
    for name in iapp.__all__:
        if name != "task":
            assert callable(getattr(iapp, name))
    with pytest.raises(AttributeError, match="no attribute 'raed'"):
        _ = iapp.raed  # type: ignore[attr-defined]


def test_the_import_takes_nothing_along() -> None:
    """An iApp pays for what it uses: not even the standard library's larger parts come along."""
    source = str(Path(iapp.__file__).parents[2])
    code = f"import sys; sys.path.insert(0, {source!r}); from cloister import iapp; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-S", "-s", "-c", code], capture_output=True, text=True, check=True)
    modules = done.stdout.split()
    assert {name for name in modules if name.startswith("cloister")} == {
        "cloister",
        "cloister.version",
        "cloister.iapp",
    }
    assert not {"typing", "json", "pathlib", "dataclasses", "re"} & set(modules)
