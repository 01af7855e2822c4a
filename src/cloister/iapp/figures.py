"""Pictures as results. Nothing is imported but what the iApp has imported already, and nothing global is set."""

from __future__ import annotations

import io
import sys
from contextlib import nullcontext
from pathlib import Path, PurePath
from typing import Any

from cloister.errors import InputError, NotFound, quoted
from cloister.iapp.outputs import write

_UNDATED: dict[str, dict[str, None]] = {
    ".png": {"Software": None},
    ".svg": {"Date": None, "Creator": None},
    ".pdf": {"CreationDate": None, "Producer": None, "Creator": None},
}
"""What matplotlib would write of itself and of the time: two workers' pictures would differ."""
_PICTURES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".gif": "GIF", ".tiff": "TIFF"}


def plot(figure: Any = None, name: str = "plot.png", *, dpi: float | None = None) -> Path:
    """Write a picture; the suffix says how. Returns where it lies.

    ``figure`` is a matplotlib figure or Axes, anything with ``savefig``, a PIL image, or None for pyplot's current figure.
    The same picture gives the same bytes: no times, no versions.

    Raises:
        NotFound: no figure was drawn. InputError: nothing that can be drawn, or a name that cannot be a result's.
    """
    figure = _current() if figure is None else figure
    for member in ("figure_", "figure"):  # scikit-learn's displays; matplotlib's Axes
        if not hasattr(figure, "savefig"):
            figure = getattr(figure, member, figure)
    suffix, drawn = PurePath(name).suffix.lower(), io.BytesIO()
    try:
        if hasattr(figure, "savefig"):
            options: dict[str, object] = {} if dpi is None else {"dpi": dpi}
            with _fixed_ids():
                figure.savefig(drawn, format=suffix[1:] or "png", metadata=_UNDATED.get(suffix or ".png"), **options)
        elif hasattr(figure, "save") and hasattr(figure, "getbands"):
            figure.save(drawn, format=_PICTURES.get(suffix, suffix[1:] or "PNG"))
        else:
            raise InputError(f"a value of type {quoted(type(figure).__name__)} is no figure and no picture")
    except (ValueError, KeyError) as error:
        raise InputError(f"{quoted(name)} cannot be drawn: {quoted(str(error))}") from error
    return write(name, drawn.getvalue())


def _current() -> Any:
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is None or not pyplot.get_fignums():
        raise NotFound("there is no figure: draw one with matplotlib.pyplot, or give one")
    return pyplot.gcf()


def _fixed_ids() -> Any:
    """SVG names its parts at random unless it is told a salt."""
    matplotlib = sys.modules.get("matplotlib")
    return nullcontext() if matplotlib is None else matplotlib.rc_context({"svg.hashsalt": "iapp"})
