"""Walking a page of commands as a reader would: every ``$`` line is run, and what it prints is held against the page.

In a ``console`` block a line that begins with ``$ `` is a command (a backslash at its end goes on in the next line), the
lines after it are what it prints. The page holds the output of a real run, so what differs from run to run is compared by
its shape: addresses, hashes, content ids, ports, seconds, sizes, dates, and ``…`` for anything. An address of the page
stands for the one that was printed in its place, from then on and in commands too, and must stay the same one. A line that
is only ``…`` stands for any lines. A command fails exactly where the page shows an ``error:``.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

END = "end-of-command-9f2c"
STEP_SECONDS = 300
_TOKEN = re.compile(
    r"(?P<name>0x[0-9a-fA-F]{8,}|Qm[1-9A-HJ-NP-Za-km-z]{44})"
    r"|(?P<moment>\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|\+00:00| UTC)?)"
    r"|(?P<amount>\d+(?:\.\d+)? (?:s|B|KiB|MiB|GiB)\b)"
    r"|(?P<port>127\.0\.0\.1:\d+)"
    r"|(?P<any>…)"
    r"|(?P<space>\s+)"
)
_SHAPES = {
    "moment": r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|\+00:00| UTC)?",
    "amount": r"\d+(?:\.\d+)? (?:s|B|KiB|MiB|GiB)",
    "port": r"127\.0\.0\.1:\d+",
    "any": ".*",
    "space": r"\s+",
}


@dataclass(frozen=True)
class Command:
    """One command of a page and the lines that it is to print."""

    text: str
    expected: tuple[str, ...]

    @property
    def fails(self) -> bool:
        """Whether the page shows that it fails."""
        return any(line.startswith("error:") for line in self.expected)


@dataclass(frozen=True)
class Step:
    """A command that was run: how long it took, and what it printed."""

    command: str
    seconds: float
    output: str


class Differs(AssertionError):
    """The page and the program do not say the same."""


def read_page(page: Path) -> list[Command]:
    """The commands of a page, in order."""
    commands: list[Command] = []
    for block in re.findall(r"^```console\n(.*?)^```", page.read_text("utf-8"), re.MULTILINE | re.DOTALL):
        text, lines = "", []
        for line in [*block.splitlines(), "$ "]:
            if text.endswith("\\"):
                text = text[:-1] + line
            elif line.startswith("$ "):
                if text:
                    commands.append(Command(text, tuple(lines)))
                text, lines = line[2:], []
            elif line.strip():
                lines.append(line)
    return commands


class Walk:
    """A shell in which a page's commands are run one after the other."""

    def __init__(
        self, folder: Path, environment: Mapping[str, str], *, replaced: Mapping[str, str] | None = None
    ) -> None:
        """``replaced``: commands that are run in another form here (a page cannot know which ports are free)."""
        self._replaced = replaced or {}
        self._names: dict[str, str] = {}
        self._shell = subprocess.Popen(
            ["bash", "--norc", "--noprofile"],
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def __enter__(self) -> Walk:
        return self

    def __exit__(self, *_: object) -> None:
        self._shell.kill()
        self._shell.wait()

    def run(self, command: Command) -> Step:
        """Run one command and compare.

        Raises:
            Differs: it printed something else, or ended otherwise than the page says.
        """
        text = self._replaced.get(command.text, command.text)
        for page, real in self._names.items():
            text = text.replace(page, real)
        began = time.perf_counter()
        code, output = self._execute(text)
        seconds = time.perf_counter() - began
        if (code != 0) != command.fails:
            raise Differs(f"$ {text}\nended with {code}:\n{output}")
        try:
            self._compare(command.expected, [line for line in output.splitlines() if line.strip()])
        except Differs as difference:
            raise Differs(f"$ {text}\n{difference}\nall of it:\n{output}") from None
        return Step(text, seconds, output)

    def _execute(self, text: str) -> tuple[int, str]:
        stdin, stdout = self._shell.stdin, self._shell.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(f"{{ {text}\n}} </dev/null 2>&1\nprintf '\\n{END} %d\\n' $?\n")
        stdin.flush()
        lines: list[str] = []
        deadline = time.monotonic() + STEP_SECONDS
        while time.monotonic() < deadline:
            line = stdout.readline()
            if not line:
                raise Differs(f"the shell ended at: {text}")
            if line.startswith(END):
                return int(line.split()[1]), "".join(lines)
            lines.append(line)
        raise Differs(f"took longer than {STEP_SECONDS} s: {text}")

    def _compare(self, expected: tuple[str, ...], printed: list[str]) -> None:
        position = 0
        for number, line in enumerate(expected):
            if line.strip() == "…":
                if number + 1 == len(expected):
                    return
                while position < len(printed) and self._match(expected[number + 1], printed[position]) is None:
                    position += 1
                continue
            found = self._match(line, printed[position]) if position < len(printed) else None
            if found is None:
                shown = printed[position] if position < len(printed) else "nothing more"
                raise Differs(f"the page says : {line}\nthe program   : {shown}")
            self._names |= found
            position += 1
        if position < len(printed):
            raise Differs(f"the page ends; the program goes on: {printed[position]}")

    def _match(self, expected: str, printed: str) -> dict[str, str] | None:
        """The names that ``expected`` gives to what was printed; None when it is another line."""
        pattern, names, at = "", [], 0
        expected = expected.strip()
        for token in _TOKEN.finditer(expected):
            pattern += re.escape(expected[at : token.start()])
            at = token.end()
            kind = str(token.lastgroup)
            if kind == "name":
                names.append(token.group())
                whole = "[0-9a-fA-F]" if token.group().startswith("0x") else "[1-9A-HJ-NP-Za-km-z]"
                pattern += f"({token.group()[:2]}{whole}{{{len(token.group()) - 2}}})"
            else:
                pattern += _SHAPES[kind]
        found = re.fullmatch(pattern + re.escape(expected[at:]), printed.strip())
        if found is None:
            return None
        bound = dict(zip(names, found.groups(), strict=True))
        if any(self._names.get(page, real).lower() != real.lower() for page, real in bound.items()):
            return None
        return bound


def walk(
    page: Path,
    folder: Path,
    environment: Mapping[str, str],
    *,
    replaced: Mapping[str, str] | None = None,
    told: Callable[[Step], None] = lambda step: None,
) -> list[Step]:
    """Walk a whole page in ``folder``; ``told`` hears of each step.

    Raises:
        Differs: at the first difference.
    """
    commands = read_page(page)
    if not commands:
        raise Differs(f"{page} has no commands")
    steps = []
    with Walk(folder, environment, replaced=replaced) as walking:
        for command in commands:
            steps.append(walking.run(command))
            told(steps[-1])
    return steps


def reader_environment(program_folder: Path, home: Path) -> dict[str, str]:
    """What a reader's shell has: the programs on its path, a home for networks, and nothing of ours."""
    kept = {name: os.environ[name] for name in ("HOME", "LANG", "TMPDIR", "CLOISTER_ANVIL") if name in os.environ}
    return kept | {
        "PATH": f"{program_folder}:{os.environ.get('PATH', os.defpath)}",
        "CLOISTER_HOME": str(home),
        "COLUMNS": "110",
    }
