"""`personas`: the commands, and how errors are told."""

from __future__ import annotations

import sys
import traceback

import typer
from rich.console import Console

from personas_dagster import __version__
from personas_dagster.cli import (
    access,
    answers,
    ask,
    data,
    deletion,
    deliveries,
    destinations,
    identity,
    leaving,
    place,
    serve,
    upkeep,
)
from personas_dagster.errors import DefinitionError, PersonasError

app = typer.Typer(
    name="personas",
    help="A customer data platform on Dagster: identities, traits, audiences, destinations.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
place.add_to(app)
data.add_to(app)
deliveries.add_to(app)
destinations.add_to(app)
ask.add_to(app)
identity.add_to(app)
answers.add_to(app)
serve.add_to(app)
access.add_to(app)
upkeep.add_to(app)
deletion.add_to(app)


@app.callback(invoke_without_command=True)
def _version(
    version: bool = typer.Option(False, "--version", help="Print the version.", is_eager=True),
) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit()


def main() -> None:
    """Entry point: `command`, in a process of its own."""
    try:
        command()
    except SystemExit as ended:
        leaving.at_once(ended.code if isinstance(ended.code, int) else bool(ended.code))
        raise


def command() -> None:
    """Ends with 0 on success, 1 on a failure told in one line, 2 on wrong usage."""
    try:
        app()
    except DefinitionError as error:
        _fail(str(error))
    except PersonasError as error:
        _fail(f"personas: {error}")
    except KeyboardInterrupt:
        _fail("personas: interrupted; run the command again, nothing is lost")
    except BrokenPipeError:
        sys.stderr.close()  # whoever read our output has had enough
        sys.exit(0)
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0]
        _fail(f"personas: {type(error).__name__}: {reason} (run with -v for the whole trace)")


def _fail(message: str) -> None:
    if {"-v", "--verbose"} & set(sys.argv[1:]):
        traceback.print_exc()
    Console(stderr=True, soft_wrap=True).print(message, highlight=False, markup=False)
    sys.exit(1)
