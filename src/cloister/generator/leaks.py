"""Secrets in the author's own files: a bundle is public, so whatever lies in it is known to everybody, for good.

A finding names file, line and kind, never the value. What is searched for are the documented forms of keys and tokens,
and literals that are given to names such as ``password``. It is a net with holes: that nothing is found proves nothing.
A line that holds ``not-a-secret`` (in a comment) is passed over.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cloister.generator import node_modules
from cloister.generator.settings import SETTINGS_NAME
from cloister.generator.sources import source_files

ALLOW = "not-a-secret"
MAX_LEAKS = 1000
_BESIDE = (SETTINGS_NAME, "Containerfile")
"""What is no file of the app, and is in its manifest or its image all the same."""
_FILE_CAP = 8 << 20
"""Of larger files the front is read."""
_LINE_CAP = 20_000

_FORMS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("age private key", re.compile(r"\bAGE-SECRET-KEY-1[0-9A-Z]{58}\b")),
    ("AWS access key", re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b")),
    ("GitHub token", re.compile(r"\b(?:gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_[A-Za-z0-9_]{60,255})\b")),
    ("GitLab token", re.compile(r"\bglpat-[A-Za-z0-9_-]{20,}")),
    ("Slack token", re.compile(r"\bxox[abprse]-[0-9A-Za-z-]{10,}|\bxapp-[0-9]-[A-Z0-9]+-[0-9]+-[a-z0-9]+")),
    ("Slack webhook", re.compile(r"hooks\.slack\.com/services/T[A-Z0-9]{6,}/B[A-Z0-9]{6,}/[A-Za-z0-9]{16,}")),
    ("Stripe key", re.compile(r"\b[sr]k_(?:live|test)_[0-9A-Za-z]{16,}")),
    ("Google API key", re.compile(r"\bAIza[0-9A-Za-z_-]{35}(?![0-9A-Za-z_-])")),
    ("Google OAuth secret", re.compile(r"\bGOCSPX-[0-9A-Za-z_-]{28}(?![0-9A-Za-z_-])")),
    ("API key", re.compile(r"\bsk-(?:proj-|ant-|svcacct-)?[A-Za-z0-9_-]{32,}")),
    ("Hugging Face token", re.compile(r"\bhf_[A-Za-z0-9]{34,}\b")),
    ("npm token", re.compile(r"\bnpm_[A-Za-z0-9]{36}\b")),
    ("PyPI token", re.compile(r"\bpypi-AgE[A-Za-z0-9_-]{50,}")),
    ("SendGrid key", re.compile(r"\bSG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}(?![A-Za-z0-9_-])")),
    ("Telegram bot token", re.compile(r"\b[0-9]{8,10}:AA[A-Za-z0-9_-]{33}(?![A-Za-z0-9_-])")),
    ("JSON Web Token", re.compile(r"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}")),
    (
        "password in an address",
        re.compile(r"\b[a-z][a-z0-9+.-]{1,20}://[^\s/:@\"'{}$<>]{1,100}:(?P<value>[^\s/@\"'{}$<>]{3,200})@"),
    ),
)
_PEM = re.compile(r"-----BEGIN (?:[A-Z0-9]{1,20} ){0,4}PRIVATE KEY(?: BLOCK)?-----")
_PEM_CONTENT = re.compile(r"[A-Za-z0-9+/]{32}")
_PEM_LINES = 6
"""Lines in which the content of a PEM key begins: its headers may come first."""
_NAMED = re.compile(
    # From the word that makes a name one of a secret; what stands before it is found from there. Every repeat is bounded:
    # a line may be made to cost time.
    r"""(?:
            passw(?:or)?d|passphrase|pwd|secret|token|api_?key|access_?key|private_?key|priv_?key|signing_?key
            |wallet_?key|client_?key|encryption_?key|mnemonic|credential|auth
        )(?P<rest>[A-Za-z0-9_-]{0,40})["'\]]{0,3}[ \t]{0,20}(?::[ \t]{0,4}[A-Za-z_][A-Za-z0-9_\[\]| ]{0,40})?[ \t]{0,20}
        (?:=>|:=|=(?!=)|:)[ \t]{0,20}
        (?:[bru]{0,2}|String\()(?P<quote>["'`])(?P<value>[^"'`\n]{6,400})(?P=quote)""",
    re.VERBOSE | re.IGNORECASE,
)
_NAME_BEFORE = re.compile(r"[A-Za-z0-9_.-]{0,40}$")
_KEY_WORD = re.compile(r"key|secret|wallet|signer|mnemonic|private|seed", re.IGNORECASE)
_HEX_KEY = re.compile(r"(?<![0-9A-Za-z])(?:0x)?[0-9a-fA-F]{64}(?![0-9A-Za-z])")
_PUBLIC_WORD = re.compile(r"public|digest|hash|sha256|sha-256|checksum|integrity|root|topic", re.IGNORECASE)
# Names that say where a secret is, or what it is about, and not what it is.
_NAME_ONLY = re.compile(
    r"(?:_?(?:name|names|id|ids|path|file|files|folder|dir|url|uri|type|kind|env|var|variable|field|header|hint|prompt|label|"
    r"title|message|error|regex|pattern|format|length|count|number|index|prefix|suffix|option|param|parameter))$|author|tokenizer",
    re.IGNORECASE,
)
_PLACEHOLDER = re.compile(
    r"(?:your|my|the|an?|some|change|replace|example|sample|dummy|fake|test|mock|placeholder|insert|redacted|todo|none|null|"
    r"undefined|true|false|secret|password|passwd|pass|token)\b|.*(?:example|placeholder|changeme|change[-_]me|xxxx|\.\.\.|…|\*\*\*)|"
    r".*[<>{}$%]|(?:iexec|cloister)_|env[:.]",
    re.IGNORECASE,
)
_PASSWORD = re.compile(r"passw|passphrase|pwd", re.IGNORECASE)
_WORD = re.compile(r"[a-z]{6,}")
_TYPES = frozenset({"string", "number", "boolean", "object", "required", "optional", "hidden"})
_IDENTIFIER = re.compile(r"[A-Z][A-Z0-9_]*|[a-z]+([_.-][a-z]+)*|/.*|\.{1,2}/.*|[A-Za-z]+:")
_FILES: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("environment file", re.compile(r"(.*/)?[^/]*\.env(\.(local|production|prod|dev|development))?$")),
    (
        "key store",
        re.compile(r".*\.(p12|pfx|jks|keystore|kdbx|ppk)$|(.*/)?(id_rsa|id_ed25519|id_ecdsa|id_dsa)$", re.IGNORECASE),
    ),
    ("wallet", re.compile(r"(.*/)?(UTC--[0-9TZ.:-]+--[0-9a-fA-F]{40}|wallet\.json|accounts\.json|keystore/.*)$")),
    (
        "credentials file",
        re.compile(r"(.*/)?(credentials(\.json)?|service[-_]account[^/]*\.json|\.?netrc|\.?npmrc|\.?pypirc)$"),
    ),
)
_MIN_ENTROPY = 2.5
"""Bits per character below which a literal of letters only is a word, not a key."""


@dataclass(frozen=True, slots=True)
class Leak:
    """Something that looks like a secret. ``line`` counts from 1; 0 says that the file itself is the finding."""

    path: str
    line: int
    kind: str

    def to_json(self) -> dict[str, Any]:
        """As JSON for machines."""
        return asdict(self)


def find_leaks(folder: Path) -> tuple[Leak, ...]:
    """Search what a bundle of ``folder`` would hold of the author's own files, ``iapp.toml`` and the ``Containerfile``.

    Raises:
        InputError: a file that may not be in a bundle.
    """
    folder = folder.resolve()
    found: list[Leak] = []
    beside = [(name, folder / name) for name in _BESIDE if (folder / name).is_file()]
    members = [*beside, *source_files(folder, node_modules.OUTSIDE)]
    for name, path in members:
        found += _file_leaks(name, path)
        if len(found) >= MAX_LEAKS:
            break
    return tuple(found[:MAX_LEAKS])


def _file_leaks(name: str, path: Path) -> Iterator[Leak]:
    for kind, pattern in _FILES:
        if pattern.fullmatch(name):
            yield Leak(name, 0, kind)
    with path.open("rb") as file:
        content = file.read(_FILE_CAP)
    if b"\x00" in content[:4096]:
        return
    lines = content.decode("utf-8", "replace").splitlines()
    for number, line in enumerate(lines, 1):
        if ALLOW in line:
            continue
        kinds = dict.fromkeys(line_leaks(line[:_LINE_CAP]))
        pem = _PEM.search(line[:_LINE_CAP])
        # A program that reads keys names the first line too; a key has content behind it.
        if pem and any(_PEM_CONTENT.search(text) for text in (line[pem.end() :], *lines[number : number + _PEM_LINES])):
            kinds = {"private key": None, **kinds}
        for kind in kinds:
            yield Leak(name, number, kind)


def line_leaks(line: str) -> Iterator[str]:
    """The kinds of secrets that a line looks to hold."""
    found = False
    for kind, pattern in _FORMS:
        for match in pattern.finditer(line):
            value = match.groupdict().get("value")
            if value is None or not _PLACEHOLDER.match(value):
                found = True
                yield kind
    if found:
        return
    for match in _HEX_KEY.finditer(line):
        around = line[max(0, match.start() - 80) : match.start()]
        if _KEY_WORD.search(around) and not _PUBLIC_WORD.search(around) and len(set(match[0].lower())) > 4:
            yield "64 hex digits beside a name of a key"
            return
    for match in _NAMED.finditer(line):
        before = _NAME_BEFORE.search(line[max(0, match.start() - 40) : match.start()])
        name = (before[0] if before else "") + line[match.start() : match.end("rest")]
        if not _NAME_ONLY.search(name) and _looks_secret(name, match["value"]):
            yield "literal given to a name of a secret"
            return


def _looks_secret(name: str, value: str) -> bool:
    """Whether a literal may be a secret: not a placeholder, an identifier, a path, a sentence."""
    if _PLACEHOLDER.match(value) or value.count(" ") > 1 or len(set(value)) < 4:
        return False
    if _PASSWORD.search(name) and _WORD.fullmatch(value):
        return value.lower() not in _TYPES
    if _IDENTIFIER.fullmatch(value):
        return False
    if any(character.isdigit() or not (character.isalnum() or character == " ") for character in value):
        return True
    counts = Counter(value)
    entropy = -sum(count / len(value) * math.log2(count / len(value)) for count in counts.values())
    return entropy >= _MIN_ENTROPY and any(c.isupper() for c in value[1:]) and " " not in value
