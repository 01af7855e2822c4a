"""What an iApp imports: its arguments, protected data, secrets, results and progress, inside the enclave.

Standard library and ``cloister.datasets`` only, so that ``from cloister import iapp`` costs next to nothing.
"""

from __future__ import annotations
