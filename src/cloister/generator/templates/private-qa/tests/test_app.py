"""Run with `python -m pytest`. `rehearse` is `cloister iapp test`: the production agent and sandbox on mock data."""

from pathlib import Path

import pytest
from main import find_answers, load_model, parse_questions, split_document

from cloister import rehearse
from cloister.errors import InputError

APP = Path(__file__).parent.parent
HANDBOOK = (APP / "mock" / "documents" / "handbook.md").read_text("utf-8")


def test_questions_are_answered_from_the_documents() -> None:
    run = rehearse(APP)
    assert run.cause is None, run.stderr
    home, laptop, invoice, everest = run.json("answers.json")
    assert home["answer"].startswith("Everybody may work from home on up to three days")
    assert (home["source"], home["heading"]) == ("handbook.md", "Working from home")
    assert "within one hour" in laptop["answer"]
    assert laptop["source"] == "security.txt"
    assert "30 days after they come in" in invoice["answer"]
    assert everest["answer"] is None


def test_a_document_is_split_into_paragraphs_under_their_headings() -> None:
    passages = split_document("handbook.md", HANDBOOK)
    assert [passage.heading for passage in passages] == ["Working hours", "Working from home", "Holidays", "Travel"]
    assert passages[2].text.endswith("until the end of March.")


def test_a_long_paragraph_is_cut() -> None:
    words = [f"word{number}" for number in range(250)]
    passages = split_document("long.txt", " ".join(words))
    assert [len(passage.text.split()) for passage in passages] == [120, 120, 10]


def test_other_words_find_the_same_passage() -> None:
    found = find_answers(
        ["What is the yearly vacation allowance?"], split_document("handbook.md", HANDBOOK), load_model()
    )
    assert found[0]["heading"] == "Holidays"


@pytest.mark.parametrize("text", ["", "\n \n", "why?\n" * 11])
def test_no_question_and_too_many_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="1 to 10 questions"):
        parse_questions(text)


def test_data_without_documents_is_refused_in_plain_words() -> None:
    run = rehearse(APP, data={"picture": b"\x89PNG"})
    assert run.cause == "APP_COMPUTE_FAILED"
    assert "no answer: the protected data holds no text in .txt or .md files; it holds picture" in run.stderr
