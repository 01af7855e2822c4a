"""Greets somebody and counts the letters of a protected message, which stays inside the enclave."""

import sys

from cloister import iapp
from cloister.errors import CloisterError, NotFound


def greeting(name: str) -> str:
    """The first line of the result."""
    return f"Hello, {name}!"


def answer() -> str:
    """What may be told about the protected message."""
    try:
        data = iapp.data()
    except NotFound:
        return "Nobody gave me protected data."
    with data:
        message = data.read("message.txt", type="string")
    return f"The protected message has {len(message)} letters. Only this enclave has read them."


def main() -> None:
    """Write the result."""
    name = " ".join(iapp.args()) or "World"
    iapp.write("hello.txt", f"{greeting(name)}\n{answer()}\n")


if __name__ == "__main__":
    try:
        main()
    except CloisterError as error:
        sys.exit(f"this app needs protected data with a file message.txt: {error.message}")
