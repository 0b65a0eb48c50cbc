"""What all commands share: their options, their errors, their exit statuses."""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Collection, Coroutine, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, TextIO, TypeVar, get_type_hints

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from genprm.aggregate import Aggregate
from genprm.budget import Budget
from genprm.errors import ConfigError, GenprmError, InputError, OutputError
from genprm.options import Backend, RunOptions
from genprm.plotting import check_picture
from genprm.rows import check_limit, reason
from genprm.styles import STYLES, History, PRMFormat
from genprm.styles.execution import OutputFormat
from genprm.votes import CONFIDENCE, MOST, SURE, VotePlan
from sandbox import SandboxError

T = TypeVar("T")
EXIT_UNSCORED = 1
EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130


def say(line: str) -> None:
    """Tell the user something, on standard error."""
    print(f"genprm: {line}", file=sys.stderr, flush=True)


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a command's work. What a user can mend becomes one line and exit status 2.

    SIGTERM ends it as Ctrl-C does: kernels, containers and files are cleaned up on the way out.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    with refusing():
        try:
            return asyncio.run(_terminable(work))
        except asyncio.CancelledError:
            raise KeyboardInterrupt from None
    raise AssertionError  # refusing() lets nothing through


async def _terminable(work: Coroutine[Any, Any, T]) -> T:
    # Not by way of SIGINT, which a shell's background job ignores from birth.
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await work


Model = Annotated[str | None, typer.Option(help="Hub id or folder; for a server, its name there. Default: embedded.")]
Adapter = Annotated[str | None, typer.Option(help="LoRA adapter for the model: folder or hub id.")]
BackendOption = Annotated[Backend | None, typer.Option("--backend", help="Where the model runs.")]
BaseUrl = Annotated[str | None, typer.Option(help="Address of an OpenAI-compatible server, ending in /v1.")]
Tokenizer = Annotated[str | None, typer.Option(help="With --base-url: hub id or folder of the model's tokenizer.")]
StyleOption = Annotated[
    str, typer.Option("--style", metavar="STYLE[>STYLE]", help="How to verify: " + ", ".join(STYLES) + ".")
]
Analysis = Annotated[bool, typer.Option("--analysis/--no-analysis", help="Let the model argue before it writes code.")]
Code = Annotated[bool, typer.Option("--code/--no-code", help="Let the model write code.")]
Execute = Annotated[bool, typer.Option("--execute/--no-execute", help="Run the code it writes.")]
Format = Annotated[
    OutputFormat, typer.Option("--output-format", help="How a run is told to the model: as GenPRM does, or in full.")
]
Example = Annotated[
    bool | None,
    typer.Option(
        "--example/--no-example", help="Show a worked example first. Default: only to the bare embedded model."
    ),
]
Votes = Annotated[
    str, typer.Option(metavar="N|auto", help="Chains per solution; auto: only as many as the outcome needs.")
]
MaxVotes = Annotated[int, typer.Option(help="With --votes auto: most chains per solution.")]
Confidence = Annotated[
    float, typer.Option(help="With --votes auto: how sure the outcome must be. 1: only votes without effect are saved.")
]
AggregateOption = Annotated[
    Aggregate | None, typer.Option("--aggregate", help="Mean score per step, or the first error most chains name.")
]
HistoryOption = Annotated[
    History, typer.Option("--history", help="What a step's turn sees of the earlier ones (genprm, direct).")
]
Rounds = Annotated[int, typer.Option(help="thinkprm: times the chain is made to go on, the first included.")]
PRMFormatOption = Annotated[
    PRMFormat | None, typer.Option("--prm-format", help="discriminative: the model's format, if its name is not known.")
]
StopAtError = Annotated[
    bool, typer.Option("--stop-at-first-error", help="Verify nothing behind a solution's first error.")
]
Sure = Annotated[float, typer.Option(help="With --style CHEAP>DEAR: how sure the cheap verdicts must be to be taken.")]
ChainTokens = Annotated[int | None, typer.Option(help="Tokens the model may write for a solution, in each chain.")]
InFlight = Annotated[int | None, typer.Option(help="Chains at work at once. Default: what suits the backend.")]
SandboxOption = Annotated[str, typer.Option("--sandbox", help="Where code runs: docker, local or unix:DIRECTORY.")]
Seed = Annotated[int, typer.Option(help="Seed of the random draws.")]
Temperature = Annotated[float, typer.Option(help="0 takes the likeliest token.")]
StepTokens = Annotated[int, typer.Option(help="Tokens the model may write for a step.")]
AnalysisTokens = Annotated[int | None, typer.Option(help="How many of them for the analysis. Default: three quarters.")]
Runs = Annotated[int, typer.Option(help="Code runs per step.")]
RunSeconds = Annotated[float, typer.Option(help="Wall time of one code run.")]
WallSeconds = Annotated[float, typer.Option(help="Wall time of one chain.")]
Limit = Annotated[int | None, typer.Option(help="Only the first rows of each file.")]


