"""``cloister run``: an app on protected data, from order to opened result."""

from __future__ import annotations

from pathlib import Path

import click

from cloister.cli.session import Session, options


@click.command()
@click.argument("app")
@click.option("--data", "protected_data", metavar="ADDRESS", help="Protected data to run on.")
@click.option("--args", help="Arguments of the app.")
@click.option(
    "--input-file", "input_files", multiple=True, metavar="URL", help="Public file the app gets; may be repeated."
)
@click.option(
    "--secret", "secrets", multiple=True, metavar="N=@FILE", help="Secret number N, read from a file; may be repeated."
)
@click.option("--data-price", default="0", show_default=True, help="The most you pay for the data.")
@click.option("--app-price", default="0", show_default=True, help="The most you pay for the app.")
@click.option("--workerpool-price", default="0", show_default=True, help="The most you pay for the run.")
@click.option("--workerpool", help="Only this workerpool.")
@click.option("--category", default=0, show_default=True, help="Time category.")
@click.option("--trust", default=0, show_default=True, help="Replication: 0 and 1 are one worker.")
@click.option("--purpose", help="What for; checked against the grant's policy.")
@click.option("--plain-result", is_flag=True, help="Do NOT encrypt the result: anyone can read it.")
@click.option("--detach", is_flag=True, help="Return as soon as the deal is made.")
@click.option("--timeout", type=float, help="Stop waiting after so many seconds.")
@click.option("--output", "-o", type=click.Path(path_type=Path), help="Folder for the result's files.")
@options
def run(
    session: Session,
    app: str,
    protected_data: str | None,
    args: str | None,
    input_files: tuple[str, ...],
    secrets: tuple[str, ...],
    data_price: str,
    app_price: str,
    workerpool_price: str,
    workerpool: str | None,
    category: int,
    trust: int,
    purpose: str | None,
    plain_result: bool,
    detach: bool,
    timeout: float | None,
    output: Path | None,
) -> None:
    """Run APP in an enclave, wait, open the result."""
    with session.progress() as listener:
        protector = session.protector(listener)
        started = protector.process_protected_data(
            protected_data,
            app=app,
            args=args,
            input_files=input_files,
            secrets={number: _secret(value) for number, value in _numbered(secrets).items()},
            data_max_price=data_price,
            app_max_price=app_price,
            workerpool_max_price=workerpool_price,
            workerpool=workerpool,
            category=category,
            trust=trust,
            purpose=purpose,
            encrypt_result=not plain_result,
            wait=not detach,
            timeout=timeout,
        )
        files = [] if detach else started.result.names()
        saved = [] if detach or output is None else started.result.save(output)

    def draw() -> None:
        from cloister.cli.render import enclave_notice, facts

        facts(
            [
                ("task", started.task_id),
                ("deal", started.deal_id),
                *((("files", ", ".join(files)),) if files else ()),
                *((("saved", ", ".join(str(path) for path in saved)),) if saved else ()),
                *((("next", f"cloister task watch {started.task_id} --deal {started.deal_id}"),) if detach else ()),
            ]
        )
        enclave_notice(protector.connection.network.enclave_kind)

    value = started.to_json() | {
        "files": files,
        "saved": [str(path) for path in saved],
        "enclave": protector.connection.network.enclave_kind,
    }
    session.show(value, draw)


def _numbered(pairs: tuple[str, ...]) -> dict[int, str]:
    from cloister.errors import InputError

    result: dict[int, str] = {}
    for pair in pairs:
        number, separator, source = pair.partition("=")
        if not separator or not number.isdecimal():
            raise InputError("a secret is given as NUMBER=@FILE", hint="--secret 1=@token.txt")
        result[int(number)] = source
    return result


def _secret(source: str) -> str:
    """Read a secret from ``@FILE``: never from the command line, which other users of the machine can read."""
    from cloister.errors import InputError, NotFound

    if not source.startswith("@"):
        raise InputError("a secret is read from a file, not from the command line", hint="--secret 1=@token.txt")
    path = Path(source[1:])
    if not path.is_file():
        raise NotFound(f"no secret file at {path}")
    return path.read_text()
