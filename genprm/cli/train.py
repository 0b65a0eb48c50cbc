"""`genprm train`: adapters from training records."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from genprm.cli import shared
from genprm.cli.shared import say
from genprm.errors import ConfigError
from genprm.models.embedded import EMBEDDED
from genprm.records import Record
from genprm.train.folder import process
from genprm.train.options import GRPOOptions, Machine, TrainOptions
from genprm.train.recipes import GRPO_RECIPES, RECIPES, LoRA, Schedule
from genprm.train.tasks import Task

train_app = typer.Typer(no_args_is_help=True, help="Train a verifier, or a baseline, with LoRA.")
Output = Annotated[Path, typer.Option("--output", "-o", help="Folder for what comes of it.")]
Records = Annotated[
    str, typer.Argument(metavar="DATA", help="Training records: a file, or the folder that genprm synth wrote.")
]
Dev = Annotated[str | None, typer.Option(help="Data of the same kind to measure on, on the way.")]
Base = Annotated[str, typer.Option(help="Hub id or folder of the model to train. Default: the embedded one.")]
Start = Annotated[str | None, typer.Option(help="Folder of an adapter to go on from; its rank is its own.")]
Rate = Annotated[float | None, typer.Option("--learning-rate", help="Of AdamW.")]
Rank = Annotated[int | None, typer.Option(help="Of the LoRA matrices.")]
Alpha = Annotated[int | None, typer.Option(help="LoRA's update is scaled by alpha / rank.")]
MaxLength = Annotated[int, typer.Option(help="Most tokens of a conversation.")]
Mixed = Annotated[
    bool, typer.Option("--mixed", help="On a CPU: multiply in bfloat16. Faster where it has instructions for it.")
]
R = TypeVar("R", bound=LoRA)


class Variant(str, Enum):
    """How a verifier that does not reason says its number."""

    SIGNS = "signs"
    HEAD = "head"
    DIRECT = "direct"


def train_options(
    base: Base = EMBEDDED,
    start: Start = None,
    recipe: Annotated[
        str, typer.Option(help="Where the numbers below come from: " + ", ".join(RECIPES) + ".")
    ] = "thinkprm",
    epochs: Annotated[float | None, typer.Option(help="Times through the data.")] = None,
    batch: Annotated[int | None, typer.Option(help="Conversations per optimizer step.")] = None,
    learning_rate: Rate = None,
    schedule: Annotated[Schedule | None, typer.Option(help="How the rate goes after the warm-up.")] = None,
    warmup: Annotated[float | None, typer.Option(help="Share of the steps in which the rate rises.")] = None,
    rank: Rank = None,
    alpha: Alpha = None,
    dropout: Annotated[float | None, typer.Option(help="Of the LoRA input.")] = None,
    eval_every: Annotated[int | None, typer.Option(help="Steps between looks at --dev. Default: ten looks.")] = None,
    patience: Annotated[int | None, typer.Option(help="Looks without progress before it stops.")] = None,
    max_length: MaxLength = 2048,
    packing: Annotated[bool, typer.Option("--packing", help="Several conversations in one sequence.")] = False,
    mixed: Mixed = False,
    limit: shared.Limit = None,
    seed: shared.Seed = 0,
) -> TrainOptions:
    """What to train, and how: a recipe by name, with what was chosen otherwise.

    Raises:
        ConfigError: there is no such recipe.
        pydantic.ValidationError: a value is out of range.
    """
    chosen = {
        "epochs": epochs, "batch": batch, "learning_rate": learning_rate, "schedule": schedule, "warmup": warmup,
        "rank": rank, "alpha": alpha, "dropout": dropout,
    }  # fmt: skip
    return TrainOptions(
        base=base, start=start, recipe=_changed(RECIPES, recipe, chosen), max_length=max_length,
        packing=packing, limit=limit, mixed=mixed, seed=seed, eval_every=eval_every, patience=patience,
    )  # fmt: skip


def machine_options(
    micro_batch: Annotated[
        int | None, typer.Option(help="Sequences at once in a process. Default: 1 on a CPU, 8 on a GPU; grpo: a group.")
    ] = None,
    activation_checkpointing: Annotated[
        bool, typer.Option("--activation-checkpointing", help="Less memory, a third more time.")
    ] = False,
    compile: Annotated[
        bool, typer.Option("--compile", help="Compile the layers first: half a minute, then faster.")
    ] = False,
    save_every: Annotated[
        int, typer.Option(help="Steps between two checkpoints; those of sft come with the looks at --dev.")
    ] = 50,
) -> Machine:
    """What suits the machine.

    Raises:
        pydantic.ValidationError: a value is out of range.
    """
    return Machine(
        micro_batch=micro_batch,
        activation_checkpointing=activation_checkpointing,
        compile=compile,
        save_every=save_every,
    )


@train_app.command()
@shared.with_options(options=train_options, machine=machine_options)
def sft(
    data: Records,
    output: Output,
    options: TrainOptions,
    machine: Machine,
    dev: Dev = None,
) -> None:
    """Teach a model to argue, to write code and to judge. The same command goes on where a run was cut off."""
    _supervised(data, output, options, machine, dev)


@train_app.command()
@shared.with_options(options=train_options, machine=machine_options)
def discriminative(
    data: Annotated[str, typer.Argument(help="Labelled solutions, as genprm label or synth wrote them.")],
    output: Output,
    options: TrainOptions,
    machine: Machine,
    dev: Dev = None,
    variant: Annotated[
        Variant, typer.Option(help="signs: it says + or -. head: a two-class head. direct: it says Yes or No.")
    ] = Variant.SIGNS,
) -> None:
    """Train the baseline that does not reason. The same command goes on where a run was cut off."""
    _supervised(data, output, options.model_copy(update={"task": Task(variant.value)}), machine, dev)


def grpo_options(
    base: Base = EMBEDDED,
    start: Start = None,
    recipe: Annotated[
        str, typer.Option(help="Where the numbers below come from: " + ", ".join(GRPO_RECIPES) + ".")
    ] = "small",
    steps: Annotated[int | None, typer.Option(help="Optimizer steps.")] = None,
    questions: Annotated[int | None, typer.Option(help="Steps to judge per round of rollouts.")] = None,
    group: Annotated[int | None, typer.Option(help="Judgements of each.")] = None,
    updates: Annotated[int | None, typer.Option(help="Optimizer steps per round of rollouts.")] = None,
    learning_rate: Rate = None,
    clip_high: Annotated[float | None, typer.Option(help="How much likelier a token may become in a round.")] = None,
    brier: Annotated[
        float | None, typer.Option(help="Weight of the squared distance of P(Yes) from the label, for calibration.")
    ] = None,
    agreed: Annotated[
        float | None, typer.Option(help="Share of groups without a difference at which it stops.")
    ] = None,
    rank: Rank = None,
    alpha: Alpha = None,
    code: Annotated[bool, typer.Option("--code/--no-code", help="Let the model write code.")] = True,
    step_tokens: Annotated[int, typer.Option(help="Most tokens of a judgement.")] = 512,
    analysis_tokens: shared.AnalysisTokens = None,
    eval_every: Annotated[int | None, typer.Option(help="Steps between looks at --dev. Default: five looks.")] = None,
    max_length: MaxLength = 2048,
    mixed: Mixed = False,
    limit: shared.Limit = None,
    seed: shared.Seed = 0,
) -> GRPOOptions:
    """What to train by reinforcement, and how.

    Raises:
        ConfigError: there is no such recipe.
        pydantic.ValidationError: a value is out of range.
    """
    chosen = {
        "steps": steps, "questions": questions, "group": group, "updates": updates, "learning_rate": learning_rate,
        "clip_high": clip_high, "brier": brier, "agreed": agreed, "rank": rank, "alpha": alpha,
    }  # fmt: skip
    return GRPOOptions(
        base=base, start=start, recipe=_changed(GRPO_RECIPES, recipe, chosen), code=code,
        budget=shared.budget(step_tokens, analysis_tokens), eval_every=eval_every,
        max_length=max_length, mixed=mixed, limit=limit, seed=seed,
    )  # fmt: skip


@train_app.command()
@shared.with_options(options=grpo_options, machine=machine_options)
def grpo(
    data: Records,
    output: Output,
    options: GRPOOptions,
    machine: Machine,
    dev: Dev = None,
    sandbox: shared.SandboxOption = "docker",
) -> None:
    """Teach a model by its own judgements: they run code, and are rewarded where they agree with the labels."""

    def train() -> Record:
        from genprm.train.grpo import train_grpo

        return train_grpo(data, output, options, machine, sandbox=sandbox, dev=dev, say=say)

    _run(train, output)


def _supervised(data: str, output: Path, options: TrainOptions, machine: Machine, dev: str | None) -> None:
    def train() -> Record:
        from genprm.train.lora import train

        return train(data, output, options, machine, dev=dev, say=say)

    _run(train, output)


def _changed(recipes: Mapping[str, R], name: str, chosen: Mapping[str, Any]) -> R:
    """A recipe with what was chosen otherwise."""
    if name not in recipes:
        raise ConfigError(f"--recipe {name}: there is no such recipe, but {', '.join(recipes)}")
    recipe = recipes[name]
    given = {field: value for field, value in chosen.items() if value is not None}
    return type(recipe)(**{**recipe.model_dump(), **given})


def _run(train: Callable[[], Record], output: Path) -> None:
    with shared.refusing():
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        measured = train()
        if process() != 0:
            return
        figures = ((name.replace("_", " "), f"{value}") for name, value in measured.model_dump().items())
        shared.print_figures(figures, nothing=["None"])
        print(f"In {output}; README.md there says what it is")
