"""Puts the SMS together."""

from __future__ import annotations

import time
from collections.abc import Callable

from cloister.services.authentication import RequestAuthenticator
from cloister.services.database import Database
from cloister.services.sms.http import SmsPart
from cloister.services.sms.kek import KeyEncryptionKey
from cloister.services.sms.ledger import Ledger
from cloister.services.sms.releases import ReleaseAssembler
from cloister.services.sms.service import SecretService
from cloister.services.sms.sessions import SessionService
from cloister.services.sms.settings import SmsSettings
from cloister.services.sms.store import SecretStore, SessionStore


def build_sms_part(
    settings: SmsSettings,
    *,
    database: Database,
    kek: KeyEncryptionKey,
    ledger: Ledger,
    clock: Callable[[], float] = time.time,
) -> SmsPart:
    """Build the SMS over a database, a key-encryption key and a chain; ``clock`` gives Unix seconds."""
    secrets, sessions = SecretStore(database, kek), SessionStore(database)
    return SmsPart(
        database=database,
        store=secrets,
        secrets=SecretService(settings=settings, store=secrets, sessions=sessions, ledger=ledger, clock=clock),
        sessions=SessionService(
            settings=settings,
            store=sessions,
            ledger=ledger,
            assembler=ReleaseAssembler(settings, secrets),
            clock=clock,
        ),
        authenticator=RequestAuthenticator(database, settings.audience, clock=clock),
    )
