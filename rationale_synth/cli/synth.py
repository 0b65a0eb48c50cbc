"""`genprm synth`: labelled solutions in, training data out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from typer.core import TyperGroup

from genprm.budget import Budget
from genprm.cli import shared
from genprm.cli.shared import EXIT_UNSCORED, say
from genprm.errors import ConfigError
from genprm.extras import require
from genprm.models.base import ModelBackend
from genprm.options import ModelOptions, open_sandbox
from genprm.rows import check_limit
from rationale_synth.cli.engine import LIBRARIES, Actors, Decontaminate, Engine, EngineOption, RayAddress
from rationale_synth.consensus import Filter
from rationale_synth.families import family_plants
from rationale_synth.gold_critic import GoldCritic
from rationale_synth.jobs import take_input
from rationale_synth.overlap import Decontaminated
from rationale_synth.planted import Kind, Planted
from rationale_synth.ray_engine import Cluster, SynthWorker, run_on_ray
from rationale_synth.run_folder import RunFolder
from rationale_synth.synth_job import SynthProgress, open_synth_run, read_labelled, run_synth_job, write_data
from rationale_synth.synthesize import SynthOptions, SynthStyle
from rationale_synth.validate import Line, checked_solutions, labelled, plants, worked_solutions
from rationale_synth.validate import validate as check_synthesis
from rationale_synth.voice import voiced


class _RunByDefault(TyperGroup):
    """``genprm synth RUN`` is ``genprm synth rationales RUN``."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        return super().resolve_command(ctx, args if args[0] in self.commands else ["rationales", *args])


synth_app = typer.Typer(
    cls=_RunByDefault,
    no_args_is_help=True,
    help="Write verification rationales; keep those that agree with labels.",
)


@synth_app.command()
def rationales(
    source: Annotated[
        Path, typer.Argument(metavar="RUN", help="The folder of a `genprm label` run, or a file of labelled rows.")
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Folder of the data; an interrupted run goes on there.")
    ],
    model: shared.Model = None,
    backend: shared.BackendOption = None,
    adapter: shared.Adapter = None,
    base_url: shared.BaseUrl = None,
    tokenizer: shared.Tokenizer = None,
    style: Annotated[SynthStyle, typer.Option(help="How a rationale is written.")] = SynthStyle.GENPRM,
    filter: Annotated[Filter, typer.Option(help="What it must agree with to be kept.")] = Filter.PROCESS,
    tries: Annotated[int, typer.Option(help="Rationales of each solution until one is kept.")] = 4,
    balance: Annotated[
        bool, typer.Option("--balance/--no-balance", help="Keep as many solutions with as without an error.")
    ] = True,
    right_per_wrong: Annotated[
        float | None, typer.Option(help="With --filter labels: right steps per wrong one whose verdict is a target.")
    ] = None,
    sandbox: shared.SandboxOption = "docker",
    seed: shared.Seed = 0,
    temperature: shared.Temperature = 0.6,
    step_tokens: shared.StepTokens = 1024,
    runs: shared.Runs = 3,
    run_seconds: shared.RunSeconds = 5.0,
    wall_seconds: shared.WallSeconds = 1800.0,
    engine: EngineOption = Engine.LOCAL,
    ray_address: RayAddress = None,
    actors: Actors = 2,
    limit: Annotated[int | None, typer.Option(help="Only the first solutions.")] = None,
) -> None:
    """Let a model verify labelled solutions, with code that runs; keep the rationales that agree with the labels.

    The same command goes on with an interrupted run; nothing that is finished is done again.

    Exit status 0: every solution was settled. 1: some failed, and are tried again by the same command. 2: it could
    not begin, or not go on.
    """
    with shared.refusing():
        require("data", LIBRARIES)
        chosen = ModelOptions(backend=backend, model=model, adapter=adapter, base_url=base_url, tokenizer=tokenizer)
        chosen.check()
        budget = shared.budget(step_tokens, None, runs=runs, run_seconds=run_seconds, wall_seconds=wall_seconds)
        options = SynthOptions(
            style=style, filter=filter, tries=tries, balance=balance, example=chosen.is_embedded,
            right_per_wrong=right_per_wrong, temperature=temperature, seed=seed, budget=budget,
        )  # fmt: skip
        if filter is Filter.OUTCOME and source.is_file():
            raise ConfigError("--filter outcome: expected a label run, whose rows say whether their answer is right")
        mark = take_input(shared.first(read_labelled(source), limit), output)
        folder = open_synth_run(output, options, chosen.label, mark)
    with folder:
        if engine is Engine.RAY:
            worker = SynthWorker(chosen, options, sandbox if options.runs_code else None)
            progress = SynthProgress(folder)
            with shared.refusing(), progress:
                run_on_ray(folder, worker, Cluster(address=ray_address, actors=actors), progress)
        else:
            shared.run(_synthesize(folder, chosen.make_model, sandbox, options))
        _finish(folder, options, chosen.label)


