"""Run with `python -m pytest`. `rehearse` is `cloister iapp test`: the production agent and sandbox on mock data."""

from pathlib import Path

from cloister import rehearse

APP = Path(__file__).parent.parent


def test_the_letters_of_a_protected_message_are_counted_and_not_shown() -> None:
    run = rehearse(APP, args="Ada Lovelace")
    assert run.cause is None, run.stderr
    hello = run.read("hello.txt").decode()
    assert hello.startswith("Hello, Ada Lovelace!\nThe protected message has 30 letters.")
    assert "abracadabra" not in hello


def test_other_data_is_refused_in_plain_words() -> None:
    run = rehearse(APP, data={"notes": "no message"})
    assert run.cause == "APP_COMPUTE_FAILED"
    assert "this app needs protected data with a file message.txt" in run.stderr


def test_it_greets_without_protected_data() -> None:
    run = rehearse(APP, defaults=False)
    assert run.read("hello.txt") == b"Hello, World!\nNobody gave me protected data.\n"
