"""What is to be trained, and on what machine."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from genprm.budget import Budget
from genprm.models.embedded import EMBEDDED
from genprm.records import Record
from genprm.train.recipes import GRPORecipe, Positive, Recipe
from genprm.train.tasks import Task


class CommonOptions(Record):
    """What every kind of training is told."""

    base: str = EMBEDDED
    start: str | None = None
    """The folder of an adapter to go on from; the recipe's rank, alpha and dropout are then the adapter's."""
    max_length: Positive = 2048
    """Most tokens of a conversation, but for what code prints in one's own rollouts; longer ones are left out."""
    limit: Positive | None = None
    mixed: bool = False
    """On a CPU, multiply in bfloat16, and keep only what is trained in float32. On a GPU it is so anyway."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    eval_every: Positive | None = None
    """Steps between two looks at the dev file. Default: ten looks, or five where rollouts must be written for one."""


class TrainOptions(CommonOptions):
    """Everything that decides what a supervised training comes to."""

    task: Task = Task.SFT
    recipe: Recipe = Recipe()
    packing: bool = False
    """Put several conversations into one sequence of ``max_length`` tokens."""
    patience: Positive | None = None
    """Looks at the dev file without progress before it stops."""


class GRPOOptions(CommonOptions):
    """Everything that decides what a training by reinforcement comes to: `start` should write the format already."""

    recipe: GRPORecipe = GRPORecipe()
    code: bool = True
    """Whether the model is let write code."""
    budget: Budget = Budget(step_tokens=512, analysis_tokens=384)
    """Of one judgement."""


class Machine(Record):
    """What only decides how fast it comes out, and whether it fits the memory."""

    micro_batch: Positive | None = None
    """Sequences at once in a process. Default: 1 on a CPU, where padding costs most, up to 8 on a GPU; for GRPO a
    group."""
    activation_checkpointing: bool = False
    """Compute activations twice, and keep fewer of them: less memory, a third more time."""
    compile: bool = False
    """Compile the model's layers first: half a minute, and more tokens a second (benchmarks/train_speed.py)."""
    save_every: Positive = 50
    """Steps between two checkpoints."""
