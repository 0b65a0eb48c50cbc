"""What a style is: the script by which a model verifies a solution."""

from __future__ import annotations

import abc
import re
from collections.abc import AsyncGenerator

from genprm.aggregate import Aggregate
from genprm.chain import Chain
from genprm.records import Solution, StepVote

NUMBERED = re.compile(r"\s*step\s*\d+\s*:", re.IGNORECASE)
"""How a step begins that says its number itself."""


class Style(abc.ABC):
    """A prompt format, its parser and the order of events in it."""

    name: str
    aggregate = Aggregate.MEAN
    """How its votes are put together unless somebody says otherwise."""
    stepwise = True
    """Whether it goes from step to step, so that it can be left behind any of them."""
    judges_whole = False
    """Whether it has a vote on the solution as a whole, behind those on the steps."""
    writes_code = False
    """Whether the model is let write code."""
    chats = True
    """Whether it needs the model's chat template."""
    independent = False
    """Whether a step's verdict is the same without those on the steps before it: these can be left out."""

    @abc.abstractmethod
    def verify(self, chain: Chain, solution: Solution, first: int = 0) -> AsyncGenerator[StepVote, None]:
        """Yield one vote per step, in order; then, if the style `judges_whole`, one more.

        Args:
            chain: what it works with.
            solution: what it verifies.
            first: the step to begin with; 0 unless the style is `independent`.

        Raises (while iterating):
            WallTimeError: the chain's time is up.
            ModelError: the model failed, or its context is full.
            SandboxError: the sandbox failed.
        """