@contextmanager
def refusing() -> Iterator[None]:
    """Turn what is wrong with the options or the input into one line and exit status 2."""
    try:
        yield
    except ValidationError as error:
        first = error.errors()[0]
        name = "".join(f"--{str(part).replace('_', '-')}: " for part in first["loc"])
        say(f"{name}{reason(first)}")
    except (GenprmError, SandboxError, ValueError) as error:
        say(" ".join(str(error).split()))
    except KeyboardInterrupt:
        say("interrupted")
        raise typer.Exit(EXIT_INTERRUPTED) from None
    else:
        return
    raise typer.Exit(EXIT_BAD_INPUT)


def run_options(
    model: Model = None,
    adapter: Adapter = None,
    backend: BackendOption = None,
    base_url: BaseUrl = None,
    tokenizer: Tokenizer = None,
    style: StyleOption = "genprm",
    analysis: Analysis = True,
    code: Code = True,
    execute: Execute = True,
    output_format: Format = OutputFormat.REFERENCE,
    example: Example = None,
    history: HistoryOption = History.FULL,
    rounds: Rounds = 1,
    prm_format: PRMFormatOption = None,
    votes: Votes = "1",
    max_votes: MaxVotes = MOST,
    confidence: Confidence = CONFIDENCE,
    aggregate: AggregateOption = None,
    stop_at_first_error: StopAtError = False,
    sure: Sure = SURE,
    in_flight: InFlight = None,
    sandbox: SandboxOption = "docker",
    seed: Seed = 0,
    temperature: Annotated[
        float | None,
        typer.Option(help="0 takes the likeliest token. Default: 0.6; for the embedded verifier's first vote, 0."),
    ] = None,
    chain_tokens: ChainTokens = None,
    step_tokens: StepTokens = 2048,
    analysis_tokens: AnalysisTokens = None,
    runs: Runs = 3,
    run_seconds: RunSeconds = 5.0,
    wall_seconds: WallSeconds = 1800.0,
) -> RunOptions:
    """The options of a run, checked.

    Raises:
        GenprmError: they contradict each other.
        pydantic.ValidationError: a value is out of range.
    """
    limits = {"chain_tokens": chain_tokens, "runs": runs, "run_seconds": run_seconds, "wall_seconds": wall_seconds}
    options = RunOptions(
        backend=backend, model=model, adapter=adapter, base_url=base_url, tokenizer=tokenizer, style=style,
        analyze=analysis, code=code, execute=execute, output_format=output_format, example=example, history=history,
        rounds=rounds, prm_format=prm_format, votes=_vote_plan(votes, max_votes, confidence), aggregate=aggregate,
        stop_at_first_error=stop_at_first_error, sure=sure, in_flight=in_flight, seed=seed, temperature=temperature,
        sandbox=sandbox, budget=budget(step_tokens, analysis_tokens, **limits),
    )  # fmt: skip
    options.check()
    return options


