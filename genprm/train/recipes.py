"""How long and how hard to train: the papers' recipes by name, and every number of them to be chosen."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

from pydantic import Field

from genprm.records import Record

Positive = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Schedule(str, Enum):
    """How the learning rate goes after the warm-up."""

    CONSTANT = "constant"
    COSINE = "cosine"
    LINEAR = "linear"


class LoRA(Record):
    """The shape of an adapter."""

    rank: Positive = 32
    alpha: Positive = 16
    """LoRA's update is scaled by alpha / rank."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0


class Recipe(LoRA):
    """The numbers of a supervised fine-tuning."""

    epochs: Rate = 1.0
    batch: Positive = 16
    """Conversations per optimizer step, over all processes; packed sequences, where they are packed."""
    learning_rate: Rate = 4e-4
    schedule: Schedule = Schedule.CONSTANT
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """The share of all steps in which the rate rises from 0."""


RECIPES = {
    "thinkprm": Recipe(epochs=3),
    "genprm": Recipe(batch=64, learning_rate=1e-4),
}
"""ThinkPRM (arXiv 2504.16828, appendix): rank 32, alpha 16, batch 16, 4e-4 constant, 3 epochs for the 14B model; it
does not say which layers: here all linear ones. GenPRM (arXiv 2504.00891): batch 64; it trained all weights at 2e-6,
where LoRA needs some tens of times as much: rank, rate and epochs are ours."""


class GRPORecipe(LoRA):
    """The numbers of a training by reinforcement."""

    steps: Positive = 200
    """Optimizer steps."""
    questions: Positive = 32
    """Steps to judge per round of rollouts, over all processes."""
    group: Annotated[int, Field(ge=2)] = 4
    """Judgements of each, whose rewards are compared with each other."""
    updates: Positive = 1
    """Optimizer steps per round of rollouts; from the second on they are off policy, and clipped."""
    learning_rate: Rate = 1e-5
    clip_low: Annotated[float, Field(gt=0, lt=1)] = 0.2
    clip_high: Rate = 0.28
    """Wider upwards, so that unlikely words can become likely: without it the judgements of a group become one."""
    temperature: Rate = 1.0
    brier: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """Weight of the squared distance between P(Yes) and the label, which the reward loses (RLCR, arXiv 2507.16806)."""
    agreed: Annotated[float, Field(gt=0, le=1)] = 0.95
    """It stops when, over the last `WINDOW` rounds, this share of groups has one reward only: nothing to learn from."""


WINDOW = 10
"""Rounds of rollouts over which the share of groups without a difference is taken."""
GRPO_RECIPES = {
    "small": GRPORecipe(),
    "stepwiser": GRPORecipe(steps=800, questions=1024, updates=4, learning_rate=1e-5),
}
"""StepWiser (arXiv 2508.19229, section 2.4): groups of 4, 1024 questions a round in 4 updates, clip 0.2 / 0.28, 800
steps. It trained all weights at 1e-6; LoRA and its rate are ours. `small` is for one machine."""
