"""How long and how hard to train: the papers' recipes by name, and every number of them to be chosen."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

from pydantic import Field

from genprm.records import Record

Positive = Annotated[int, Field(ge=1)]


class Schedule(str, Enum):
    """How the learning rate goes after the warm-up."""

    CONSTANT = "constant"
    COSINE = "cosine"
    LINEAR = "linear"


class Recipe(Record):
    """The numbers of a LoRA fine-tuning."""

    epochs: Annotated[float, Field(gt=0)] = 1.0
    batch: Positive = 16
    """Conversations per optimizer step, over all processes."""
    learning_rate: Annotated[float, Field(gt=0)] = 4e-4
    schedule: Schedule = Schedule.CONSTANT
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """The share of all steps in which the rate rises from 0."""
    rank: Positive = 32
    alpha: Positive = 16
    """LoRA's update is scaled by alpha / rank."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0


RECIPES = {
    "thinkprm": Recipe(epochs=3),
    "genprm": Recipe(batch=64, learning_rate=1e-4),
}
"""ThinkPRM (arXiv 2504.16828, appendix): rank 32, alpha 16, batch 16, 4e-4 constant, 3 epochs for the 14B model; it
does not say which layers: here all linear ones. GenPRM (arXiv 2504.00891): batch 64; it trained all weights at 2e-6,
where LoRA needs some tens of times as much: rank, rate and epochs are ours."""
