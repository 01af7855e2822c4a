"""Converts an amount with a rate from a web API. The API key is the app's secret; the API learns no amount."""

import json
import re
import ssl
import sys
from decimal import Decimal
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

from cloister import iapp
from cloister.errors import CloisterError, InputError, UnavailableError

API = "https://rates.example.org/v1/rate"
AUTHORITY = Path(__file__).with_name("ca.pem")
SECONDS = 10
MOST_BYTES = 64 * 1024


def parse_order(words: list[str]) -> tuple[Decimal, str, str]:
    """Read ``AMOUNT FROM TO``."""
    if len(words) != 3 or not re.fullmatch(r"[0-9]{1,15}(\.[0-9]{1,8})?", words[0]):
        raise InputError("the arguments are AMOUNT FROM TO, as in: 250 EUR JPY")
    for currency in words[1:]:
        if not re.fullmatch(r"[A-Z]{3}", currency):
            raise InputError(f"{currency[:20]} is no currency: write three capital letters")
    return Decimal(words[0]), words[1], words[2]


def fetch_rate(source: str, target: str, key: str) -> Decimal:
    """Ask the API for the price of one unit of ``source`` in ``target``."""
    url = f"{API}?{urlencode({'from': source, 'to': target})}"
    # The proxy that carries this to the API stands in HTTPS_PROXY, where urllib looks for it.
    secure = ssl.create_default_context(cafile=AUTHORITY)
    try:
        with urlopen(Request(url, headers={"X-Api-Key": key}), timeout=SECONDS, context=secure) as response:
            document = response.read(MOST_BYTES + 1)
    except HTTPError as error:
        reasons = {401: "it refuses the key", 404: f"it has no rate from {source} to {target}"}
        raise UnavailableError(f"the API answers {error.code}: {reasons.get(error.code, error.reason)}") from error
    except (URLError, OSError) as error:
        raise UnavailableError(f"the API cannot be asked: {getattr(error, 'reason', error)}") from error
    try:
        rate = Decimal(json.loads(document[:MOST_BYTES])["rate"])
    except (ValueError, ArithmeticError, LookupError, TypeError) as error:
        raise UnavailableError("the API's answer holds no rate") from error
    if not rate.is_finite() or rate <= 0:
        raise UnavailableError("the API's rate is no price")
    return rate


def main() -> None:
    """Write the result."""
    amount, source, target = parse_order(iapp.args())
    rate = fetch_rate(source, target, iapp.app_secret().strip())
    converted = (amount * rate).quantize(Decimal("0.01"))
    iapp.write(
        "conversion.json",
        {"amount": str(amount), "from": source, "to": target, "rate": str(rate), "converted": str(converted)},
    )


if __name__ == "__main__":
    try:
        main()
    except CloisterError as error:
        sys.exit(f"cannot convert: {error.message}")
