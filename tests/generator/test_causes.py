"""Every named cause has plain words."""

from __future__ import annotations

import re

import pytest

from cloister.clients.scheduler import FINAL_CODES
from cloister.enclave.causes import Cause
from cloister.generator.causes import MEANINGS, explain


@pytest.mark.parametrize("cause", [*Cause, *sorted(FINAL_CODES)])
def test_a_cause_says_what_happened_and_what_to_do(cause: str) -> None:
    meaning = explain(str(cause))
    assert meaning is not None
    assert len(meaning.text) > 20
    assert len(meaning.advice) > 10


def test_causes_are_explained_in_whole_sentences() -> None:
    for cause, meaning in MEANINGS.items():
        assert re.fullmatch(r"[A-Z][A-Z_]+", cause)
        for text in (meaning.text, meaning.advice):
            assert text[0].isupper() or text[0].islower()
            assert text.rstrip()[-1] in ".}", text


def test_a_word_that_is_no_cause_has_no_meaning() -> None:
    assert explain("SOMETHING_ELSE") is None
    assert explain("app-compute-failed") is explain("APP_COMPUTE_FAILED")