def budget(step_tokens: int, analysis_tokens: int | None, **limits: Any) -> Budget:
    """What a chain may cost; three quarters of a step's tokens are for the analysis, if nothing is said of it."""
    usual = max(1, step_tokens * 3 // 4)
    return Budget(
        step_tokens=step_tokens, analysis_tokens=usual if analysis_tokens is None else analysis_tokens, **limits
    )


def _vote_plan(votes: str, most: int, confidence: float) -> VotePlan:
    if votes != "auto" and (most, confidence) != (MOST, CONFIDENCE):
        raise ConfigError("--max-votes and --confidence go with --votes auto only")
    if votes == "auto":
        if most < 2:
            raise ConfigError(f"--max-votes is {most}: expected at least 2")
        return VotePlan.adaptive(most, confidence)
    if not (votes.isascii() and votes.isdecimal()) or int(votes) < 1:
        raise ConfigError(f"--votes {votes}: expected a number from 1 on, or auto")
    return VotePlan.fixed(int(votes))


def with_options(**makers: Callable[..., Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the parameters of each maker; it gets what they amount to under the maker's name here.

    What a maker raises is refused as bad input.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        parameters = dict(inspect.signature(command).parameters)
        hints = get_type_hints(command, include_extras=True)
        for name, make in makers.items():
            del parameters[name]
            parameters |= inspect.signature(make).parameters
            hints |= get_type_hints(make, include_extras=True)

        @functools.wraps(command)
        def wrapper(**given: Any) -> None:
            made = {}
            with refusing():
                for name, make in makers.items():
                    made[name] = make(**{each: given.pop(each) for each in inspect.signature(make).parameters})
            command(**made, **given)

        keyword = inspect.Parameter.KEYWORD_ONLY
        shown = [each.replace(annotation=hints[name], kind=keyword) for name, each in parameters.items()]
        wrapper.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
        wrapper.__annotations__ = {each.name: each.annotation for each in shown}
        return wrapper

    return decorate


with_run_options = with_options(options=run_options)


def first(rows: Iterable[T], limit: int | None) -> Iterable[T]:
    """The first rows, if there is a limit.

    Raises:
        InputError: the limit lets none through.
    """
    check_limit(limit)
    return islice(rows, limit)


def read_output(file: str, parse: Callable[[bytes], T], command: str) -> Iterator[tuple[str, T]]:
    """Where a row of a command's output stands, and the row.

    Raises:
        InputError: the file cannot be read or has no rows, or a line is none that the command wrote.
    """
    number = 0
    try:
        with open(file, "rb") as lines:
            for number, line in enumerate(lines, 1):
                where = f"{file}, line {number}"
                try:
                    row = parse(line)
                except ValidationError as error:
                    first = error.errors()[0]
                    field = "".join(f"{part}: " for part in first["loc"])
                    raise InputError(f"{where}: no row that {command} wrote: {field}{first['msg']}") from error
                yield where, row
    except OSError as error:
        raise InputError(f"{file}: {error.strerror or error}") from error
    if not number:
        raise InputError(f"{file}: no rows in it")


def print_figures(figures: Iterable[tuple[str, str]], nothing: Collection[str] = ("0", "-", "None")) -> None:
    """Print names and figures, but those that are nothing."""
    grid = Table(box=None, padding=(0, 1), show_header=False)
    grid.add_column()
    grid.add_column(justify="right")
    for name, figure in figures:
        if figure not in nothing:
            grid.add_row(name, figure)
    Console(highlight=False).print(grid)


@contextmanager
def rows_file(target: Path | None) -> Iterator[Path]:
    """Where a command's rows go: ``target``, or a place that is gone afterwards."""
    if target is not None:
        yield target
        return
    with tempfile.TemporaryDirectory(prefix="genprm-") as folder:
        yield Path(folder) / "rows.jsonl"


def short_name(file: str, files: Iterable[str]) -> str:
    """A file's bare name; the whole path where another one has the same."""
    stems = [Path(other).stem for other in files]
    return Path(file).stem if stems.count(Path(file).stem) == 1 else file


def check_different(files: Sequence[str]) -> None:
    """Refuse files of which one is named twice.

    Raises:
        InputError: one is.
    """
    if len({Path(file).resolve() for file in files}) < len(files):
        raise InputError("expected different files: one is named twice")


def check_targets(inputs: Iterable[str], *outputs: Path | None, plot: Path | None = None) -> None:
    """Refuse outputs that cannot be written, before any work is done.

    Raises:
        OutputError: its folder does not exist, or takes no file, or it is a folder itself, or no regular file; or an
            output is an input, or another output; or ``plot`` is no kind of picture.
        ConfigError: there is a ``plot``, and nothing to draw it with.
    """
    if plot is not None:
        check_picture(plot)
    taken = {Path(each).resolve(): "is read from" for each in inputs if each != "-"}
    for path in (*outputs, plot):
        if path is None:
            continue
        if not path.resolve().parent.is_dir():
            raise OutputError(f"{path}: no such folder")
        if path.is_dir():
            raise OutputError(f"{path}: is a folder, expected the name of a file")
        if path.exists() and not path.is_file():
            raise OutputError(f"{path}: is no regular file, and would be replaced by one")
        if why := taken.get(path.resolve()):
            raise OutputError(f"{path} {why} by the same command: expected another name")
        try:
            with tempfile.TemporaryFile(dir=path.resolve().parent):
                pass
        except OSError as error:
            raise OutputError(f"{path}: {error.strerror or error}") from error
        for staged in (path.with_name(f"{path.name}.new"), path.with_name(f"{path.name}.partial")):
            if staged.resolve() in taken:
                raise OutputError(f"{path}: {staged} is needed while it is written: expected another name")
        taken[path.resolve()] = "is written"


def write_guest_text(stream: TextIO, text: str) -> None:
    """Write what untrusted code has printed; a terminal is not told what to do by it.

    Args:
        stream: where; what its encoding does not have is spelled out.
        text: as it was captured.
    """
    if stream.isatty():
        text = "".join(each if each.isprintable() or each in "\n\t" else repr(each)[1:-1] for each in text)
    encoding = stream.encoding or "utf-8"
    stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
    stream.flush()
