"""`genprm eval`: ProcessBench, best of N on fixed pools, calibration, thresholds, comparison."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import islice
from json import dumps
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from genprm.aggregate import Aggregate
from genprm.batch import Checked, read_results, verify_rows
from genprm.calibration import CalibrationResult, Point, calibration, fit_temperature, plot_reliability, points, scaled
from genprm.cli import shared
from genprm.cli.shared import EXIT_UNSCORED, say
from genprm.comparison import Comparison, compare
from genprm.errors import ConfigError, InputError, OutputError
from genprm.evaluation import (
    EvaluationResult,
    Interval,
    SubsetResult,
    evaluate,
    evaluate_subset,
    outcome,
    solution_auc,
)
from genprm.fewer_votes import first_votes
from genprm.options import RunOptions
from genprm.pools import Scored, as_json, flatten, measure_pools, read_pools
from genprm.records import OutputRow, Solution, Verification, parse_row
from genprm.report import write_text
from genprm.rows import iterate_solutions
from genprm.search.select import Reduce, verification_score
from genprm.threshold import check_scores, fit_threshold, outcome_at

eval_app = typer.Typer(no_args_is_help=True, help="Measure a verifier on labelled data.")
Json = Annotated[Path | None, typer.Option(help="Write the figures as JSON.")]
Plot = Annotated[Path | None, typer.Option(help="Draw them.")]
Folder = Annotated[Path | None, typer.Option("-o", "--output", help="Folder for the rows (rows.jsonl).")]
Results = Annotated[list[str], typer.Argument(help="Outputs of verify or eval, with labels.")]


@eval_app.command()
@shared.with_run_options
def processbench(
    options: RunOptions,
    files: Annotated[list[str], typer.Argument(help="Labelled rows; each file is a subset, named after it.")],
    json: Json = None,
    output: Folder = None,
    limit: shared.Limit = None,
) -> None:
    """First-error F1 on ProcessBench's files, or others like them.

    Exit status 0: every row has a settled answer. 1: some have none (they count as wrong). 2: it could not begin, or
    not go on.
    """
    counts: dict[str, int] = {}
    with shared.refusing():
        shared.check_targets(files, json)
        if len({Path(file).stem for file in files}) < len(files):
            raise InputError("two files have the same name: subsets are named after their files")
        solutions = Checked(Solution, _labelled(files, limit, counts))
        if output is not None:
            _make_folder(output)
            shared.check_targets(files, output / "rows.jsonl", json)
    with solutions, shared.rows_file(output and output / "rows.jsonl") as place:
        # All subsets as one run, so that a small one does not leave the model idle.
        shared.run(verify_rows(solutions, options, place, say))
        rows = read_results(place)
        result = evaluate({name: [outcome(row) for row in islice(rows, count)] for name, count in counts.items()})
    _print_processbench(result)
    _write_json(json, result.model_dump_json(indent=2))
    raise typer.Exit(EXIT_UNSCORED if any(subset.unscored for subset in result.subsets.values()) else 0)


@eval_app.command()
@shared.with_run_options
def bon(
    options: RunOptions,
    files: Annotated[list[str], typer.Argument(help="Pools: {problem, candidates: [{steps, answer, correct}]}.")],
    scores_only: Annotated[
        bool, typer.Option("--scores-only", help="Verify nothing: compare the PRMs whose scores are in the pools.")
    ] = False,
    json: Json = None,
    output: Folder = None,
    limit: shared.Limit = None,
) -> None:
    """Best of N on fixed pools of candidate solutions, beside other PRMs' scores where the pools have them.

    Exit status 0: every candidate has a score. 1: this verifier has none for some. 2: it could not begin, or not go on.
    """
    with shared.refusing():
        shared.check_targets(files, json)
        found = [read_pools(file, limit) for file in files]
        pools = [pool for each in found for pool in each.pools]
        if scores_only and (output is not None or options.model or options.base_url or options.backend):
            raise ConfigError("--scores-only verifies nothing: it takes no model, and writes no rows")
        if left_out := sum(each.without_candidates for each in found):
            say(f"{left_out} problems without a candidate, as of searches that failed, are left out")
        if output is not None:
            _make_folder(output)
            shared.check_targets(files, output / "rows.jsonl", json)
    scores: list[dict[Reduce, float | None]] = []
    if not scores_only:
        with shared.refusing():
            solutions = Checked(Solution, flatten(pools))
        with solutions, shared.rows_file(output and output / "rows.jsonl") as place:
            shared.run(verify_rows(solutions, options, place, say))
            scores = [_reductions(row) for row in read_results(place)]
    counts = [len(pool.candidates) for pool in pools]
    if min(counts) < max(counts):
        say(f"the smallest pool has {min(counts)} candidates, the largest {max(counts)}: N goes up to the smallest")
    results = measure_pools(pools, {} if scores_only else {"this verifier": scores})
    _print_pools(results, len(pools))
    _write_json(json, dumps({"pools": len(pools), "results": as_json(results)}, indent=2))
    raise typer.Exit(EXIT_UNSCORED if any(None in each.values() for each in scores) else 0)


@eval_app.command(name="calibration")
def calibrate(
    files: Results,
    fit: Annotated[
        str | None, typer.Option(help="Results on other rows: fit a temperature there, and show its effect here.")
    ] = None,
    bins: Annotated[int, typer.Option(min=2, max=100, help="Bins of equal width.")] = 10,
    json: Json = None,
    plot: Plot = None,
) -> None:
    """Whether scores mean what they say: ECE, Brier score, reliability."""
    with shared.refusing():
        shared.check_targets([*files, *([fit] if fit else [])], json, plot=plot)
        found = [point for file in files for point in _points(file)]
        results = {"as it is": calibration(found, bins)}
        temperature = None
        if fit is not None:
            temperature = fit_temperature(_points(fit))
            cooled = [Point(scaled(point.score, temperature), point.right) for point in found]
            results[f"temperature {temperature:.2f}"] = calibration(cooled, bins)
        _print_calibration(results)
        if plot is not None:
            plot_reliability(results, plot)
    figures = {name: result.model_dump(mode="json") for name, result in results.items()}
    _write_json(json, dumps({"temperature": temperature, "results": figures}, indent=2))


@eval_app.command()
def threshold(
    files: Results,
    fit: Annotated[str, typer.Option(help="Results on other rows: the threshold is chosen there.")],
    json: Json = None,
) -> None:
    """ProcessBench's F1 at the score threshold that is best on other rows, beside that at 0.5."""
    with shared.refusing():
        shared.check_targets([*files, fit], json)
        chosen = fit_threshold(list(_labelled_results(fit)))
        at = {"0.5": 0.5, f"{chosen:.6g}, chosen": chosen}
        results: dict[str, dict[str, SubsetResult]] = {}
        for file in files:
            rows = list(_labelled_results(file))
            for row in rows:
                check_scores(row)
            results[shared.short_name(file, files)] = {
                called: evaluate_subset([outcome_at(row, each) for row in rows]) for called, each in at.items()
            }
    table = _table("subset", "threshold", *_FIGURES)
    for name, by_threshold in results.items():
        for each, figures in by_threshold.items():
            table.add_row(Text(name), each, *_figures(figures))
    _print(table)
    figures_by_name = {
        name: {each: figures.model_dump(mode="json") for each, figures in by_threshold.items()}
        for name, by_threshold in results.items()
    }
    _write_json(json, dumps({"threshold": chosen, "results": figures_by_name}, indent=2))


