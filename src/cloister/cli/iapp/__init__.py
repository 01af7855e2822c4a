"""``cloister iapp``: from an idea to a confidential app."""

from __future__ import annotations

import click

from cloister.cli.lazy import LazyCommands

COMMANDS: dict[str, tuple[str, str]] = {
    "init": ("cloister.cli.iapp.init:init", "Make a project that runs, from a template."),
    "test": ("cloister.cli.iapp.test:test", "Run an iApp here as production would, on mock data."),
    "mock": ("cloister.cli.iapp.mock:mock", "Make mock protected data from a schema or in the shape of real data."),
    "build": ("cloister.cli.iapp.build:build", "Build an iApp into one bundle: same source, same digest."),
    "lock": ("cloister.cli.iapp.build:lock", "Lock dependencies: exact versions with hashes."),
    "verify": ("cloister.cli.iapp.verify:verify", "Prove that a deployed iApp is this source."),
    "deploy": ("cloister.cli.iapp.deploy:deploy", "Build, upload, register and offer an iApp."),
    "register": ("cloister.cli.iapp.register:register", "Register an image that is on a registry already."),
    "publish": ("cloister.cli.iapp.market:publish", "Offer an iApp on the market."),
    "run": ("cloister.cli.iapp.run:run", "Run an iApp on protected data and open the result."),
    "debug": ("cloister.cli.iapp.debug:debug", "Tell why a task went as it did: chain, scheduler, workers, logs."),
    "logs": ("cloister.cli.iapp.logs:logs", "Print what the iApp of a task wrote, where that is allowed."),
    "show": ("cloister.cli.iapp.market:show", "Show one iApp."),
    "list": ("cloister.cli.iapp.market:list_", "List iApps."),
}
"""Verb -> (where it lives, one line)."""


@click.group(cls=LazyCommands, commands_at=COMMANDS)
def iapp() -> None:
    """Make, test, deploy, run and watch iApps."""