@synth_app.command()
def plant(
    source: Annotated[str, typer.Argument(metavar="FILE", help="Worked solutions with GSM8K's columns.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Folder of the data; an interrupted run goes on there.")
    ],
    balance: Annotated[
        bool, typer.Option("--balance/--no-balance", help="Keep as many solutions with as without an error.")
    ] = True,
    errors: Annotated[
        int | None, typer.Option(min=1, help="Most planted errors per solution. Default: one of every kind.")
    ] = None,
    families: Annotated[
        int, typer.Option(min=0, help="Problems of our own families beside them: algebra, counting, geometry ...")
    ] = 0,
    labelled_rows: Annotated[
        str | None,
        typer.Option(
            "--labelled", metavar="FILE", help="Labelled solutions beside them, whose own equations are checked."
        ),
    ] = None,
    style: Annotated[
        SynthStyle, typer.Option(help="How a rationale is written: genprm, with code, or thinkprm, without.")
    ] = SynthStyle.GENPRM,
    reword: Annotated[
        bool,
        typer.Option(
            "--reword/--no-reword", help="Put the solutions as language models write them, or in plain words."
        ),
    ] = True,
    decontaminate: Decontaminate = None,
    sandbox: shared.SandboxOption = "docker",
    seed: shared.Seed = 0,
    limit: Annotated[int | None, typer.Option(help="Only the first rows.")] = None,
) -> None:
    """Training data without a model: plant errors in worked solutions, with rationales that expose them.

    Exit status as for `genprm synth rationales`.
    """
    with shared.refusing():
        require("data", LIBRARIES)
        if style is SynthStyle.GENPRM_STEP:
            raise ConfigError("--style: expected genprm or thinkprm, for planted errors")
        solutions, unusable = worked_solutions(source, limit)
        if unusable:
            say(f"{unusable} of {unusable + len(solutions)} solutions cannot be worked out anew, and are left out")
        every = [*plants(solutions, seed, errors), *family_plants(families, seed, errors or len(Kind))]
        told = [voiced(each, seed) for each in every] if reword else every
        grounded = [each for each in told if each.is_grounded]
        if ungrounded := len(told) - len(grounded):
            say(f"{ungrounded} solutions name numbers that come from nowhere, and are left out")
        theirs = checked_solutions(labelled_rows) if labelled_rows else []
        kept = Decontaminated([*grounded, *theirs], decontaminate or [])
        planted = list(kept)
        if decontaminate:
            say(f"{kept.dropped} solutions are of problems in an evaluation file, and are left out")
        options = SynthOptions(style=style, tries=1, balance=balance, seed=seed)
        mark = take_input(map(labelled, planted), output)
        folder = open_synth_run(output, options, GoldCritic.name, mark)

    async def critic() -> ModelBackend:
        return GoldCritic(planted)

    with folder:
        shared.run(_synthesize(folder, critic, sandbox, options))
        _finish(folder, options, GoldCritic.name)


@synth_app.command()
def validate(
    source: Annotated[
        str | None, typer.Argument(metavar="[FILE]", help="Worked solutions with GSM8K's columns. Default: our own.")
    ] = None,
    sandbox: shared.SandboxOption = "docker",
    seed: shared.Seed = 0,
    limit: Annotated[int | None, typer.Option(help="Only the first rows.")] = None,
) -> None:
    """Check synthesis without a model: plant errors, expose them by code, keep what is right, reject what is faulty.

    Exit status 0: all as it must be. 1: not. 2: it could not begin, or not go on.
    """
    with shared.refusing():
        check_limit(limit)
        solutions, unusable = worked_solutions(source, limit)
    lines = shared.run(_validate(list(plants(solutions, seed)), sandbox))
    grid = Table(box=None, padding=(0, 1), header_style="bold")
    for name in ("rationale", "solutions", "exposed by code", "as it must be"):
        grid.add_column(name, justify="left" if name == "rationale" else "right")
    for line in lines:
        proven = "" if line.proven is None else f"{line.proven}"
        grid.add_row(line.name, f"{line.tried}", proven, f"{line.as_expected}", style=None if line.passed else "red")
    console = Console(highlight=False)
    console.print(grid)
    console.print(f"{len(solutions)} worked solutions; {unusable} more could not be worked out anew")
    raise typer.Exit(0 if all(line.passed for line in lines) else EXIT_UNSCORED)


async def _validate(solutions: list[Planted], sandbox: str) -> list[Line]:
    async with open_sandbox(sandbox, Budget(), say) as box:
        return await check_synthesis(solutions, box)


def _finish(folder: RunFolder, options: SynthOptions, model: str) -> None:
    """Write what a run has found, and tell it."""
    with shared.refusing():
        summary = write_data(folder, options, model)
    shared.print_figures(summary.figures)
    Console(highlight=False).print(
        f"Training data: {folder.path}/train.jsonl, train.parquet; what is in them: README.md", soft_wrap=True
    )
    if not summary.written:
        say("there are no records: no rationale was kept, or none of one of the two classes")
    raise typer.Exit(EXIT_UNSCORED if summary.failed or not summary.written else 0)


async def _synthesize(
    folder: RunFolder, make_model: Callable[[], Awaitable[ModelBackend]], sandbox: str, options: SynthOptions
) -> None:
    total, done = folder.config.input.rows, folder.done
    if done == total:
        return
    if done:
        say(f"{done} of {total} solutions are done already: going on from {folder.path}")
    async with AsyncExitStack() as stack:
        box = None
        if options.runs_code:
            box = await stack.enter_async_context(open_sandbox(sandbox, options.budget, say))
        model = await make_model()
        stack.push_async_callback(model.close)
        await run_synth_job(folder, model, box, options)
