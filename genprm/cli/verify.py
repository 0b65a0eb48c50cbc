"""`genprm verify`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from genprm.batch import Checked, read_results, verify_rows
from genprm.cli import shared
from genprm.cli.shared import EXIT_UNSCORED, say
from genprm.options import RunOptions
from genprm.records import Solution
from genprm.report import write_report
from genprm.rows import iterate_solutions
from genprm.summary import Summary


@shared.with_run_options
def verify(
    options: RunOptions,
    file: Annotated[str, typer.Argument(help="Rows {id, problem, steps}: JSONL, JSON array, Parquet, or - for stdin.")],
    output: Annotated[str | None, typer.Option("-o", "--output", help="JSONL of results; - for stdout.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page that a person can read.")] = None,
    limit: shared.Limit = None,
) -> None:
    """Verify solutions step by step.

    Exit status 0: every step has a verdict. 1: some have none, or some solutions failed. 2: it could not begin, or not
    go on.
    """
    target = None if output in (None, "-") else Path(str(output))
    with shared.refusing():
        shared.check_targets([file], target, html)
        solutions = Checked(Solution, iterate_solutions(file, limit))
    summary = Summary()
    with solutions, shared.rows_file(target) as place:
        shared.run(verify_rows(solutions, options, place, say))
        for row in read_results(place):
            summary.add(row)
            if output == "-":
                sys.stdout.write(row.model_dump_json() + "\n")
        sys.stdout.flush()
        if html is not None:
            with shared.refusing():
                title = f"Verification of {'standard input' if file == '-' else Path(file).name}"
                write_report(list(read_results(place)), html, title)
    summary.print(Console(stderr=output == "-", highlight=False))
    raise typer.Exit(0 if summary.complete else EXIT_UNSCORED)
