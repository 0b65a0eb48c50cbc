"""`genprm verify` and `genprm eval processbench`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from genprm.batch import verify_rows
from genprm.cli import shared
from genprm.cli.shared import EXIT_UNSCORED, say
from genprm.errors import InputError, OutputError
from genprm.evaluation import EvaluationResult, evaluate
from genprm.options import RunOptions
from genprm.records import OutputRow, Solution, Verification
from genprm.report import write_report, write_text
from genprm.rows import read_solutions
from genprm.summary import print_summary

eval_app = typer.Typer(no_args_is_help=True, help="Measure a verifier on labelled data.")


@shared.with_run_options
def verify(
    options: RunOptions,
    file: Annotated[str, typer.Argument(help="Rows {id, problem, steps}: JSONL, JSON array, Parquet, or - for stdin.")],
    output: Annotated[str | None, typer.Option("-o", "--output", help="JSONL of results; - for stdout.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page that a person can read.")] = None,
    limit: shared.Limit = None,
) -> None:
    """Verify solutions step by step.

    Exit status 0: every step has a verdict. 1: some have none, or some solutions failed. 2: nothing was done.
    """
    target = None if output in (None, "-") else Path(str(output))
    with shared.refusing():
        for path in (target, html):
            shared.check_target(path)
        solutions = read_solutions(file, limit)
    rows = shared.run(verify_rows(solutions, options, target, say))
    if output == "-":
        for row in rows:
            sys.stdout.write(row.model_dump_json() + "\n")
        sys.stdout.flush()
    if html is not None:
        with shared.refusing():
            write_report(rows, html, f"Verification of {'standard input' if file == '-' else Path(file).name}")
    print_summary(rows, Console(stderr=output == "-", highlight=False))
    raise typer.Exit(0 if all(isinstance(row, Verification) and not row.unscored for row in rows) else EXIT_UNSCORED)


@eval_app.command()
@shared.with_run_options
def processbench(
    options: RunOptions,
    files: Annotated[list[str], typer.Argument(help="Labelled rows; each file is a subset, named after it.")],
    json: Annotated[Path | None, typer.Option(help="Write the figures as JSON.")] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder for the rows of all subsets (rows.jsonl).")
    ] = None,
    limit: shared.Limit = None,
) -> None:
    """First-error F1 on ProcessBench's files, or others like them.

    Exit status 0: every row has a settled answer. 1: some have none (they count as wrong). 2: nothing was done.
    """
    with shared.refusing():
        shared.check_target(json)
        subsets = {Path(file).stem: _labelled(file, limit) for file in files}
        if len(subsets) < len(files):
            raise InputError("two files have the same name: subsets are named after their files")
        if output is not None:
            _make_folder(output)
    rows = shared.run(_verify_subsets(subsets, options, output))
    result = evaluate(rows)
    _print_result(result)
    if json is not None:
        with shared.refusing():
            write_text(json, result.model_dump_json(indent=2) + "\n")
    raise typer.Exit(EXIT_UNSCORED if any(subset.unscored for subset in result.subsets.values()) else 0)


async def _verify_subsets(
    subsets: dict[str, list[Solution]], options: RunOptions, folder: Path | None
) -> dict[str, list[OutputRow]]:
    """All subsets as one run, so that a small one does not leave the model idle."""
    everything = [solution for solutions in subsets.values() for solution in solutions]
    rows = iter(await verify_rows(everything, options, folder / "rows.jsonl" if folder else None, say))
    return {name: [next(rows) for _ in solutions] for name, solutions in subsets.items()}


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(exist_ok=True)
    except OSError as error:
        raise OutputError(f"{path}: {error.strerror or error}") from error


def _labelled(file: str, limit: int | None) -> list[Solution]:
    solutions = read_solutions(file, limit)
    for solution in solutions:
        if solution.label is None:
            raise InputError(
                f"{file}: row {solution.id} has no field label: expected the index of its first wrong step, or -1"
            )
    return solutions


def _print_result(result: EvaluationResult) -> None:
    table = Table(box=None, padding=(0, 1), header_style="bold")
    table.add_column("subset")
    for name in ("F1", "error acc.", "correct acc.", "rows", "unscored", "tokens"):
        table.add_column(name, justify="right")
    for name, subset in result.subsets.items():
        shares = (subset.f1, subset.error_accuracy, subset.correct_accuracy)
        counts = (subset.rows, subset.unscored, subset.tokens)
        table.add_row(Text(name), *map(_share, shares), *map(str, counts))
    table.add_row("average", _share(result.average_f1), style="bold")
    Console(highlight=False).print(table)


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
