"""The hello-world tutorial as a reader walks it: every command is run, and what it prints is what the page shows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from bench.transcript import Command, Differs, Walk, read_page, reader_environment, walk

PAGE = Path(__file__).parents[2] / "docs" / "hello-world" / "README.md"
FREE_PORTS = {"cloister up --detach": "cloister up --detach --port 0 --chain-port 0"}


@pytest.mark.xdist_group("tutorial")
def test_the_page_says_what_happens(tmp_path: Path) -> None:
    environment = reader_environment(Path(sys.executable).parent, tmp_path / "home")
    place = tmp_path / "reader"
    place.mkdir()
    try:
        steps = walk(PAGE, place, environment, replaced=FREE_PORTS)
    finally:
        subprocess.run(["cloister", "down"], env=environment, check=False, capture_output=True, timeout=60)
    assert any(step.command.startswith("cloister iapp run") for step in steps)
    assert steps[-1].command == "cloister down"


def test_a_page_that_lies_is_found_out(tmp_path: Path) -> None:
    address, other = "0x" + "1a" * 20, "0x" + "2b" * 20
    with Walk(tmp_path, {"PATH": "/usr/bin:/bin"}) as shell:
        assert shell.run(Command(f"echo app {other} in 0.3 s", (f"app  {address}  in 12.5 s",))).output
        assert shell.run(Command(f"echo {address}", (address,))).output.strip() == other, (
            "it stands for what was printed"
        )
        shell.run(Command("printf 'a\\nb\\nc\\nd\\n'", ("a", "…", "d")))
        shell.run(Command("echo error: no; false", ("error: no",)))
        for lie in (
            Command("echo b", ("a",)),
            Command("echo a; echo b", ("a",)),
            Command("echo a", ("a", "b")),
            Command("false", ()),
            Command("echo error: no", ("error: no",)),
            Command("echo 0x" + "3c" * 20, (address,)),
        ):
            with pytest.raises(Differs):
                shell.run(lie)


def test_commands_are_read_with_what_they_print(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("text\n```console\n$ one \\\n  --two\nsaid\n\nmore\n$ three\n```\n```\n$ not this\n```\n")
    assert read_page(page) == [Command("one   --two", ("said", "more")), Command("three", ())]
