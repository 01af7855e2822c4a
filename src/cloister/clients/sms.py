"""The SMS's HTTP API: owners set secrets, hosts open sessions for enclaves, data owners read the record of releases."""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from cloister.attestation.transparency import MAX_ENTRY, MAX_PATH, LogOrigin, SignedHead, check_path, verify_head
from cloister.errors import Conflict, DecodeError, NotFound
from cloister.protocol import authorization
from cloister.protocol.authentication import NONCE_LENGTH, audience, sign_request
from cloister.protocol.codec import (
    SAFE_INTEGER_MAX,
    Address,
    Bytes32,
    canonical_json,
    check_keys,
    parse_address,
    parse_base64,
    parse_hex,
    parse_text,
    parse_uint,
    parse_word,
    to_hex,
)
from cloister.protocol.countersigning import COUNTERSIGNATURE_CAP
from cloister.protocol.sessions import NonceGrant, SessionAnswer, SessionCall, parse_nonce_grant, parse_session_answer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cloister.protocol.countersigning import CountersignRequest
    from cloister.protocol.data_policies import SignedDataPolicy
    from cloister.protocol.policies import AccessPolicy
    from cloister.protocol.signatures import PrivateKey

ANSWER_CAP = 1024 * 1024


class SmsClient:
    """Talks to one SMS. Keys sign here and never travel. Safe to share between threads.

    Every method raises ``UnavailableError`` when the service does not answer, and ``Denied`` (``Unauthenticated``)
    when a signature is not accepted.
    """

    def __init__(
        self,
        base_url: str,
        *,
        chain_id: int,
        hub: Address,
        timeout: float = 30.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        from cloister.transport import Http

        self._http = Http(base_url, timeout=timeout, max_response=ANSWER_CAP)
        self._audience = audience("sms", chain_id, Address(hub))
        self._chain_id, self._hub = chain_id, Address(hub)
        self._clock = clock

    # --- secrets, as iExec's clients set them ---

    def push_dataset_secret(self, address: Address, value: str, key: PrivateKey) -> None:
        """Store the key of a dataset, signed by its on-chain owner.

        Setting a secret again to the value it has is no error, here and below: a repeated call does no harm.
        Raises: Conflict when another is stored.
        """
        challenge = authorization.sms_web3_challenge(Address(address), value)
        self._set("POST", "/secrets/web3", {"secretAddress": str(address)}, value, key.sign_message(challenge))

    def has_dataset_secret(self, address: Address) -> bool:
        """Tell whether a dataset's key is stored."""
        return self._has("/secrets/web3", {"secretAddress": str(address)})

    def push_web2_secret(self, owner: Address, name: str, value: str, key: PrivateKey) -> None:
        """Store an account's secret under a name. Raises: Conflict when there is one."""
        self._set("POST", "/secrets/web2", *self._web2(owner, name, value, key))

    def update_web2_secret(self, owner: Address, name: str, value: str, key: PrivateKey) -> None:
        """Replace an account's secret. Raises: NotFound when there is none."""
        self._set("PUT", "/secrets/web2", *self._web2(owner, name, value, key))

    def set_web2_secret(self, owner: Address, name: str, value: str, key: PrivateKey) -> None:
        """Store an account's secret, whether or not there is one. The same value again changes nothing."""
        try:
            self.update_web2_secret(owner, name, value, key)
        except NotFound:
            try:
                self.push_web2_secret(owner, name, value, key)
            except Conflict:
                # Somebody else's call of this account came in between.
                self.update_web2_secret(owner, name, value, key)

    def has_web2_secret(self, owner: Address, name: str) -> bool:
        """Tell whether an account's secret is stored."""
        return self._has("/secrets/web2", {"ownerAddress": str(owner), "secretName": name})

    def push_app_secret(self, app: Address, value: str, key: PrivateKey) -> None:
        """Store the developer's secret of an app, signed by its owner. Raises: Conflict when there is one."""
        challenge = authorization.sms_app_challenge(Address(app), value)
        self._set("POST", f"/apps/{app}/secrets", {}, value, key.sign_message(challenge))

    def has_app_secret(self, app: Address) -> bool:
        """Tell whether an app's developer secret is stored."""
        return self._has(f"/apps/{app}/secrets", {})

    def push_requester_secret(self, requester: Address, name: str, value: str, key: PrivateKey) -> None:
        """Store a requester's secret. Raises: Conflict when there is one of that name."""
        challenge = authorization.requester_secret_challenge(Address(requester), name, value)
        path = f"/requesters/{requester}/secrets/{quote(name, safe='')}"
        self._set("POST", path, {}, value, key.sign_message(challenge))

    def has_requester_secret(self, requester: Address, name: str) -> bool:
        """Tell whether a requester's secret is stored."""
        return self._has(f"/requesters/{requester}/secrets/{quote(name, safe='')}", {})

    # --- ours, signed per request ---

    def erase_dataset_secret(self, address: Address, key: PrivateKey) -> None:
        """Destroy a dataset's key for good, on the word of its current owner. Raises: NotFound when there is none."""
        self._signed("DELETE", "/secrets/web3?" + urlencode({"secretAddress": str(address)}), b"", key)

    def erase_web2_secret(self, owner: Address, name: str, key: PrivateKey) -> None:
        """Destroy an account's secret. Raises: NotFound when there is none."""
        query = urlencode({"ownerAddress": str(owner), "secretName": name})
        self._signed("DELETE", f"/secrets/web2?{query}", b"", key)

    def erase_app_secret(self, app: Address, key: PrivateKey) -> None:
        """Destroy an app's developer secret. Raises: NotFound when there is none."""
        self._signed("DELETE", f"/apps/{app}/secrets", b"", key)

    def erase_requester_secret(self, requester: Address, name: str, key: PrivateKey) -> None:
        """Destroy a requester's secret. Raises: NotFound when there is none."""
        self._signed("DELETE", f"/requesters/{requester}/secrets/{quote(name, safe='')}", b"", key)

    def put_policy(self, policy: AccessPolicy, key: PrivateKey) -> Bytes32:
        """Store an access policy; returns its hash. The same policy again changes nothing."""
        digest = policy.hash()
        self._signed("PUT", f"/policies/{digest}", canonical_json(policy.to_json()), key)
        return digest

    def policy(self, digest: Bytes32) -> AccessPolicy:
        """Fetch an access policy by its hash, and check that it hashes to that. Raises: NotFound, DecodeError."""
        from cloister.protocol.policies import parse_policy

        policy = parse_policy(self._http.json("GET", f"/policies/{Bytes32(digest)}"))
        if policy.hash() != digest:
            raise DecodeError(f"the service gave another policy than {digest}")
        return policy

    def put_data_policy(self, signed: SignedDataPolicy) -> None:
        """Set the standing policy of a dataset. Raises: Conflict (``policy-rollback``) for a version that is not newer."""
        self._http.raw(
            "PUT",
            f"/policies/data/{signed.statement.dataset}",
            body=canonical_json(signed.to_json()),
            headers={"content-type": "application/json"},
        )

    def data_policy(self, dataset: Address) -> SignedDataPolicy:
        """The standing policy that the service has of the dataset's present owner. Nothing of it is proven yet.

        Raises: NotFound, DecodeError.
        """
        from cloister.protocol.data_policies import parse_shown_data_policy

        return parse_shown_data_policy(self._http.json("GET", f"/policies/data/{Address(dataset)}"), Address(dataset))

    def releases(self, dataset: Address, key: PrivateKey) -> Iterator[dict[str, Any]]:
        """Yield every release and refusal that named the dataset, oldest first, for its current owner."""
        after = 0
        while True:
            page = self._signed("GET", f"/data/{dataset}/releases?after={after}", b"", key)
            if not isinstance(page, dict) or not isinstance(page.get("releases"), list):
                raise DecodeError("the record of releases does not parse")
            yield from page["releases"]
            if not page.get("more") or not page["releases"]:
                return
            after = int(page["releases"][-1]["id"])

    # --- the enclave session ---

    def identity(self) -> Address:
        """The SMS's address, which report data names."""
        value = self._http.json("GET", "/enclave/v1/identity")
        if not isinstance(value, dict) or not isinstance(value.get("sms"), str):
            raise DecodeError("the service's identity does not parse")
        return Address(value["sms"])

    def nonce(self, task_id: Bytes32) -> NonceGrant:
        """Ask for a nonce for one session of one task."""
        return parse_nonce_grant(self._http.json("POST", "/enclave/v1/nonces", body={"task_id": str(task_id)}))

    def open_session(self, call: SessionCall) -> SessionAnswer:
        """Open a session; the answer's release is readable by the enclave only.

        Raises: Denied or NotFound, whose ``code`` names the check that failed; UnavailableError when the chain is
        behind: ask for a new nonce and try again.
        """
        return parse_session_answer(self._http.json("POST", "/enclave/v1/sessions", body=call.to_json()))

    def countersign(self, request: CountersignRequest) -> bytes:
        """Have the receipt of a released session countersigned; the same request again has the same answer.

        Raises: Denied (``countersignature-refused``).
        """
        given = self._http.json("POST", "/enclave/v1/countersignatures", body=request.to_json())
        members = check_keys("countersignature", given, required=("countersignature",))
        return parse_base64("countersignature", members["countersignature"], cap=COUNTERSIGNATURE_CAP)

    # --- the transparency log: anybody may read it, and everything of it is proven ---

    def log_head(self, sms: Address) -> SignedHead:
        """The log's head, proven to be signed by ``sms``, which the caller knows from the chain.

        Raises: VerificationError, DecodeError.
        """
        names = ("chain_id", "hub", "sms", "size", "root", "timestamp", "signature")
        given = check_keys("tree head", self._http.json("GET", "/log/v1/head"), required=names)
        origin = LogOrigin(
            parse_uint("chain_id", given["chain_id"]),
            parse_address("hub", given["hub"]).raw,
            parse_address("sms", given["sms"]).raw,
        )
        head = SignedHead(
            origin,
            parse_uint("size", given["size"], maximum=SAFE_INTEGER_MAX),
            parse_word("root", given["root"]).raw,
            parse_uint("timestamp", given["timestamp"], maximum=SAFE_INTEGER_MAX),
            parse_hex(given["signature"], length=65),
        )
        return verify_head(head, LogOrigin(self._chain_id, self._hub.raw, Address(sms).raw))

    def log_entries(self, start: int, end: int) -> list[bytes]:
        """Entries from ``start`` up to, and without, ``end``, at most 256. They prove nothing by themselves."""
        given = self._http.json("GET", "/log/v1/entries", query={"start": str(start), "end": str(end)})
        entries = check_keys("log entries", given, required=("start", "entries"))["entries"]
        if not isinstance(entries, list) or len(entries) > end - start:
            raise DecodeError("the log's entries are not the range that was asked for")
        return [parse_text("log entry", entry, cap=MAX_ENTRY).encode() for entry in entries]

    def log_inclusion(self, index: int, size: int) -> tuple[bytes, ...]:
        """The path from entry ``index`` to the root of the log of ``size`` entries."""
        return self._path("/log/v1/inclusion", {"index": str(index), "size": str(size)})

    def log_consistency(self, first: int, second: int) -> tuple[bytes, ...]:
        """The path that joins the log of ``first`` entries to that of ``second``."""
        return self._path("/log/v1/consistency", {"first": str(first), "second": str(second)})

    def _path(self, path: str, query: dict[str, str]) -> tuple[bytes, ...]:
        pieces = check_keys("proof", self._http.json("GET", path, query=query), required=("path",))["path"]
        if not isinstance(pieces, list):
            raise DecodeError("a proof is not a list")
        return check_path([parse_hex(piece, length=32) for piece in pieces[: MAX_PATH + 1]])

    def _web2(self, owner: Address, name: str, value: str, key: PrivateKey) -> tuple[dict[str, str], str, bytes]:
        challenge = authorization.sms_web2_challenge(Address(owner), name, value)
        return {"ownerAddress": str(owner), "secretName": name}, value, key.sign_message(challenge)

    def _set(self, method: str, path: str, query: dict[str, str], value: str, signature: bytes) -> None:
        headers = {"authorization": to_hex(signature), "content-type": "text/plain"}
        try:
            self._http.raw(method, path, query=query, body=value.encode("utf-8"), headers=headers)
        except Conflict as error:
            if error.code != "already-set-same":
                raise

    def _has(self, path: str, query: dict[str, str]) -> bool:
        try:
            self._http.raw("HEAD", path, query=query)
        except NotFound:
            return False
        return True

    def _signed(self, method: str, target: str, body: bytes, key: PrivateKey) -> object:
        header = sign_request(
            key,
            audience=self._audience,
            method=method,
            target=target,
            body=body,
            issued_at=int(self._clock()),
            nonce=secrets.token_bytes(NONCE_LENGTH),
        )
        headers = {"authorization": header, "content-type": "application/json"}
        if method == "GET":
            return self._http.json(method, target, headers=headers)
        self._http.raw(method, target, body=body, headers=headers)
        return None