@eval_app.command(name="votes")
def fewer_votes(
    files: Results,
    aggregate: Annotated[
        Aggregate | None, typer.Option(help="How votes are put together. Default: the style's.")
    ] = None,
    json: Json = None,
) -> None:
    """ProcessBench's F1 of the first 1, 2, 4 ... votes of a run with --votes N; the AUC of the solutions' scores."""
    results: dict[str, dict[int, tuple[SubsetResult, float | None]]] = {}
    with shared.refusing():
        shared.check_targets(files, json)
        for file in files:
            rows = list(_labelled_results(file))
            most = max((row.votes for row in rows if isinstance(row, Verification)), default=1)
            found: dict[int, tuple[SubsetResult, float | None]] = {}
            for count in [*(2**power for power in range(most.bit_length()) if 2**power < most), most]:
                fewer = [first_votes(row, count, aggregate) for row in rows]
                found[count] = evaluate_subset([outcome(row) for row in fewer]), solution_auc(fewer)
            results[shared.short_name(file, files)] = found
    table = _table("subset", "votes", *_FIGURES, "AUC", "tokens")
    for name, by_votes in results.items():
        for count, (figures, area) in by_votes.items():
            table.add_row(Text(name), str(count), *_figures(figures), _fine(area), str(figures.tokens))
    _print(table)
    as_json = {
        name: {count: {**figures.model_dump(mode="json"), "auc": area} for count, (figures, area) in by_votes.items()}
        for name, by_votes in results.items()
    }
    _write_json(json, dumps({"results": as_json}, indent=2))


@eval_app.command(name="compare")
def compare_results(files: Results, json: Json = None) -> None:
    """Several results on the same rows, side by side, each tested against the first one."""
    with shared.refusing():
        shared.check_targets(files, json)
        if len(files) < 2:
            raise InputError("compare takes two files or more")
        shared.check_different(files)
        rows = {file: _by_id(file) for file in files}
        shared_ids = set.intersection(*(set(each) for each in rows.values()))
        if not shared_ids:
            raise InputError(f"{', '.join(files)}: no row is in all of them")
        first, *others = files
        for other in others:
            for row in sorted(shared_ids):
                if _asked(rows[other][row]) != _asked(rows[first][row]):
                    raise InputError(
                        f"{other}: row {row} is not that of {first}: its problem, solution or label is another one"
                    )
        result = compare(
            {
                shared.short_name(file, files): {row: outcome(found) for row, found in each.items()}
                for file, each in rows.items()
            }
        )
    _print_comparison(result)
    _write_json(json, result.model_dump_json(indent=2))


