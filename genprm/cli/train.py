"""`genprm train`: adapters from training records."""

from __future__ import annotations

import signal
import warnings
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from genprm.cli import shared
from genprm.cli.shared import say
from genprm.errors import ConfigError
from genprm.models.embedded import EMBEDDED
from genprm.train.options import Machine, TrainOptions
from genprm.train.recipes import RECIPES, Recipe, Schedule
from genprm.train.tasks import Task

train_app = typer.Typer(no_args_is_help=True, help="Train a verifier, or a baseline, with LoRA.")
Output = Annotated[Path, typer.Option("--output", "-o", help="Folder for what comes of it.")]
Dev = Annotated[str | None, typer.Option(help="Rows to measure on; what does best there is kept.")]


class Variant(str, Enum):
    """How a discriminative verifier says its number."""

    SIGNS = "signs"
    HEAD = "head"


def train_options(
    base: Annotated[str, typer.Option(help="Hub id or folder of the model to train. Default: the embedded one.")] = (
        EMBEDDED
    ),
    recipe: Annotated[
        str, typer.Option(help="Where the numbers below come from: " + ", ".join(RECIPES) + ".")
    ] = "thinkprm",
    epochs: Annotated[float | None, typer.Option(help="Times through the data.")] = None,
    batch: Annotated[int | None, typer.Option(help="Conversations per optimizer step.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Of AdamW.")] = None,
    schedule: Annotated[Schedule | None, typer.Option(help="How the rate goes after the warm-up.")] = None,
    warmup: Annotated[float | None, typer.Option(help="Share of the steps in which the rate rises.")] = None,
    rank: Annotated[int | None, typer.Option(help="Of the LoRA matrices.")] = None,
    alpha: Annotated[int | None, typer.Option(help="LoRA's update is scaled by alpha / rank.")] = None,
    dropout: Annotated[float | None, typer.Option(help="Of the LoRA input.")] = None,
    eval_every: Annotated[int | None, typer.Option(help="Steps between looks at --dev. Default: ten looks.")] = None,
    patience: Annotated[int | None, typer.Option(help="Looks without progress before it stops.")] = None,
    max_length: Annotated[int, typer.Option(help="Most tokens of a conversation.")] = 2048,
    packing: Annotated[bool, typer.Option("--packing", help="Several conversations in one sequence.")] = False,
    limit: shared.Limit = None,
    seed: shared.Seed = 0,
) -> TrainOptions:
    """What to train, and how: a recipe by name, with what was chosen otherwise.

    Raises:
        ConfigError: there is no such recipe.
        pydantic.ValidationError: a value is out of range.
    """
    if recipe not in RECIPES:
        raise ConfigError(f"--recipe {recipe}: there is no such recipe, but {', '.join(RECIPES)}")
    chosen: dict[str, Any] = {
        "epochs": epochs, "batch": batch, "learning_rate": learning_rate, "schedule": schedule, "warmup": warmup,
        "rank": rank, "alpha": alpha, "dropout": dropout,
    }  # fmt: skip
    given = {name: value for name, value in chosen.items() if value is not None}
    return TrainOptions(
        base=base, recipe=Recipe(**{**RECIPES[recipe].model_dump(), **given}), max_length=max_length, packing=packing,
        limit=limit, seed=seed, eval_every=eval_every, patience=patience,
    )  # fmt: skip


def machine_options(
    micro_batch: Annotated[
        int | None, typer.Option(help="Sequences at once in a process. Default: 1 on a CPU, 8 on a GPU.")
    ] = None,
    activation_checkpointing: Annotated[
        bool, typer.Option("--activation-checkpointing", help="Less memory, a third more time.")
    ] = False,
    save_every: Annotated[int, typer.Option(help="Steps between two checkpoints.")] = 50,
) -> Machine:
    """What suits the machine.

    Raises:
        pydantic.ValidationError: a value is out of range.
    """
    return Machine(micro_batch=micro_batch, activation_checkpointing=activation_checkpointing, save_every=save_every)


@train_app.command()
@shared.with_options(options=train_options, machine=machine_options)
def sft(
    data: Annotated[str, typer.Argument(help="Training records: a file, or the folder that genprm synth wrote.")],
    output: Output,
    options: TrainOptions,
    machine: Machine,
    dev: Dev = None,
) -> None:
    """Teach a model to argue, to write code and to judge. The same command goes on where a run was cut off."""
    _run(data, output, options, machine, dev)


@train_app.command()
@shared.with_options(options=train_options, machine=machine_options)
def discriminative(
    data: Annotated[str, typer.Argument(help="Labelled solutions, as genprm label or synth wrote them.")],
    output: Output,
    options: TrainOptions,
    machine: Machine,
    dev: Dev = None,
    variant: Annotated[Variant, typer.Option(help="signs: it says + or -. head: a two-class head.")] = Variant.SIGNS,
) -> None:
    """Train the baseline that does not reason. The same command goes on where a run was cut off."""
    _run(data, output, options.model_copy(update={"task": Task(variant.value)}), machine, dev)


def _run(data: str, output: Path, options: TrainOptions, machine: Machine, dev: str | None) -> None:
    from genprm.train.lora import train

    with shared.refusing():
        warnings.simplefilter("ignore", FutureWarning)  # by libraries, about libraries
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        measured = train(data, output, options, machine, dev=dev, say=say)
        table = Table(box=None, padding=(0, 1), show_header=False)
        for name, value in measured.model_dump().items():
            table.add_row(name.replace("_", " "), "-" if value is None else f"{value}")
        Console(highlight=False).print(table)
        print(f"In {output}; README.md there says what it is")
