"""``cloister iapp test``: run an iApp here as production would, on mock data."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cloister.cli.session import Session

if TYPE_CHECKING:
    from cloister.generator.rehearsal import Rehearsal, Request, Stage

FAILED = 1
"""Exit code when the iApp did not end as it should."""
_STARTED = time.monotonic()
_POLL = 0.15
_STILL = 0.2
_STEPS = {
    "BUNDLE": "BUILD_BUNDLE",
    "MOCK_DATA": "SEAL_MOCK_DATA",
    "TASK": "START_ENCLAVE",
    "APP_DOWNLOADED": "ATTEST_AND_OPEN_INPUTS",
    "DATA_DOWNLOADED": "RUN_THE_IAPP",
    "COMPUTED": "CHECK_AND_SEAL_RESULT",
}
"""Where the rehearsal is -> the step that begins there."""


@dataclass(frozen=True, slots=True)
class _Places:
    """Where a rehearsal's files go. ``output`` None: the project's ``output/``."""

    folder: Path
    output: Path | None
    keep: bool


@click.command()
@click.argument("folder", type=click.Path(path_type=Path), default=Path())
@click.option("--args", help="Arguments of the app.")
@click.option(
    "--data",
    multiple=True,
    metavar="PATH",
    help="Mock protected data: a file, a folder, a .json object or a packed .zip; more than one is a bulk.",
)
@click.option(
    "--input-file",
    "input_files",
    multiple=True,
    metavar="PATH|URL",
    help="Input file: from this disk, or from its public URL; may be repeated.",
)
@click.option(
    "--private-file",
    "private_files",
    multiple=True,
    metavar="PATH",
    help="Input file, sealed to the enclave; repeatable.",
)
@click.option(
    "--secret", "secrets", multiple=True, metavar="N=@FILE", help="Requester secret N, read from a file; repeatable."
)
@click.option("--app-secret", metavar="@FILE", help="The app's own secret, read from a file.")
@click.option("--purpose", help="What the data is granted for, and what the request says it is for.")
@click.option("--callback", is_flag=True, default=None, help="As a request whose result goes to a contract.")
@click.option("--max-result-bytes", type=click.IntRange(min=0), help="The limit of the data's owner.")
@click.option("--category", default=0, show_default=True, help="Time category that the run must fit.")
@click.option("--no-mock-run", is_flag=True, help="Leave mock/run.toml aside.")
@click.option("--watch", is_flag=True, help="Run again whenever a file is saved; Ctrl-C ends it.")
@click.option("--output", "-o", type=click.Path(path_type=Path), help="Folder for results.  [default: FOLDER/output]")
@click.option("--keep", is_flag=True, help="Keep what travelled (sealed data, sealed result) in FOLDER/.cloister/kept.")
@click.option("--verbose", "-v", is_flag=True, help="Say where the time went.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
def test(
    folder: Path,
    args: str | None,
    data: tuple[str, ...],
    input_files: tuple[str, ...],
    private_files: tuple[str, ...],
    secrets: tuple[str, ...],
    app_secret: str | None,
    purpose: str | None,
    callback: bool | None,
    max_result_bytes: int | None,
    category: int,
    no_mock_run: bool,
    watch: bool,
    output: Path | None,
    keep: bool,
    verbose: bool,
    as_json: bool,
) -> None:
    """Run the iApp in FOLDER in the agent and sandbox of production, on mock data.

    What is not given here is taken from FOLDER/mock/run.toml. It fails where production would fail, with the same named
    cause, and then ends with exit code 1.
    """
    from cloister.generator.rehearsal.enclaves import Enclaves

    # The enclave starts while the rest is imported.
    enclaves = Enclaves()
    enclaves.start()

    from cloister.cli.requests import numbered, read_secret
    from cloister.generator.rehearsal import Request, Stage

    session = Session("local", None, as_json)
    places = _Places(folder, output, keep)

    def request() -> Request:
        """Read anew each time: secrets may be in files that were saved."""
        return Request(
            args=args,
            data=data[0] if len(data) == 1 else None,
            bulk=data if len(data) > 1 else None,
            input_files=input_files or None,
            private_files=private_files or None,
            secrets={number: read_secret(source) for number, source in numbered(secrets).items()} or None,
            app_secret=None if app_secret is None else read_secret(app_secret),
            purpose=purpose,
            callback=callback,
            max_result_bytes=max_result_bytes,
            category=category,
        )

    def once(stage: Stage) -> bool:
        run, saved = _rehearse(session, stage, request(), places, defaults=not no_mock_run)
        _show(session, run, saved, verbose=verbose)
        return not run.unmet

    if watch:
        _watch(session, folder, once, Stage(enclaves, warm=True))
        return
    with Stage(enclaves) as stage:
        passed = once(stage)
    if not passed:
        raise SystemExit(FAILED)


def _rehearse(
    session: Session, stage: Stage, request: Request, places: _Places, *, defaults: bool
) -> tuple[Rehearsal, list[Path]]:
    """One rehearsal with its progress shown; its result is saved."""
    from cloister.cli.iapp.build import say, warn_of_leaks
    from cloister.generator.leaks import find_leaks
    from cloister.generator.rehearsal.files import empty_folder, save_result
    from cloister.protocol.progress import ProgressMessage
    from cloister.sdk.progress import Progress

    kept = empty_folder(places.folder, "kept") if places.keep else None
    with session.progress() as tell:
        step = ""

        def hear(word: str, message: ProgressMessage | None) -> None:
            nonlocal step
            if message is not None:
                share = "" if message.fraction is None else f"{message.fraction:.0%} "
                tell(Progress(step, detail=f"{share}{message.message}"))
            elif word in _STEPS:
                if step:
                    tell(Progress(step, finished=True))
                step = _STEPS[word]
                tell(Progress(step))

        run = stage.rehearse(places.folder, request, defaults=defaults, keep=kept, listener=hear, tell=say)
        if step:
            tell(Progress(step, finished=True, detail=run.cause or ""))
    warn_of_leaks(find_leaks(places.folder))
    return run, save_result(run, places.folder, places.output)


def _show(session: Session, run: Rehearsal, saved: list[Path], *, verbose: bool) -> None:
    from cloister.cli.iapp.rehearsed import as_json, draw

    timings = dict(run.timings) | {"whole command": round(time.monotonic() - _STARTED + _before(), 4)}
    session.show(as_json(run, saved, timings), lambda: draw(run, saved, timings if verbose else {}))


def _before() -> float:
    """Seconds that this process lived before this module was imported."""
    from cloister.cli.iapp.rehearsed import process_age

    return max(0.0, process_age() - (time.monotonic() - _STARTED))


def _watch(session: Session, folder: Path, once: Callable[[Stage], bool], stage: Stage) -> None:
    """Run, wait for a change, run again. Nothing but Ctrl-C ends it."""
    from cloister.cli.iapp.rehearsed import show_error
    from cloister.errors import CloisterError, NotFound
    from cloister.generator.rehearsal.files import fingerprint

    if not folder.is_dir():
        raise NotFound(f"there is no folder {folder}", hint="cloister iapp init makes a project")
    ended = threading.Event()

    def end(_number: int, _frame: object) -> None:
        # Python loses an exception that is raised in a destructor: the word stays.
        ended.set()
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, end)
    with stage, suppress(KeyboardInterrupt):
        while not ended.is_set():
            before = fingerprint(folder)
            try:
                once(stage)
            except CloisterError as error:
                show_error(error, as_json=session.as_json)
            if not session.as_json:
                click.secho("waiting for a change; Ctrl-C ends it", dim=True, err=True)
            while fingerprint(folder) == before and not ended.wait(_POLL):
                pass
            _settle(lambda: fingerprint(folder))
    click.echo("stopped", err=True)


def _settle(look: Callable[[], object]) -> None:
    """Wait until nothing has changed for a moment: editors save in several steps."""
    last, since = look(), time.monotonic()
    while time.monotonic() - since < _STILL:
        time.sleep(_STILL / 4)
        now = look()
        if now != last:
            last, since = now, time.monotonic()
