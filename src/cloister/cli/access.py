"""``cloister access``: grant, list, revoke."""

from __future__ import annotations

from pathlib import Path

import click

from cloister.cli.session import Session, deployed_app, jsonable, options, party


@click.group()
def access() -> None:
    """Grant, list and revoke access to protected data."""


@access.command()
@click.argument("protected_data")
@click.option("--app", required=True, help="Address of the app (or whitelist) that may use the data.")
@click.option("--user", help="Only this requester: an address or a demo account.  [default: anyone]")
@click.option("--price", default="0", show_default=True, help='Price of one access, such as "0.1 RLC".')
@click.option("--accesses", default=1, show_default=True, type=click.IntRange(min=1), help="How many times.")
@click.option("--bulk", is_flag=True, help="Free and without limit, for bulk processing.")
@click.option("--from", "valid_from", metavar="TIME", help="Not before this time (ISO 8601).")
@click.option("--until", metavar="TIME", help="Not from this time on (ISO 8601).")
@click.option("--purpose", "purposes", multiple=True, help="Allowed purpose; may be repeated.")
@click.option("--enclave", "enclaves", multiple=True, help="Allowed kind of enclave; may be repeated.")
@click.option(
    "--hardware", type=click.Path(path_type=Path), help="JSON file with rules for the enclave (cloister policy check)."
)
@click.option("--logs", is_flag=True, help="Let who runs the app read what it prints, which may be the data itself.")
@options
def grant(
    session: Session,
    protected_data: str,
    app: str,
    user: str | None,
    price: str,
    accesses: int,
    bulk: bool,
    valid_from: str | None,
    until: str | None,
    purposes: tuple[str, ...],
    enclaves: tuple[str, ...],
    hardware: Path | None,
    logs: bool,
) -> None:
    """Let an app use PROTECTED_DATA. Times, purposes, enclaves and hardware are checked again when the key is released."""
    rules = None
    if hardware is not None:
        from cloister.sdk.policies import load_rules

        rules = load_rules(hardware)
    with session.progress() as listener:
        protector = session.protector(listener)
        granted = protector.grant_access(
            protected_data,
            app=deployed_app(protector, app),
            user=party(session, user),
            price=price,
            accesses=accesses,
            allow_bulk=bulk,
            valid_from=valid_from,
            until=until,
            purposes=purposes,
            enclaves=enclaves,
            hardware=rules,
            logs=logs,
        )

    def draw() -> None:
        from cloister.cli.render import facts, rlc

        facts(
            [
                ("grant", granted.order_hash),
                ("protected data", granted.protected_data),
                ("app", granted.app),
                ("user", granted.user or "anyone"),
                ("price", rlc(granted.price)),
                ("accesses", granted.remaining),
                *([("logs", "whoever runs the app may read what it prints")] if logs else []),
            ]
        )

    session.show(granted.to_json(), draw)


@access.command("list")
@click.argument("protected_data", required=False)
@click.option("--app", help="Only grants to this app.")
@click.option("--user", help="Only grants that this requester may use.")
@options
def list_(session: Session, protected_data: str | None, app: str | None, user: str | None) -> None:
    """List open grants on PROTECTED_DATA, or on all data of the wallet."""
    protector = session.protector(needs_wallet=protected_data is None)
    grants = list(protector.get_granted_access(protected_data=protected_data, app=app, user=party(session, user)))

    def draw() -> None:
        from cloister.cli.render import rlc, table

        table(
            "open grants",
            ("grant", "protected data", "app", "user", "price", "left"),
            [(g.order_hash, g.protected_data, g.app, g.user or "anyone", rlc(g.price), g.remaining) for g in grants],
        )

    session.show(jsonable(grants), draw)


@access.command()
@click.argument("grant", required=False)
@click.option("--all", "everything", metavar="PROTECTED_DATA", help="Revoke every open grant on this data.")
@click.option("--app", help="With --all: only grants to this app.")
@click.option("--user", help="With --all: only grants that this requester may use.")
@options
def revoke(session: Session, grant: str | None, everything: str | None, app: str | None, user: str | None) -> None:
    """Close the GRANT of this hash on chain, for good."""
    from cloister.errors import InputError

    if (grant is None) == (everything is None):
        raise InputError(
            "revoke one grant or all of one data's", hint="cloister access revoke HASH, or --all PROTECTED_DATA"
        )
    with session.progress() as listener:
        protector = session.protector(listener)
        if grant is not None:
            revoked = [{"grant": grant, "transaction": protector.revoke_access(grant)}]
        else:
            pairs = protector.revoke_all_access(str(everything), app=app, user=party(session, user))
            revoked = [{"grant": g.order_hash, "transaction": transaction} for g, transaction in pairs]

    def draw() -> None:
        from cloister.cli.render import table

        table(
            "revoked",
            ("grant", "transaction"),
            [(r["grant"], r["transaction"]) for r in revoked],
            empty="no open grant",
        )

    session.show(revoked, draw)
