"""Puts the result proxy together."""

from __future__ import annotations

import time
from collections.abc import Callable

from cloister.services.database import Database
from cloister.services.resultproxy.challenges import Challenges
from cloister.services.resultproxy.http import ResultProxyPart
from cloister.services.resultproxy.ledger import ResultLedger
from cloister.services.resultproxy.service import ResultService
from cloister.services.resultproxy.settings import ResultProxySettings
from cloister.services.resultproxy.signing_key import SigningKey
from cloister.services.resultproxy.store import ResultStore
from cloister.services.resultproxy.tokens import Tokens
from cloister.storage.content import ContentStore


def build_result_proxy_part(
    settings: ResultProxySettings,
    *,
    database: Database,
    ledger: ResultLedger,
    content: ContentStore,
    signing_key: SigningKey,
    clock: Callable[[], float] = time.time,
) -> ResultProxyPart:
    """Build the result proxy over a database, a chain and a content store; ``clock`` gives Unix seconds.

    ``content`` stays its opener's: it must be open while the part runs.
    """
    store = ResultStore(database)
    service = ResultService(
        settings,
        store=store,
        ledger=ledger,
        content=content,
        tokens=Tokens(
            signing_key,
            settings.audience,
            clock,
            upload_seconds=settings.upload_token_seconds,
            login_seconds=settings.login_token_seconds,
        ),
        challenges=Challenges(store, signing_key, settings.chain_id, clock),
        clock=clock,
    )
    return ResultProxyPart(settings, database=database, service=service)
