"""The examples of docs/iapp-library.md say what really comes out."""

from __future__ import annotations

import doctest
from collections.abc import Callable
from pathlib import Path

import pandas

from cloister.datasets.packing import pack

PAGE = Path(__file__).parents[3] / "docs" / "iapp-library.md"


class Checker(doctest.OutputChecker):
    """Takes the test's folders for those of a task."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def check_output(self, want: str, got: str, optionflags: int) -> bool:
        return super().check_output(want, got.replace(f"{self.root}/iexec", "/iexec"), optionflags)


def run(text: str, name: str, root: Path) -> int:
    """Run the examples of ``text``; gives how many there were."""
    examples = doctest.DocTestParser().get_doctest(text.replace("```", ""), {}, name, str(PAGE), 0)
    runner = doctest.DocTestRunner(Checker(root), optionflags=doctest.NORMALIZE_WHITESPACE)
    said: list[str] = []
    runner.run(examples, out=said.append)
    assert runner.failures == 0, "".join(said)
    return runner.tries


def test_the_examples(inside: Callable[..., Path], tmp_path: Path) -> None:
    single, bulk = PAGE.read_text().split("## Many protected data")
    visits = pandas.DataFrame({"day": [1, 2], "count": [20, 22]})
    inside(
        {"user": {"email": "ada@example.org", "age": 36}, "visits": visits},
        ("Ada", "--size", "7"),
        IEXEC_REQUESTER_SECRET_1="a token",
        IEXEC_INPUT_FILES_NUMBER="1",
        IEXEC_INPUT_FILE_NAME_1="0xaa",
    )
    (tmp_path / "iexec_in" / "0xaa").write_text("1 EUR = 1.1 USD\n")
    assert run(single, "one", tmp_path) > 20
    names = {f"IEXEC_DATASET_{number}_FILENAME": f"0x{number}" for number in (1, 2, 3)}
    inside(IEXEC_BULK_SLICE_SIZE="3", CLOISTER_DATASET_2_CAUSE="order-closed", **names)
    for number, age in ((1, 36), (3, 41)):
        (tmp_path / "iexec_in" / f"0x{number}").write_bytes(b"".join(pack({"age": age}).chunks))
    assert run(bulk, "many", tmp_path) == 3
