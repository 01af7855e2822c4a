"""iExec's own clients, unchanged from npm, against a live network: one test for each flow under ``clients/``."""

from __future__ import annotations

import pytest
from tests.interop.flows import Flows, find_flows


@pytest.mark.parametrize("flow", find_flows())
def test_flow(flow: str, flows: Flows) -> None:
    outcome = flows.outcome(flow)
    if outcome.skipped:
        pytest.skip(outcome.skipped)
    problem = outcome.problem()
    if problem:
        pytest.fail(problem, pytrace=False)
