"""Drawing for people: tables, steps with bars, balances. No logic lives here."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Self

from rich.console import Console, RenderableType
from rich.progress import Progress, ProgressColumn, SpinnerColumn, Task, TaskID, TextColumn
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from cloister.attestation.assurance import warning_for
from cloister.attestation.evidence import EvidenceKind
from cloister.protocol.units import format_rlc
from cloister.sdk.progress import Progress as Step

BAR_WIDTH = 24
PIPED_WIDTH = 300
"""Columns when nobody's terminal says otherwise: addresses and hashes stay in one piece."""


def _console(*, stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, highlight=False, width=None if stream.isatty() else PIPED_WIDTH)


console = _console(stderr=False)
errors = _console(stderr=True)


TITLES = {
    "EXTRACT_DATA_SCHEMA": "pack",
    "UPLOAD_ENCRYPTED_FILE": "encrypt and upload",
    "DEPLOY_PROTECTED_DATA": "mint on chain",
    "PUSH_SECRET_TO_SMS": "hand the key to the SMS",
    "CREATE_DATASET_ORDER": "sign the grant",
    "PUBLISH_DATASET_ORDER": "publish the grant",
    "RETRIEVE_ALL_GRANTED_ACCESS": "find grants",
    "REVOKE_ONE_ACCESS": "close on chain",
    "UPLOAD_BUNDLE": "upload the bundle",
    "DEPLOY_APP": "register on chain",
    "FETCH_ORDERS": "find orders",
    "PUSH_REQUESTER_SECRET": "hand over a secret",
    "PUSH_ENCRYPTION_KEY": "hand over the result key",
    "DEPOSIT": "deposit what is missing",
    "REQUEST_TO_PROCESS_PROTECTED_DATA": "make the deal",
    "TASK_EXECUTION": "run in the enclave",
    "TASK_RESULT_DOWNLOAD": "download and open",
}


class _Mark(SpinnerColumn):
    """Turns while a step runs; then says how it ended."""

    def __init__(self) -> None:
        super().__init__(finished_text="[green]✓")

    def render(self, task: Task) -> RenderableType:
        return Text("✗", style="red") if task.fields["failed"] else super().render(task)


class _Seconds(ProgressColumn):
    """Seconds that a step took, or has taken so far."""

    def render(self, task: Task) -> Text:
        elapsed = task.finished_time if task.finished else task.elapsed
        return Text(f"{elapsed or 0.0:6.1f} s", style="dim")


class _Bar(ProgressColumn):
    """A bar while a step with a size runs; nothing otherwise."""

    def render(self, task: Task) -> Text | ProgressBar:
        if task.finished or task.total is None or task.completed == 0:
            return Text("")
        return ProgressBar(total=task.total, completed=task.completed, width=BAR_WIDTH)


class StepDisplay:
    """One line per step, with a bar and its size where it has one."""

    def __init__(self) -> None:
        self._display = Progress(
            _Mark(),
            TextColumn("{task.description:<26}"),
            _Seconds(),
            _Bar(),
            TextColumn("{task.fields[detail]}", style="dim"),
            console=errors,
        )
        self._rows: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._display.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            for task in self._display.tasks:
                if not task.finished:
                    self._display.update(task.id, failed=True)
        self._display.stop()

    def update(self, step: Step) -> None:
        """Draw one step's state."""
        if step.step not in self._rows:
            row = self._display.add_task(
                TITLES.get(step.step, step.step.lower().replace("_", " ")), total=1, detail="", failed=False
            )
            self._rows[step.step] = row
        row = self._rows[step.step]
        detail = step.detail
        if step.done is not None:
            detail = _size(step.done) if step.total is None else f"{_size(step.done)} of {_size(step.total)}"
            # A sized step is finished by its end, not by its last byte: what follows it takes time too.
            share = 0.0 if not step.total else min(0.99, step.done / step.total)
            self._display.update(row, completed=share)
        if step.fraction is not None:
            self._display.update(row, completed=min(0.99, step.fraction))
        if step.fraction is not None:
            self._display.update(row, completed=min(0.99, step.fraction))
        if step.finished:
            self._display.update(row, completed=1)
        if detail:
            self._display.update(row, detail=detail)


def _size(count: int) -> str:
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{count} B"


def table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str = "nothing found"
) -> None:
    """Draw a table; say so when it is empty."""
    drawn = Table(header_style="bold", box=None, pad_edge=False)
    for column in columns:
        drawn.add_column(column, overflow="fold")
    count = 0
    for count, row in enumerate(rows, 1):  # noqa: B007  (counted for the check below)
        drawn.add_row(*("" if cell is None else str(cell) for cell in row))
    if count:
        console.print(title, style="italic", soft_wrap=True)  # not the table's own title: that folds at its width
        console.print(drawn)
    else:
        console.print(f"{title}: {empty}", style="dim")


def facts(pairs: Iterable[tuple[str, object]]) -> None:
    """Draw names and values, one per line."""
    drawn = Table(box=None, show_header=False, pad_edge=False)
    drawn.add_column(style="bold")
    drawn.add_column(overflow="fold")
    for name, value in pairs:
        drawn.add_row(name, "" if value is None else str(value))
    console.print(drawn)


def enclave_notice(kind: str) -> None:
    """Say what enclaves of a kind are not worth; nothing for hardware that encrypts memory."""
    warning = warning_for(EvidenceKind(kind)) if kind in set(EvidenceKind) else f"enclaves of the unknown kind {kind}"
    if warning:
        errors.print(Text(warning, style="bold yellow"))


def rlc(amount: int) -> str:
    """An amount for people."""
    return format_rlc(amount)
