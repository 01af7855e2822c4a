"""Fixtures of the transport's tests."""

from __future__ import annotations

from tests.support.http import peer

__all__ = ["peer"]
