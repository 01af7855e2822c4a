"""What goes into a release: the keys and secrets that one deal may have, and nothing else (step 11 of a session)."""

from __future__ import annotations

import base64
from dataclasses import dataclass

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from cloister.errors import CloisterError, LocalError, NotFound, PolicyRejected
from cloister.protocol.codec import Address, Bytes32
from cloister.protocol.deals import Deal
from cloister.protocol.params import RequestParams, parse_params
from cloister.protocol.releases import Release, ReleasedApp, ReleasedDataset, ResultFormat
from cloister.protocol.tasks import Task
from cloister.sealing.rsa_results import parse_result_public_key
from cloister.services.sms.grants import StandingGrant
from cloister.services.sms.ledger import AppEntry, DatasetEntry
from cloister.services.sms.service import RSA_RESULT_KEY_NAME
from cloister.services.sms.settings import SmsSettings
from cloister.services.sms.slices import JudgedItem
from cloister.services.sms.store import SecretStore
from cloister.services.sms.vault import SecretKind, SecretName


@dataclass(frozen=True, slots=True)
class Assembly:
    """What the checks of a session established."""

    task_id: Bytes32
    worker: Address
    task: Task
    deal: Deal
    app: AppEntry
    dataset: DatasetEntry | None
    grant: StandingGrant | None
    params: RequestParams
    bulk: tuple[JudgedItem, ...] | None = None


class ReleaseAssembler:
    """Collects secrets for deals whose checks passed."""

    def __init__(self, settings: SmsSettings, secrets: SecretStore) -> None:
        self._settings = settings
        self._secrets = secrets

    def assemble(self, found: Assembly) -> Release:
        """Build the release.

        Raises: NotFound (``dataset-key-missing``, ``requester-secret-missing``, ``result-key-missing``),
        PolicyRejected (``result-key-malformed``).
        """
        deal, settings = found.deal, self._settings
        params = found.params
        result_format, result_key = self._result(deal, params)
        app_secret = self._text(SecretName(SecretKind.APP, deal.app.pointer))
        return Release(
            task_id=found.task_id,
            deal_id=found.task.deal_id,
            index=found.task.index,
            bot_first=deal.bot_first,
            bot_size=deal.bot_size,
            chain_id=settings.chain_id,
            hub=settings.hub,
            worker=found.worker,
            beneficiary=deal.beneficiary,
            requester=deal.requester,
            callback=deal.callback,
            params=deal.params,
            app=ReleasedApp(deal.app.pointer, found.app.location, found.app.checksum),
            dataset=self._dataset(deal, found.dataset, found.grant),
            bulk=None if found.bulk is None else tuple(judged.item for judged in found.bulk),
            app_secret=app_secret,
            requester_secrets=self._requester_secrets(deal, params),
            result_format=result_format,
            result_public_key=result_key,
            max_result_bytes=self._limit(found),
            deadline=found.task.contribution_deadline,
            logs=_allow_logs(found, app_secret),
        )

    def _limit(self, found: Assembly) -> int:
        """The least that the operator and every grant in the release allow a result to have, in bytes."""
        grants = [found.grant.max_result_bytes] if found.grant is not None else []
        # A refused item's data is not in the result, so its owner's limit does not bind it.
        grants += [judged.max_result_bytes for judged in found.bulk or () if judged.refused is None]
        return min([self._settings.max_result_bytes, *(limit for limit in grants if limit is not None)])

    def _dataset(self, deal: Deal, entry: DatasetEntry | None, grant: StandingGrant | None) -> ReleasedDataset | None:
        if not deal.has_dataset:
            return None
        if entry is None or grant is None:
            raise LocalError("a deal with a dataset reached the release without a grant")
        return ReleasedDataset(
            address=deal.dataset.pointer,
            multiaddr=entry.location,
            checksum=entry.checksum,
            key=self._secrets.dataset_key(deal.dataset.pointer),
            order_hash=grant.order_hash,
            policy_hash=grant.policy_hash,
        )

    def _requester_secrets(self, deal: Deal, params: RequestParams) -> dict[str, str]:
        found: dict[str, str] = {}
        for number, name in params.iexec_secrets.items():
            value = self._text(SecretName(SecretKind.REQUESTER, deal.requester, name))
            if value is None:
                raise NotFound(f"requester secret {number} is not here", code="requester-secret-missing")
            found[str(number)] = value
        return found

    def _result(self, deal: Deal, params: RequestParams) -> tuple[ResultFormat, bytes | None]:
        """Choose the result's form: a native key named by hash, else the beneficiary's RSA key, else plain."""
        if params.cloister_result_key is not None:
            # The hash stands in the signed request, so it does not matter which of the two stored the key.
            key = self._secrets.result_key((deal.beneficiary, deal.requester), params.cloister_result_key)
            if key is None:
                raise NotFound("the result key that the request names is not here", code="result-key-missing")
            return ResultFormat.HPKE, base64.b64decode(key)
        if params.iexec_result_encryption:
            text = self._text(SecretName(SecretKind.WEB2, deal.beneficiary, RSA_RESULT_KEY_NAME))
            if text is None:
                raise NotFound("the beneficiary has no result key here", code="result-key-missing")
            try:
                public = parse_result_public_key(text)
            except CloisterError:
                text = "the beneficiary's result key is not the base64 of an RSA public key"
                raise PolicyRejected(text, code="result-key-malformed") from None
            return ResultFormat.RSA, public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return ResultFormat.PLAIN, None

    def _text(self, name: SecretName) -> str | None:
        value = self._secrets.read(name)
        return None if value is None else value.decode("utf-8")


def _allow_logs(found: Assembly, app_secret: str | None) -> bool:
    """Whether each owner of something in this release lets the requester read what the app prints.

    For protected data the grant says it. For an app secret nobody can: it is its owner's alone, who may read it back. What
    was refused is not in the release, so its owner's word does not count; where there is nothing of others, nothing needs
    allowing.
    """
    words = [found.grant.logs] if found.grant is not None else []
    words += [judged.logs for judged in found.bulk or () if judged.refused is None]
    if app_secret is not None:
        words.append(found.app.owner == found.deal.requester)
    return bool(words) and all(words)


def read_params(deal: Deal) -> RequestParams:
    """Read the params of a deal that is matched already: keys of other clients are skipped.

    Raises: PolicyRejected (``params-refused``).
    """
    try:
        return parse_params(deal.params, allow_unknown=True)
    except CloisterError as error:
        raise PolicyRejected("the request's params do not parse", code="params-refused") from error
