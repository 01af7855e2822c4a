"""Puts Compass together."""

from __future__ import annotations

from cloister.services.compass.http import CompassPart
from cloister.services.compass.settings import CompassSettings


def build_compass_part(settings: CompassSettings) -> CompassPart:
    """Build Compass over its file."""
    return CompassPart(settings)
