"""Run with `python -m pytest`. `rehearse` is `cloister iapp test`: the production agent and sandbox on mock data."""

from pathlib import Path

from main import greeting

from cloister import rehearse

APP = Path(__file__).parent.parent


def test_a_greeting() -> None:
    assert greeting("Grace") == "Hello, Grace!"


def test_the_letters_of_a_protected_message_are_counted_and_not_shown() -> None:
    run = rehearse(APP, args="Ada Lovelace")
    assert run.cause is None, run.stderr
    hello = run.read("hello.txt").decode()
    assert hello.startswith("Hello, Ada Lovelace!\nThe protected message has 30 letters.")
    assert "abracadabra" not in hello


def test_other_data_is_refused_in_plain_words(tmp_path: Path) -> None:
    other = tmp_path / "notes.txt"
    other.write_text("no message")
    run = rehearse(APP, data=other)
    assert run.cause == "APP_COMPUTE_FAILED"
    assert "this app needs protected data with a file message.txt" in run.stderr
