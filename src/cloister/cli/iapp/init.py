"""``cloister iapp init``: a project that runs, from a template."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from cloister.generator.init import Project


@click.command()
@click.argument("name", required=False)
@click.option("--template", "-t", help="What to begin with (--list shows all).  [default: hello-world]")
@click.option("--folder", type=click.Path(path_type=Path), help="Where the project goes.  [default: ./NAME]")
@click.option("--yes", "-y", is_flag=True, help="Ask nothing: take the defaults.")
@click.option("--list", "show_list", is_flag=True, help="List the templates.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
def init(
    name: str | None, template: str | None, folder: Path | None, yes: bool, show_list: bool, as_json: bool
) -> None:
    """Make a project called NAME that runs as it is."""
    from cloister.generator.init import DEFAULT_TEMPLATE, TEMPLATES, check_name, check_template, init_project

    if show_list:
        _list(TEMPLATES, as_json=as_json)
        return
    asks = not yes and not as_json and sys.stdin.isatty() and sys.stdout.isatty()
    if name is not None:
        check_name(name)
    if template is not None:
        check_template(template)
    if asks and name is None:
        name = _ask_name(template or DEFAULT_TEMPLATE)
    if asks and template is None:
        template = _ask_template(TEMPLATES, DEFAULT_TEMPLATE)
    template = template or DEFAULT_TEMPLATE
    project = init_project(name or template, template, folder)
    following = _next_commands(project)
    if as_json:
        click.echo(json.dumps(project.to_json() | {"next": following}))
        return
    click.echo(f"{project.name} is in {project.folder} ({project.template}, {len(project.files)} files). Next:\n")
    for command in following:
        click.echo(f"  {command}")


def _list(templates: dict[str, str], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps([{"name": name, "shows": line} for name, line in templates.items()]))
        return
    for name, line in templates.items():
        click.echo(f"{name:<18} {line}")


def _ask_name(default: str) -> str:
    from cloister.errors import InputError
    from cloister.generator.init import check_name

    def check(answer: str) -> str:
        try:
            return check_name(answer.strip())
        except InputError as error:
            raise click.UsageError(error.message) from error

    return str(click.prompt("Name", default=default, value_proc=check))


def _ask_template(templates: dict[str, str], default: str) -> str:
    names = list(templates)
    for number, name in enumerate(names, start=1):
        click.echo(f"  {number}  {name:<18} {templates[name]}")

    def check(answer: str) -> str:
        answer = answer.strip()
        if answer.isdecimal() and 1 <= int(answer) <= len(names):
            return names[int(answer) - 1]
        if answer not in templates:
            raise click.UsageError(f"that is neither a template nor a number from 1 to {len(names)}")
        return answer

    return str(click.prompt("Template", default=default, value_proc=check))


def _next_commands(project: Project) -> list[str]:
    try:
        folder = project.folder.relative_to(Path.cwd())
    except ValueError:
        folder = project.folder
    return [f"cd {shlex.quote(str(folder))}", "cloister iapp test", "cloister iapp deploy"]
