"""Greets somebody and tells which words of a protected message are the longest, from inside a container image."""

import json
import os
import sys
from pathlib import Path


def longest(message: str, count: int = 3) -> list[str]:
    """The longest words, each once, the first of equal length first."""
    words = dict.fromkeys(word.strip(".,;:!?").lower() for word in message.split())
    return sorted(words, key=len, reverse=True)[:count]


def protected_message() -> str | None:
    """The protected data's file message.txt; None when nobody gave any."""
    from cloister import iapp
    from cloister.errors import NotFound

    try:
        data = iapp.data()
    except NotFound:
        return None
    with data:
        return data.read("message.txt", type="string")


def main() -> None:
    """Write the result. What another language does here: write files to IEXEC_OUT and name one of them in computed.json."""
    message = protected_message()
    told = "no protected data" if message is None else ", ".join(longest(message))
    out = Path(os.environ["IEXEC_OUT"])
    (out / "words.txt").write_text(f"Hello, {' '.join(sys.argv[1:])}!\nThe longest words: {told}.\n")
    (out / "computed.json").write_text(json.dumps({"deterministic-output-path": f"{out}/words.txt"}))


if __name__ == "__main__":
    main()
