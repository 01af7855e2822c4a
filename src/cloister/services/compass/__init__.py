"""Compass: where the scheduler of a workerpool answers, and which app a well-known name means (iExec's Compass API)."""
