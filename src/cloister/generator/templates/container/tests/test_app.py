"""Run with `python -m pytest`. `rehearse` is `cloister iapp test`: it builds the image and runs it as production does."""

from pathlib import Path

from main import longest

from cloister import rehearse

APP = Path(__file__).parent.parent


def test_the_longest_words() -> None:
    assert longest("One, two, three: three fourteen.", 2) == ["fourteen", "three"]


def test_the_image_reads_protected_data_in_the_production_sandbox() -> None:
    run = rehearse(APP, args="Grace Hopper")
    assert run.cause is None, run.stderr
    assert run.read("words.txt").decode() == (
        "Hello, Grace Hopper!\nThe longest words: abracadabra, magician, opens.\n"
    )


def test_without_arguments_the_image_has_its_own() -> None:
    run = rehearse(APP, defaults=False)
    assert run.read("words.txt").decode() == "Hello, World!\nThe longest words: no protected data.\n"
