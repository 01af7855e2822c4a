"""Secrets: the requester's, by number, and the one of the iApp's developer."""

from __future__ import annotations

import os

from cloister.errors import InputError, NotFound, quoted

_REQUESTER = "IEXEC_REQUESTER_SECRET_"
_DEVELOPER = "IEXEC_APP_DEVELOPER_SECRET"


def secret(number: int = 1) -> str:
    """Requester secret ``number``, counted from 1.

    Raises:
        NotFound: the request gave no such secret. InputError: no number that counts from 1.
    """
    if type(number) is not int or number < 1:
        raise InputError(f"secrets count from 1, got {quoted(number)}")
    text = os.environ.get(f"{_REQUESTER}{number}")
    if text is None:
        given = sorted(int(name[len(_REQUESTER) :]) for name in os.environ if _is_numbered(name))
        raise NotFound(f"no secret {number}: the request gave {', '.join(map(str, given)) or 'none'}")
    return text


def app_secret() -> str:
    """The secret that the iApp's owner gave it.

    Raises:
        NotFound: the iApp has none.
    """
    text = os.environ.get(_DEVELOPER)
    if text is None:
        raise NotFound("this iApp was given no app secret: its owner pushes one")
    return text


def _is_numbered(name: str) -> bool:
    number = name.removeprefix(_REQUESTER)
    return number != name and number.isascii() and number.isdigit()
