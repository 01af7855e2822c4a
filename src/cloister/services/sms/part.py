"""Puts the SMS together."""

from __future__ import annotations

import time
from collections.abc import Callable

from cloister.protocol.eip712 import hub_domain
from cloister.services.authentication import RequestAuthenticator
from cloister.services.database import Database
from cloister.services.sms.bulk import StoredBulk
from cloister.services.sms.challenges import ChallengeStore
from cloister.services.sms.heads import RecentHeads
from cloister.services.sms.http import SmsPart
from cloister.services.sms.kek import KeyEncryptionKey
from cloister.services.sms.ledger import Ledger
from cloister.services.sms.log_store import LogStore
from cloister.services.sms.opened import OpenedSessions
from cloister.services.sms.policies import DataPolicyService
from cloister.services.sms.receipts import ReceiptService
from cloister.services.sms.releases import ReleaseAssembler
from cloister.services.sms.service import SecretService
from cloister.services.sms.sessions import SessionService
from cloister.services.sms.settings import SmsSettings
from cloister.services.sms.slices import SliceJudge
from cloister.services.sms.standing import StandingStore
from cloister.services.sms.store import SecretStore, SessionStore
from cloister.services.sms.tee import TeeService
from cloister.services.sms.transparency import TransparencyLog
from cloister.storage.content import ContentStore


def build_sms_part(
    settings: SmsSettings,
    *,
    database: Database,
    kek: KeyEncryptionKey,
    ledger: Ledger,
    content: ContentStore | None = None,
    clock: Callable[[], float] = time.time,
) -> SmsPart:
    """Build the SMS over a database, a key-encryption key and a chain; ``clock`` gives Unix seconds.

    ``content`` is where the slices of bulk requests are read; without it bulk requests are refused by name.
    """
    secrets, sessions = SecretStore(database, kek), SessionStore(database)
    heads, entries = RecentHeads(settings, ledger, sessions, clock), LogStore(database)
    standing = StandingStore(database)
    transparency = TransparencyLog(settings, entries, clock)
    return SmsPart(
        database=database,
        store=secrets,
        secrets=SecretService(store=secrets, ledger=ledger, heads=heads, clock=clock),
        sessions=SessionService(
            settings=settings,
            store=sessions,
            ledger=ledger,
            heads=heads,
            assembler=ReleaseAssembler(settings, secrets),
            judge=SliceJudge(
                domain=hub_domain(settings.chain_id, settings.hub), ledger=ledger, policies=sessions, secrets=secrets
            ),
            standing=standing,
            bulk=None if content is None else StoredBulk(content),
            clock=clock,
        ),
        tee=TeeService(
            settings=settings,
            challenges=ChallengeStore(database, kek),
            secrets_=secrets,
            ledger=ledger,
            heads=heads,
            clock=clock,
        ),
        transparency=transparency,
        receipts=ReceiptService(
            settings=settings,
            sessions=OpenedSessions(database),
            entries=entries,
            transparency=transparency,
            clock=clock,
        ),
        data_policies=DataPolicyService(settings=settings, store=standing, ledger=ledger, heads=heads, clock=clock),
        authenticator=RequestAuthenticator(database, settings.audience, clock=clock),
    )
