"""Run with `python -m pytest`. `rehearse` is `cloister iapp test`: the production agent and sandbox on mock data."""

from decimal import Decimal
from pathlib import Path

import pytest
from main import parse_order

from cloister import rehearse
from cloister.errors import InputError

APP = Path(__file__).parent.parent


def test_it_converts_with_the_rate_of_the_api() -> None:
    run = rehearse(APP, args="99.90 EUR USD")
    assert run.cause is None, run.stderr
    assert run.json("conversion.json") == {
        "amount": "99.90",
        "from": "EUR",
        "to": "USD",
        "rate": "1.0875",
        "converted": "108.64",
    }


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"app_secret": "another key"}, "the API answers 401: it refuses the key"),
        ({"args": "1 EUR XXX"}, "the API answers 404: it has no rate from EUR to XXX"),
        ({"args": "1 EUR"}, "the arguments are AMOUNT FROM TO"),
        ({"connect": {"rates.example.org:443": "127.0.0.1:1"}}, "rates.example.org:443 cannot be reached"),
    ],
)
def test_what_goes_wrong_is_said_in_plain_words(change: dict[str, object], words: str) -> None:
    run = rehearse(APP, **change)
    assert run.cause == "APP_COMPUTE_FAILED"
    assert words in run.stderr


def test_orders_are_read() -> None:
    assert parse_order(["0.5", "EUR", "JPY"]) == (Decimal("0.5"), "EUR", "JPY")
    for words in (["-1", "EUR", "JPY"], ["1e3", "EUR", "JPY"], ["1", "eur", "JPY"], ["NaN", "EUR", "JPY"], []):
        with pytest.raises(InputError):
            parse_order(words)