def _labelled(files: list[str], limit: int | None, counts: dict[str, int]) -> Iterator[Solution]:
    """The rows of all files, no two with one id; ``counts`` gets how many there are of each."""
    seen: set[str] = set()
    for file in files:
        name = Path(file).stem
        earlier = frozenset(seen)
        for solution in iterate_solutions(file, limit):
            if solution.label is None:
                raise InputError(
                    f"{file}: row {solution.id} has no field label: expected the index of its first wrong step, or -1"
                )
            counts[name] = counts.get(name, 0) + 1
            seen.add(solution.id)
            # Most likely both are only numbered.
            yield solution.model_copy(update={"id": f"{name}/{solution.id}"}) if solution.id in earlier else solution


def _labelled_results(file: str) -> Iterator[OutputRow]:
    for where, row in shared.read_output(file, parse_row, "verify"):
        if row.label is None:
            raise InputError(f"{where}: row {row.id} has no label")
        yield row


def _by_id(file: str) -> dict[str, OutputRow]:
    found: dict[str, OutputRow] = {}
    for row in _labelled_results(file):
        if row.id in found:
            raise InputError(f"{file}: two rows have the id {row.id}, by which rows are matched")
        found[row.id] = row
    return found


def _asked(row: OutputRow) -> tuple[object, ...]:
    """What a result is about."""
    return row.problem, row.solution, row.label


def _points(file: str) -> list[Point]:
    return points(_labelled_results(file))


def _reductions(row: OutputRow) -> dict[Reduce, float | None]:
    return {how: verification_score(row, how) if isinstance(row, Verification) else None for how in Reduce}


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(exist_ok=True)
    except OSError as error:
        raise OutputError(f"{path}: {error.strerror or error}") from error


def _write_json(path: Path | None, text: str) -> None:
    if path is not None:
        with shared.refusing():
            write_text(path, text + "\n")


def _table(first: str, *others: str) -> Table:
    table = Table(box=None, padding=(0, 1), header_style="bold")
    table.add_column(first, overflow="fold")
    for name in others:
        table.add_column(name, justify="right", overflow="fold")
    return table


def _print(*tables: Table | str) -> None:
    # A pipe or a log has no width: nothing is to be cut there.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 200)
    for table in tables:
        console.print(table)


def _print_processbench(result: EvaluationResult) -> None:
    table = _table("subset", *_FIGURES, "tokens", "s/row")
    for name, subset in result.subsets.items():
        table.add_row(Text(name), *_figures(subset), str(subset.tokens), _share(subset.median_seconds))
    table.add_row("average", _share(result.average_f1), _range(result.average_f1_interval), style="bold")
    _print(table)


_FIGURES = ("F1", "95 %", "error acc.", "correct acc.", "rows", "unscored")


def _figures(subset: SubsetResult) -> list[str]:
    return [
        _share(subset.f1), _range(subset.f1_interval), _share(subset.error_accuracy), _share(subset.correct_accuracy),
        str(subset.rows), str(subset.unscored),
    ]  # fmt: skip


def _print_pools(results: list[Scored], count: int) -> None:
    sizes = list(results[0].accuracy)
    table = _table("scorer", "steps", "choice", *(f"N={size}" for size in sizes), "95 %", "unscored")
    for result in results:
        table.add_row(
            Text(result.scorer), result.reduce.value if result.reduce else "", result.rule.value if result.rule else "",
            *(_share(result.accuracy[size]) for size in sizes), _range(result.interval),
            str(result.unscored) if result.unscored else "",
        )  # fmt: skip
    _print(table, f"{count} problems; accuracy in percent.")


def _print_calibration(results: dict[str, CalibrationResult]) -> None:
    table = _table("scores", "steps", "ECE", "Brier")
    for name, result in results.items():
        table.add_row(name, str(result.steps), _fine(result.ece), _fine(result.brier))
    bins = _table("score", "steps", "mean score", "right")
    for each in next(iter(results.values())).bins:
        span = f"{each.low:.2f} to {each.high:.2f}"
        bins.add_row(span, str(each.count), _fine(each.mean_score), _fine(each.right))
    _print(table, bins)


def _print_comparison(result: Comparison) -> None:
    table = _table("result", "F1", "error acc.", "correct acc.", "F1 more", "95 %", "gained", "lost", "p")
    for name, figures in result.results.items():
        shares = [_share(figures.f1), _share(figures.error_accuracy), _share(figures.correct_accuracy)]
        change = result.differences.get(name)
        if change is not None:
            signed = "-" if change.f1 is None else f"{change.f1:+.1f}"
            counts = [str(change.gained), str(change.lost), f"{change.p_value:.3f}"]
            shares += [signed, _range(change.f1_interval), *counts]
        table.add_row(Text(name), *shares)
    _print(table, f"{result.rows} rows that all have; gained, lost and p (exact McNemar) against the first.")


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _fine(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _range(interval: Interval | None) -> str:
    return "" if interval is None else f"{interval[0]:.1f} to {interval[1]:.1f}"
