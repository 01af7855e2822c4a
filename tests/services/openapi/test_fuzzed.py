"""Schemathesis asks every operation that is described, rightly and wrongly, and holds answers against the description.

The seeds are fixed, so that a failure comes again; the nightly run asks far more, each time something else.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import schemathesis
import urllib3
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from tests.services.openapi.wire import Origin

pytestmark = pytest.mark.xdist_group("openapi")

SERVICES = (
    "market",
    "sms",
    "scheduler",
    "indexer",
    "gateway",
    "compass",
    "resultproxy",
    "collateral",
    "network",
    "operations",
)
EDGE = {414, 431}
"""Refusals of the edge, which every operation may get and none names."""

FORMS = (not_a_server_error, status_code_conformance, content_type_conformance)
MOST_OPEN = {"issueNonce"}
"""Operations that bound what is open: a long run meets the bound, and the service says 503 as it should."""


@pytest.fixture(scope="module")
def document(origin: Origin) -> dict[str, Any]:
    """The description without the word for any other refusal, which would let every status pass."""
    found: dict[str, Any] = urllib3.request("GET", f"{origin.url}/openapi.json", retries=False).json()
    for item in found["paths"].values():
        for operation in item.values():
            operation["responses"].pop("default", None)
    return found


@pytest.fixture(scope="module")
def session() -> Iterator[requests.Session]:
    with requests.Session() as kept:
        yield kept


def ask_all(
    origin: Origin, document: dict[str, Any], session: requests.Session, service: str, *, examples: int, start: int
) -> int:
    """Ask every operation of a service in every way; returns how many requests were made."""
    schema = schemathesis.openapi.from_dict(document)
    schema.config.update(base_url=origin.url)
    asked = 0

    def hold(case: schemathesis.Case) -> None:
        nonlocal asked
        response = case.call(session=session, timeout=30)
        asked += 1
        assert b"Traceback" not in response.content
        if response.status_code in EDGE:
            return
        operation = case.operation.definition.raw
        if response.status_code == 503 and operation["operationId"] in MOST_OPEN:
            return
        checks = [*FORMS]
        if is_lines(operation) and response.status_code == 200:
            for line in response.text.splitlines():
                json.loads(line)
        else:
            checks.append(response_schema_conformance)
        case.validate_response(response, checks=checks)

    for found in schema.get_all_operations():
        operation = found.ok()
        if service not in operation.definition.raw["tags"]:
            continue
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):

            @seed(start)
            @settings(
                max_examples=examples,
                deadline=None,
                database=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
                report_multiple_bugs=False,
            )
            @given(case=operation.as_strategy(generation_mode=mode))
            def walk(case: schemathesis.Case) -> None:
                hold(case)

            try:
                walk()
            except Unsatisfiable:
                assert mode is GenerationMode.NEGATIVE, f"{operation.label}: no right request can be made"
    return asked


def is_lines(operation: dict[str, Any]) -> bool:
    """Kubo's streams say application/json and are one object a line."""
    bodies = operation["responses"].get("200", {}).get("content", {})
    schema = bodies.get("application/json", {}).get("schema", {})
    return "object a line" in schema.get("description", "")


@pytest.mark.parametrize("service", SERVICES)
def test_every_operation_answers_as_described(
    origin: Origin, document: dict[str, Any], session: requests.Session, service: str
) -> None:
    assert ask_all(origin, document, session, service, examples=6, start=20261121) > 0


@pytest.mark.nightly
@pytest.mark.parametrize("service", SERVICES)
def test_every_operation_answers_as_described_whatever_is_asked(
    origin: Origin, document: dict[str, Any], session: requests.Session, service: str
) -> None:
    start = random.SystemRandom().randrange(2**32)
    print(f"seed {start}")
    assert ask_all(origin, document, session, service, examples=200, start=start) > 0
