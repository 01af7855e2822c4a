"""Showing a rehearsal, to people and to machines."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cloister.errors import CloisterError
    from cloister.generator.rehearsal import Rehearsal

TEXT_CAP = 2000
"""Longest text file that is shown whole, bytes."""
LINES = 40
"""Most lines of a stream that are shown: its last."""
_IMAGES = (".png", ".jpg", ".jpeg", ".svg", ".gif", ".webp")
_QUIET = ("computed.json",)
_MIB = 1 << 20


def as_json(run: Rehearsal, saved: list[Path], timings: Mapping[str, float]) -> dict[str, Any]:
    """All of a rehearsal for machines; ``ok`` says whether it ended as it should."""
    from cloister.generator.causes import explain

    meaning = None if run.cause is None else explain(run.cause)
    resources = run.manifest.resources
    return {
        "ok": not run.unmet,
        "app": {
            "name": run.manifest.name,
            "version": run.manifest.version,
            "runtime": run.manifest.runtime,
            "digest": run.digest,
            "bundle_bytes": run.bundle_bytes,
        },
        "cause": run.cause,
        "message": run.message,
        "meaning": None if meaning is None else meaning.text,
        "advice": None if meaning is None else meaning.advice,
        "unmet": list(run.unmet),
        "warnings": list(run.warnings),
        "exit_code": run.exit_code,
        "files": [{"name": name, "size": len(content)} for name, content in run.files.items()],
        "saved": [str(path) for path in saved],
        "callback": "0x" + run.callback.hex(),
        "progress": [{"fraction": fraction, "message": message} for fraction, message in run.progress],
        "stdout": run.stdout,
        "stderr": run.stderr,
        "seconds": run.seconds,
        "peak_memory_bytes": run.peak_memory_bytes,
        "limits": {
            "seconds": resources.seconds,
            "memory_bytes": resources.memory_mib * _MIB,
            "disk_bytes": resources.disk_mib * _MIB,
            "processes": resources.processes,
        },
        "receipt_verified": run.receipt is not None,
        "enclave": "simulated",
        "notice": run.notice,
        "timings": dict(timings),
    }


def draw(run: Rehearsal, saved: list[Path], timings: Mapping[str, float]) -> None:
    """A rehearsal for people: what came out, what it printed, what it took, and whether that is as it should be."""
    from rich.text import Text

    from cloister.cli.render import console, errors, facts

    for name, stream in (("stdout", run.stdout), ("stderr", run.stderr)):
        _draw_stream(name, stream)
    _draw_files(run, saved)
    facts(_facts(run, timings))
    for warning in run.warnings:
        errors.print(Text(f"warning: {warning}", style="yellow"))
    errors.print(Text(run.notice, style="bold yellow"))
    if run.cause is not None:
        _draw_cause(run, run.cause)
    if run.unmet:
        for sentence in run.unmet:
            if run.expected is not None:
                errors.print(Text(sentence, style="bold red"))
    elif run.cause is not None:
        console.print(Text("as mock/run.toml expects", style="green"))


def _facts(run: Rehearsal, timings: Mapping[str, float]) -> list[tuple[str, object]]:
    resources = run.manifest.resources
    app = f"{run.manifest.name} {run.manifest.version}  {run.manifest.runtime}, {_size(run.bundle_bytes)}, {run.digest}"
    found: list[tuple[str, object]] = [("app", app)]
    if run.exit_code is not None:
        found.append(("exit code", run.exit_code))
        found.append(("time", f"{run.seconds:.2f} s of {resources.seconds} s"))
        # Memory is looked at some forty times a second; what is over before is not seen.
        used = _size(run.peak_memory_bytes) if run.peak_memory_bytes else "too short to be seen,"
        found.append(("memory", f"{used} of {resources.memory_mib} MiB"))
    if run.callback:
        found.append(("callback data", f"0x{run.callback.hex()}"))
    if run.receipt is not None:
        found.append(("receipt", "holds, checked offline"))
    found += [(f"  {name}", f"{seconds:.3f} s") for name, seconds in timings.items()]
    return found


def _draw_stream(name: str, text: str) -> None:
    import click

    lines = text.rstrip("\n").splitlines()
    if not text.strip():
        return
    click.secho(f"--- {name}", dim=True)
    if len(lines) > LINES:
        click.secho(f"… {len(lines) - LINES} lines before", dim=True)
    for line in lines[-LINES:]:
        click.echo(_printable(line))


def _draw_files(run: Rehearsal, saved: list[Path]) -> None:
    import click

    from cloister.cli.render import table

    paths = dict(zip(run.files, saved, strict=True))
    rows = [(name, _size(len(content)), _short(paths[name])) for name, content in run.files.items()]
    table("results", ("file", "size", "saved"), rows, empty="none")
    for name, content in run.files.items():
        if name in _QUIET or name.endswith(_IMAGES) or not 0 < len(content) <= TEXT_CAP:
            continue
        try:
            text = content.decode()
        except UnicodeDecodeError:
            continue
        if "\0" not in text:
            click.secho(f"--- {name}", dim=True)
            for line in text.rstrip("\n").splitlines():
                click.echo(_printable(line))


def _draw_cause(run: Rehearsal, cause: str) -> None:
    from rich.text import Text

    from cloister.cli.render import errors
    from cloister.generator.causes import explain

    meaning = explain(cause)
    errors.print(Text(f"failed: {cause}", style="bold red" if run.unmet else "bold"))
    for text in (run.message, None if meaning is None else meaning.text, None if meaning is None else meaning.advice):
        if text:
            errors.print(Text(f"  {text}"))


def _printable(line: str) -> str:
    """A line of somebody else's without control codes: they could rewrite the screen."""
    return "".join(c if c.isprintable() or c == "\t" else "\ufffd" for c in line)


def _short(path: Path) -> str:
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def _size(count: int) -> str:
    for unit, scale in (("GiB", 1 << 30), ("MiB", _MIB), ("KiB", 1 << 10)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count} B"


def show_error(error: CloisterError, *, as_json: bool) -> None:
    """An error that does not end the command, as the command line shows errors."""
    import json

    import click

    if as_json:
        value = {"code": error.code, "message": error.message, "hint": error.hint}
        click.echo(json.dumps({"error": value}), err=True)
        return
    click.secho(f"error: {error.message}", fg="red", err=True)
    if error.hint:
        click.echo(f"hint:  {error.hint}", err=True)


def process_age() -> float:
    """Seconds since this process began; 0 where the kernel does not tell."""
    try:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        begun = int(fields[19]) / os.sysconf("SC_CLK_TCK")
        return time.clock_gettime(time.CLOCK_BOOTTIME) - begun
    except (OSError, ValueError, IndexError):
        return 0.0
