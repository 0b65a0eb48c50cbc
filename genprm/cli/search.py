"""`genprm search`: best of N, beam search, chunk reset, critique and refine; and their curves."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from json import dumps
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from genprm.aggregate import Aggregate
from genprm.batch import Checked
from genprm.cli import shared
from genprm.cli.shared import EXIT_UNSCORED, say
from genprm.errors import ConfigError, InputError
from genprm.extras import require
from genprm.options import Backend, ModelOptions, RunOptions
from genprm.problems import read_problems
from genprm.records import Problem
from genprm.report import write_text
from genprm.search.base import Search
from genprm.search.beam import beam_search
from genprm.search.bon import best_of_n
from genprm.search.curves import SearchFigures, plot_curves, search_figures, told
from genprm.search.job import PolicyOptions, SearchOptions, search_rows
from genprm.search.records import SearchOutput, parse_search_row
from genprm.search.refine import refine
from genprm.search.reset import chunk_reset
from genprm.search.select import Reduce, Rule
from genprm.styles import STYLES

search_app = typer.Typer(
    no_args_is_help=True,
    help="Find right answers with a verifier's help.\n\n"
    "Exit status 0: every problem has an answer. 1: some failed. 2: it could not begin, or not go on.",
)
Problems = Annotated[str, typer.Argument(help="Problems {id, problem, answer}: a file, - for stdin, or a dataset id.")]
Output = Annotated[Path, typer.Option("-o", "--output", help="JSONL of results.")]
Json = Annotated[Path | None, typer.Option(help="Write the figures as JSON.")]
Plot = Annotated[Path | None, typer.Option(help="Draw accuracy against tokens.")]
ReduceOption = Annotated[Reduce, typer.Option("--reduce", help="How the scores of a solution's steps become one.")]
MaxSteps = Annotated[int, typer.Option(min=1, help="Most steps of a solution.")]


def policy_options(
    policy: Annotated[str | None, typer.Option(help="Model that writes. Default: the verifier's own.")] = None,
    policy_backend: Annotated[Backend | None, typer.Option(help="Where it runs.")] = None,
    policy_base_url: Annotated[str | None, typer.Option(help="Its OpenAI-compatible server.")] = None,
    policy_tokenizer: Annotated[str | None, typer.Option(help="With --policy-base-url: its tokenizer.")] = None,
    policy_adapter: Annotated[str | None, typer.Option(help="LoRA adapter for it.")] = None,
    policy_temperature: Annotated[float, typer.Option(help="0 takes the likeliest token.")] = 0.7,
    policy_tokens: Annotated[int, typer.Option(help="Most tokens of one draw.")] = 1024,
    policy_example: Annotated[
        bool | None,
        typer.Option(
            "--policy-example/--no-policy-example",
            help="Show it a solved problem. Default: only to the bare embedded model.",
        ),
    ] = None,
) -> PolicyOptions:
    """The policy, checked.

    Raises:
        GenprmError: the options contradict each other.
    """
    named = (policy, policy_backend, policy_base_url, policy_tokenizer, policy_adapter)
    model = None
    if any(value is not None for value in named):
        model = ModelOptions(
            model=policy, backend=policy_backend, base_url=policy_base_url, tokenizer=policy_tokenizer,
            adapter=policy_adapter,
        )  # fmt: skip
    if policy_temperature < 0 or policy_tokens < 1:
        raise ConfigError("--policy-temperature is at least 0, and --policy-tokens at least 1")
    options = PolicyOptions(
        model=model, temperature=policy_temperature, max_tokens=policy_tokens, example=policy_example
    )
    options.check()
    return options


with_search_options = shared.with_options(options=shared.run_options, policy=policy_options)


@search_app.command()
@with_search_options
def bon(
    options: RunOptions,
    policy: PolicyOptions,
    problems: Problems,
    output: Output,
    n: Annotated[int, typer.Option("-n", min=1, help="Solutions per problem.")] = 8,
    rule: Annotated[Rule, typer.Option(help="How one of them is chosen.")] = Rule.BEST,
    reduce: ReduceOption = Reduce.MIN,
    json: Json = None,
    plot: Plot = None,
    limit: shared.Limit = None,
) -> None:
    """Best of N: draw whole solutions, verify each, believe one."""
    work = partial(best_of_n, n=n, rule=rule)
    chosen = SearchOptions(
        method="bon", parameters={"n": n, "rule": rule.value}, reduce=reduce, policy=policy, verifier=options
    )
    _run(work, chosen, problems, output, json, plot, limit)


@search_app.command()
@with_search_options
def beam(
    options: RunOptions,
    policy: PolicyOptions,
    problems: Problems,
    output: Output,
    n: Annotated[int, typer.Option("-n", min=1, help="Beams.")] = 8,
    width: Annotated[int, typer.Option(min=1, help="Ways in which each that is kept goes on.")] = 4,
    max_steps: MaxSteps = 20,
    reduce: ReduceOption = Reduce.LAST,
    json: Json = None,
    plot: Plot = None,
    limit: shared.Limit = None,
) -> None:
    """Beam search: keep the best beginnings, go on from each in several ways."""
    if width > n:
        with shared.refusing():
            raise ConfigError(f"--width {width} is more than the {n} beams")
    work = partial(beam_search, beams=n, width=width, max_steps=max_steps)
    parameters: dict[str, str | int] = {"n": n, "width": width, "max_steps": max_steps}
    chosen = SearchOptions(method="beam", parameters=parameters, reduce=reduce, policy=policy, verifier=options)
    _run(work, chosen, problems, output, json, plot, limit)


@search_app.command()
@with_search_options
def reset(
    options: RunOptions,
    policy: PolicyOptions,
    problems: Problems,
    output: Output,
    attempts: Annotated[int, typer.Option(min=1, help="Draws of one chunk, until one is judged correct.")] = 5,
    max_steps: MaxSteps = 40,
    json: Json = None,
    plot: Plot = None,
    limit: shared.Limit = None,
) -> None:
    """Chunk reset: a chunk that is judged wrong is drawn anew."""
    with shared.refusing():
        by_whole_chains = options.aggregate is Aggregate.MAJORITY or not all(
            STYLES[name].stepwise for name in options.style_names
        )
        if options.stop_at_first_error or by_whole_chains:
            raise ConfigError(
                "reset asks for a verdict on each chunk, also where one before it stayed wrong: --stop-at-first-error, "
                "--aggregate majority and the styles judge and thinkprm give none"
            )
    work = partial(chunk_reset, attempts=attempts, max_steps=max_steps)
    parameters: dict[str, str | int] = {"attempts": attempts, "max_steps": max_steps}
    chosen = SearchOptions(method="reset", parameters=parameters, reduce=Reduce.MIN, policy=policy, verifier=options)
    _run(work, chosen, problems, output, json, plot, limit)


@search_app.command(name="refine")
@with_search_options
def refine_command(
    options: RunOptions,
    policy: PolicyOptions,
    problems: Problems,
    output: Output,
    turns: Annotated[int, typer.Option(min=1, help="Times the policy may try again.")] = 3,
    json: Json = None,
    plot: Plot = None,
    limit: shared.Limit = None,
) -> None:
    """Critique and refine: what is said of wrong steps goes back to the policy."""
    chosen = SearchOptions(
        method="refine", parameters={"turns": turns}, reduce=Reduce.MIN, policy=policy, verifier=options
    )
    _run(partial(refine, turns=turns), chosen, problems, output, json, plot, limit)


@search_app.command()
def curves(
    files: Annotated[list[str], typer.Argument(help="Outputs of searches over the same problems.")],
    json: Json = None,
    plot: Plot = None,
) -> None:
    """Several searches side by side: accuracy against tokens."""
    with shared.refusing():
        shared.check_targets(files, json, plot=plot)
        shared.check_different(files)
        found = {file: _read(file) for file in files}
        first, *others = files
        asked = {file: {row.problem for row in rows} for file, rows in found.items()}
        for other in others:
            if asked[other] != asked[first]:
                raise InputError(f"{other}: not the problems of {first}: curves compare searches over the same ones")
        figures = {shared.short_name(file, files): _figures(rows) for file, rows in found.items()}
        _report(figures, json, plot)


def _run(
    work: Callable[[Search], Awaitable[None]],
    options: SearchOptions,
    problems: str,
    output: Path,
    json: Path | None,
    plot: Path | None,
    limit: int | None,
) -> None:
    with shared.refusing():
        require("data", ("math_verify", "pebble"))
        shared.check_targets([problems], output, json, plot=plot)
        rows = Checked(Problem, read_problems(problems, limit))
    with rows:
        shared.run(search_rows(rows, work, options, output, say))
    with shared.refusing():
        figures = _figures(_read(str(output)))
        _report({options.method: figures}, json, plot)
    raise typer.Exit(EXIT_UNSCORED if figures.failed else 0)


def _read(file: str) -> list[SearchOutput]:
    return [row for _, row in shared.read_output(file, parse_search_row, "search")]


def _figures(rows: Iterable[SearchOutput]) -> SearchFigures:
    return search_figures([told(row) for row in rows])


def _report(results: dict[str, SearchFigures], json: Path | None, plot: Path | None) -> None:
    table = Table(box=None, padding=(0, 1), header_style="bold")
    table.add_column("search")
    for name in ("right", "95 %", "problems", "failed", "policy tokens", "verifier tokens"):
        table.add_column(name, justify="right")
    for name, figures in results.items():
        low, high = figures.interval
        table.add_row(
            Text(name), f"{figures.accuracy:.1f}", f"{low:.1f} to {high:.1f}", str(figures.problems),
            str(figures.failed), f"{figures.policy_tokens:.0f}", f"{figures.verifier_tokens:.0f}",
        )  # fmt: skip
    console = Console(highlight=False)
    console.print(table)
    console.print("Right answers in percent; tokens per problem.")
    if json is not None:
        figures_json = {name: figures.model_dump(mode="json") for name, figures in results.items()}
        write_text(json, dumps(figures_json, indent=2) + "\n")
    if plot is not None:
        plot_curves(results, plot)
