"""Talking to an EVM chain: JSON-RPC, typed contracts, a sender of transactions, a reader of events."""

from __future__ import annotations
