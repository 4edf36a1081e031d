"""The command line: `causal-sam serve`, `… segment`, `… organs`, `… style`, `… correct`, `… train` and so on.

Each command is one module. Whatever is slow to import (torch, image readers) is imported when a command runs, so
that help comes at once.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from causal_sam import __version__
from causal_sam.cli.benchmark import app as benchmark
from causal_sam.cli.correct import correct
from causal_sam.cli.doctor import doctor
from causal_sam.cli.export import export
from causal_sam.cli.interpret import interpret
from causal_sam.cli.organs import organs
from causal_sam.cli.protocol import app as protocol
from causal_sam.cli.segment import segment
from causal_sam.cli.serve import ServeCommand, serve
from causal_sam.cli.style import style
from causal_sam.cli.train import train
from causal_sam.cli.versions import app as versions
from causal_sam.errors import CausalSamError

BAD_INPUT = 2


# Old option -> the option that replaces it, in all commands.
_RENAMED = {"--film": "--adapter-bundle", "--taught": "--adapter-bundle"}


class _Commands(TyperGroup):
    """Shows our own errors as one sentence instead of a stack trace, and takes options by their old names."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, [_with_new_name(argument) for argument in args])

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except CausalSamError as error:
            typer.secho(f"causal-sam: {error}", err=True, fg="red")
            raise typer.Exit(BAD_INPUT) from error


def _with_new_name(argument: str) -> str:
    option, equals, value = argument.partition("=")
    if option not in _RENAMED:
        return argument
    typer.secho(f"causal-sam: The option {option} is deprecated: use {_RENAMED[option]}.", err=True, fg="yellow")
    return f"{_RENAMED[option]}{equals}{value}"


app = typer.Typer(
    name="causal-sam",
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,  # they would print voxels, and paths that may hold names
    help="Click-to-segment for CT and MR, in MONAI Label and on the command line. For research, not a medical device.",
)
app.command(cls=ServeCommand)(serve)
app.command()(segment)
app.command()(organs)
app.command()(style)
app.command()(interpret)
app.command()(correct)
app.command()(export)
app.command()(train)
app.add_typer(versions)
app.add_typer(protocol)
app.add_typer(benchmark)
app.command()(doctor)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"causal-sam {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line."""
    app()
