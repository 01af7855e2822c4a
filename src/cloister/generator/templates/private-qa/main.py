"""Answers questions from protected documents: the passage that fits best, word for word, and where it stands.

The questions are requester secret 1, one on each line, so that they are not on the chain. The documents are the .txt and .md files
in the protected data. The embedding model (WordLlama) is part of the bundle: nothing is downloaded.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import wordllama

from cloister import iapp
from cloister.errors import CloisterError, InputError, NotFound

DOCUMENTS = (".txt", ".md")
LONGEST_PASSAGE = 120
"""Words. A passage is a paragraph, or a piece of one: short enough to be about one thing."""
MOST_QUESTIONS = 10
LEAST_LIKENESS = 0.25
"""Cosine of question and passage under which they have nothing to do with each other."""


@dataclass(frozen=True)
class Passage:
    """A piece of a document. ``heading`` is the last one before it."""

    source: str
    heading: str
    text: str


def split_document(source: str, text: str) -> list[Passage]:
    """The passages of a document, in order; in Markdown, lines that begin with # are headings."""
    passages, heading = [], ""
    for paragraph in re.split(r"\n\s*\n", text):
        lines = [line.strip() for line in paragraph.splitlines()]
        if source.endswith(".md"):
            for line in lines:
                heading = line.lstrip("# ") if line.startswith("#") else heading
            lines = [line for line in lines if not line.startswith("#")]
        words = " ".join(lines).split()
        passages += [
            Passage(source, heading, " ".join(words[start : start + LONGEST_PASSAGE]))
            for start in range(0, len(words), LONGEST_PASSAGE)
        ]
    return passages


def parse_questions(text: str) -> list[str]:
    """One question a line. Raises InputError for none, or too many."""
    questions = [line.strip() for line in text.splitlines() if line.strip()]
    if not 0 < len(questions) <= MOST_QUESTIONS:
        raise InputError(
            f"secret 1 must hold 1 to {MOST_QUESTIONS} questions, one on each line; it has {len(questions)}"
        )
    return questions


def load_model() -> Any:
    """The weights and the tokenizer that came with the package; where it would download, it fails instead."""
    return wordllama.WordLlama.load(cache_dir=Path(wordllama.__file__).parent, disable_download=True)


def find_answers(questions: list[str], passages: list[Passage], model: Any) -> list[dict[str, Any]]:
    """For each question the passage whose embedding is nearest; None where nothing is near."""
    texts = [f"{passage.heading}. {passage.text}" for passage in passages]
    likeness = model.embed(questions, norm=True) @ model.embed(texts, norm=True).T
    answers = []
    for question, row in zip(questions, likeness, strict=True):
        best = int(row.argmax())
        found = passages[best] if row[best] >= LEAST_LIKENESS else None
        answers.append(
            {
                "question": question,
                "answer": found and found.text,
                "source": found and found.source,
                "heading": found and found.heading,
                "likeness": round(float(row[best]), 2),
            }
        )
    return answers


def main() -> None:
    """Read questions and documents, write the answers."""
    questions = parse_questions(iapp.secret(1))
    passages: list[Passage] = []
    with iapp.data() as data:
        names = [entry.path for entry in data.entries()]
        for name in names:
            if name.endswith(DOCUMENTS):
                passages += split_document(name, data.read_bytes(name).decode("utf-8", "replace"))
    if not passages:
        raise NotFound(f"the protected data holds no text in .txt or .md files; it holds {', '.join(names)}")
    iapp.write("answers.json", find_answers(questions, passages, load_model()))


if __name__ == "__main__":
    try:
        main()
    except CloisterError as error:
        sys.exit(f"no answer: {error.message}")
