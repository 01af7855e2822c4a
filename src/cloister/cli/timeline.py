"""Drawing what became of a task: its timeline, and why an app failed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from cloister.cli.render import console, errors

if TYPE_CHECKING:
    from cloister.sdk.debugging import Event

BAR = 30


def draw_timeline(events: Sequence[Event]) -> None:
    """One line an event: seconds since the first, a bar up to the next, who, what."""
    if not events:
        return
    times = [datetime.fromisoformat(event.date).timestamp() for event in events]
    begin, whole = times[0], max(times[-1] - times[0], 1e-9)
    drawn = Table(title="timeline", title_justify="left", header_style="bold", box=None, pad_edge=False)
    for name in ("seconds", "", "by", "status", "cause"):
        drawn.add_column(name, justify="right" if name == "seconds" else "left", overflow="fold")
    for position, (event, at) in enumerate(zip(events, times, strict=True)):
        until = times[position + 1] if position + 1 < len(times) else at
        left = round(BAR * (at - begin) / whole)
        width = max(1, round(BAR * (until - begin) / whole) - left)
        who = "scheduler" if event.worker is None else f"worker {event.worker[:8]}…"
        bar = Text(" " * left + "━" * width, style="cyan" if event.cause is None else "red")
        drawn.add_row(f"{at - begin:.2f}", bar, who, event.status.lower().replace("_", " "), event.cause or "")
    console.print(drawn)


def draw_failure(cause: str, message: str | None) -> None:
    """The named cause, what it means and what to do."""
    from cloister.generator.causes import explain

    meaning = explain(cause)
    errors.print(Text(f"the app failed: {cause}", style="bold red"))
    for text in (message, None if meaning is None else meaning.text, None if meaning is None else meaning.advice):
        if text:
            errors.print(Text(f"  {text}"))
