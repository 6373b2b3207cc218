"""The command line: gathers the verbs, and turns errors into messages and exit codes."""

from __future__ import annotations

import os
import sys
from importlib.metadata import version
from typing import Annotated, NoReturn

import typer

from saccade.jobs.commands import (
    clusters,
    exporting,
    learning,
    listing,
    mending,
    planning,
    reporting,
    running,
    watching,
)
from saccade.jobs.commands.words import (
    EXIT_ERROR,
    EXIT_INTERRUPTED,
    EXIT_USAGE,
    complaints,
    screen,
)
from saccade.pipeline.errors import Interrupted, SaccadeError, UsageError

VERBS = (running, listing, mending, watching, reporting, exporting, planning, learning, clusters)
"""In the order in which help lists them."""

app = typer.Typer(
    name="saccade",
    help="A glance at the whole image, then a look where it matters.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
for family in VERBS:
    app.add_typer(family.app)


def main() -> None:
    """Run the command line; the exit code says how it ended."""
    try:
        app()
    except SaccadeError as error:
        complaints.print(f"saccade: {error}", style="red", markup=False, highlight=False)
        if isinstance(error, Interrupted):
            _leave_at_once(EXIT_INTERRUPTED)
        sys.exit(exit_code(error))


def _leave_at_once(code: int) -> NoReturn:
    """End without waiting for threads: a unit that outlasts the grace period can't be ended."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def exit_code(error: SaccadeError) -> int:
    """2 for what was asked wrongly, 75 for what can be resumed at once, 1 for the rest."""
    if isinstance(error, UsageError):
        return EXIT_USAGE
    return EXIT_INTERRUPTED if isinstance(error, Interrupted) else EXIT_ERROR


def _version(wanted: bool) -> None:
    if wanted:
        screen.print(f"saccade {version('saccade')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """A glance at the whole image, then a look where it matters."""
