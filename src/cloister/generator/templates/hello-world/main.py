"""Greets somebody and counts the letters of a protected text, which stays inside the enclave."""

import sys

from cloister import iapp
from cloister.errors import CloisterError


def greeting(name: str) -> str:
    """The first line of the result."""
    return f"Hello, {name}!"


def main() -> None:
    """Write hello.txt."""
    lines = [greeting(" ".join(iapp.args()) or "World")]
    for item in iapp.items():  # the protected data of this task: none, one, or many
        text = item.read("message.txt", type="string")
        lines.append(f"The protected message has {len(text)} letters. Only this enclave has read them.")
    iapp.write("hello.txt", "\n".join(lines) + "\n")


if __name__ == "__main__":
    try:
        main()
    except CloisterError as error:
        sys.exit(f"this app needs protected data with a file message.txt: {error.message}")
