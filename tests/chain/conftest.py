"""Fixtures of the tests that talk to a real chain."""

from __future__ import annotations

from tests.support.anvil import anvil, still_anvil

__all__ = ["anvil", "still_anvil"]
