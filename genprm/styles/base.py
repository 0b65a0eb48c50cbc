"""What a style is: the script by which a model verifies one step after the other."""

from __future__ import annotations

import abc
from collections.abc import AsyncGenerator

from genprm.chain import Chain
from genprm.records import Solution, StepVote


class Style(abc.ABC):
    """A prompt format, its parser and the order of events in it."""

    name: str

    @abc.abstractmethod
    def verify(self, chain: Chain, solution: Solution) -> AsyncGenerator[StepVote, None]:
        """Yield one vote per step, in order.

        Raises (while iterating):
            WallTimeError: the chain's time is up.
            ModelError: the model failed, or its context is full.
            SandboxError: the sandbox failed.
        """
