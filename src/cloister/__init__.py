"""Cloister: compute on data that nobody may see.

``DataProtector`` protects data, grants access, runs apps on it and opens results; ``Wallet`` says who you are;
``verify_receipt`` proves what ran on which data; ``rehearse`` runs an iApp here as production would. The names are
imported when first used, so that ``import cloister`` costs nothing.
"""

from __future__ import annotations

from cloister.version import __version__

TYPE_CHECKING = False  # as typing's, whose import would be most of what an iApp's start costs

if TYPE_CHECKING:
    from cloister.errors import CloisterError as CloisterError
    from cloister.generator.rehearsal import rehearse as rehearse
    from cloister.sdk.account import Account as Account
    from cloister.sdk.apps import IApps as IApps
    from cloister.sdk.asynchronous import AsyncDataProtector as AsyncDataProtector
    from cloister.sdk.data_protector import DataProtector as DataProtector
    from cloister.sdk.orders import Orders as Orders
    from cloister.sdk.tasks import Tasks as Tasks
    from cloister.sdk.verdict import verify_receipt as verify_receipt
    from cloister.sdk.wallet import Wallet as Wallet

_HOMES = {
    "CloisterError": "cloister.errors",
    "Account": "cloister.sdk.account",
    "IApps": "cloister.sdk.apps",
    "AsyncDataProtector": "cloister.sdk.asynchronous",
    "DataProtector": "cloister.sdk.data_protector",
    "Orders": "cloister.sdk.orders",
    "Tasks": "cloister.sdk.tasks",
    "rehearse": "cloister.generator.rehearsal",
    "verify_receipt": "cloister.sdk.verdict",
    "Wallet": "cloister.sdk.wallet",
}

__all__ = [
    "Account",
    "AsyncDataProtector",
    "CloisterError",
    "DataProtector",
    "IApps",
    "Orders",
    "Tasks",
    "Wallet",
    "__version__",
    "rehearse",
    "verify_receipt",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
