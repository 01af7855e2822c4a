"""The words on the wire: orders, deals, tasks, signatures and the rules that bind them.

Pure: no I/O, no clock, no randomness.
"""

from __future__ import annotations
