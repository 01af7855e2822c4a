"""Secrets in the source: found by file, line and kind, and never shown."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest
from tests.generator.wheels import write_app

from cloister.generator.leaks import Leak, find_leaks, line_leaks

# Put together here, so that no scanner takes this file for a leak.
FOUND = {
    "AWS access key": "key = 'AKIA" + "Q3EGJ7PLW2ZX5TVB'",
    "GitHub token": "ghp_" + "a1B2" * 9,
    "GitLab token": "glpat-" + "x1Y2z3" * 4,
    "Slack token": "xoxb-" + "123456789012-abcdef",
    "Slack webhook": "https://hooks.slack.com/services/T" + "ABCDEF12/B1234567/" + "a1" * 12,
    "Stripe key": "sk_live_" + "4eC39HqLyjWDarjtT1zdp7dc",
    "Google API key": "AIza" + "SyD-9tSrke72PouQMnMX-a7eZSW0jkFMBWY",
    "API key": "client = OpenAI('sk-proj-" + "Ab1_" * 12 + "')",
    "Hugging Face token": "hf_" + "aBcDeFgH" * 5,
    "npm token": "npm_" + "a1b2" * 9,
    "JSON Web Token": ".".join(["eyJhbGciOiJIUzI1NiJ9", "eyJzdWIiOiIxMjM0In0", "c2lnbmF0dXJl"]),
    "password in an address": "postgres://app:" + "s3cr3tpw@db.internal/app",
    "age private key": "AGE-SECRET-KEY-1" + "QPZRY9X8GF2T" * 4 + "QPZRY9X8GF",
    "64 hex digits beside a name of a key": "PRIVATE_KEY = '0x" + "4c0883a69102937d6231471b5dbb6204" * 2 + "'",
}
NAMED = [
    "password = 'hunter2!'",
    'DB_PASSWORD: str = "correcthorse"',
    '"apiKey": "9f8a7b6c5d4e3f2a"',
    "const clientSecret = `Zx9-Yw8-Vu7`;",
    'auth_token := "k3J9dkQ0a"',
    "config['secret'] = b'3q2+7w=='",
    "api_key => 'AbCdEfGhIjKlMnOp'",
]
CLEAN = [
    "password = os.environ['IEXEC_APP_DEVELOPER_SECRET']",
    "password = getpass.getpass('the password: ')",
    "secret = iapp.secret(1)",
    "PASSWORD_FIELD = 'user.password'",
    "SECRET_NAME = 'IEXEC_REQUESTER_SECRET_1'",
    "token = 'your-token-here'",
    "password = '<your password>'",
    "api_key = '${API_KEY}'",
    "author = 'Ada Lovelace 1815'",
    "tokenizer = 'bert-base-uncased-v2'",
    "if password == 'x1y2z3w4': pass",
    "sha256 = '" + "ab12" * 16 + "'",
    "public_key = '" + "ab12" * 16 + "'",
    "digest of the key: " + "ab12" * 16,
    "key = '" + "0" * 64 + "'",
    "see https://example.org:8080/path and user@example.org",
    "https://USER:{password}@host/",
    "secret = 'a secret that only the enclave gets'",
    'hint="a PEM file: -----BEGIN PRIVATE KEY-----"',
    "token_url = 'https://login.example/v2/token'",
    "keyboard = 'qwerty123'",
]


@pytest.mark.parametrize("kind", list(FOUND))
def test_documented_forms_are_found(kind: str) -> None:
    assert kind in list(line_leaks(FOUND[kind]))


@pytest.mark.parametrize("line", NAMED)
def test_literals_given_to_names_of_secrets_are_found(line: str) -> None:
    assert list(line_leaks(line)) == ["literal given to a name of a secret"]


@pytest.mark.parametrize("line", CLEAN)
def test_what_is_no_secret_is_passed_over(line: str) -> None:
    assert list(line_leaks(line)) == []


def test_findings_name_file_and_line_and_not_the_value(tmp_path: Path) -> None:
    app = write_app(tmp_path / "app")
    pem = base64.b64encode(os.urandom(48)).decode()
    (app / "pkg").mkdir()
    (app / "main.py").write_text(
        f"import os\npassword = 'hunter2!'\nother = 'x'; pwd = 'hunter2!'  # not-a-secret\n"
        f"KEY = '''-----BEGIN EC PRIVATE KEY-----\n{pem}\n-----END EC PRIVATE KEY-----'''\n"
    )
    (app / "pkg" / "prod.env").write_text("A=1\n")
    (app / "id_ed25519").write_bytes(b"\0\1")
    for outside in ("tests", "mock", ".hidden", "node_modules"):
        (app / outside).mkdir()
        (app / outside / "x.py").write_text("password = 'hunter2!'\n")
    (app / "iapp.toml").write_text((app / "iapp.toml").read_text() + "# token = 'a1b2c3d4e5'\n")
    (app / "blob.bin").write_bytes(b"\0password = 'hunter2!'\n")
    leaks = find_leaks(app)
    assert leaks == (
        Leak("iapp.toml", 5, "literal given to a name of a secret"),
        Leak("id_ed25519", 0, "key store"),
        Leak("main.py", 2, "literal given to a name of a secret"),
        Leak("main.py", 4, "private key"),
        Leak("pkg/prod.env", 0, "environment file"),
    )
    assert "hunter2" not in repr([leak.to_json() for leak in leaks])


def test_lines_made_to_be_slow_are_read_to_the_end(tmp_path: Path) -> None:
    """With an unbounded pattern this takes minutes."""
    app = write_app(tmp_path / "app")
    lines = ["secret" * 9000, "auth_" * 9000, "password = " * 9000, "https://a" + ":a" * 9000, "token" + " " * 50_000]
    (app / "main.py").write_text("\n".join([*lines, "password = 'hunter2!'"]))
    assert [leak.line for leak in find_leaks(app)] == [6]


def test_templates_and_apps_of_this_project_are_clean() -> None:
    root = Path(__file__).parents[2]
    folders = [
        path.parent
        for path in [*root.glob("apps/*/iapp.toml"), *root.glob("src/cloister/generator/templates/*/iapp.toml")]
    ]
    assert folders
    assert {folder.name: find_leaks(folder) for folder in folders} == {folder.name: () for folder in folders}
