"""Cloister: compute on data that nobody may see."""

from __future__ import annotations

__version__ = "0.1.0"
