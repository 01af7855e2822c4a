"""The command line of an iApp: words as a shell cuts them, and nothing that a shell would do."""

from __future__ import annotations

import pytest

from cloister.enclave.environment import build_command, split_arguments
from cloister.enclave.runtimes import Interpreter
from cloister.protocol.params import RequestParams


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, []),
        ("", []),
        ("  x   y ", ["x", "y"]),
        ("--a 'b c' \"d e\"", ["--a", "b c", "d e"]),
        (r"a\ b", ["a b"]),
        ("it's", ["it's"]),
        ("a\0b", ["ab"]),
        ("a\nb", ["a", "b"]),
        ("#c d", ["#c", "d"]),
        ("$HOME `id`; rm -r / > x", ["$HOME", "`id`;", "rm", "-r", "/", ">", "x"]),
    ],
)
def test_arguments(text: str | None, words: list[str]) -> None:
    params = RequestParams(iexec_args=text)
    assert split_arguments(params) == words
    assert build_command(Interpreter(("run", "main"), {}, ()), params) == ("run", "main", *words)
