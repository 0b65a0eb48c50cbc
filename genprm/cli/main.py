"""The entry point, and the tree of commands."""

from __future__ import annotations

import sys
import warnings
from typing import Annotated

import typer

from genprm.cli.evaluate import eval_app
from genprm.cli.sandbox import app as sandbox_app
from genprm.cli.search import search_app
from genprm.cli.serve import serve_app
from genprm.cli.train import train_app
from genprm.cli.verify import verify
from genprm.cli.view import view
from rationale_synth.cli import label, synth_app

app = typer.Typer(
    name="genprm",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Judge solutions step by step: argue, run Python to check, read what it printed, then say Yes or No.",
)
app.command()(verify)
app.add_typer(eval_app, name="eval")
app.add_typer(search_app, name="search")
app.command()(label)
app.add_typer(synth_app, name="synth")
app.add_typer(train_app, name="train")
app.add_typer(serve_app, name="serve")
app.command()(view)
app.add_typer(sandbox_app, name="sandbox")


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    warnings.simplefilter("ignore", FutureWarning)  # by libraries, about libraries
    if version:
        from importlib.metadata import version as installed

        print(installed("genprm"))
        raise typer.Exit


def main() -> None:
    """Run the command line."""
    try:
        app()
    except BrokenPipeError:
        # The reader of our output (head, say) has left; there is nobody to tell.
        sys.stderr.close()
        raise SystemExit(1) from None
