"""The chain for tests of the SMS that want a real one."""

from __future__ import annotations

from tests.support.deployed import deployed

__all__ = ["deployed"]
