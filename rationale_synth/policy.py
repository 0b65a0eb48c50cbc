"""The model that writes solutions and completes them, as the data factory asks it."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence

from pydantic import Field

from genprm.errors import ModelError, ModelUnavailableError
from genprm.models.base import Completion, Message, ModelBackend, Sampling
from genprm.options import ModelOptions
from genprm.records import Record
from rationale_synth.simulate import SimulatedPolicy, Strength
from rationale_synth.slots import Priority, PrioritySlots

CALL_SECONDS = 3600.0
"""Most seconds for one call, however long its queue at the server."""
FIRST_PAUSE = 1.0
LONGEST_PAUSE = 30.0


class PolicySpec(Record):
    """Which policy to open, wherever that is."""

    model: ModelOptions
    simulated: Strength | None = None
    """A policy with known step values instead of a model; needs the answers."""
    answers: dict[str, str] = Field(default_factory=dict)
    """Of the problems' texts, for a simulated policy."""

    async def open(self) -> ModelBackend:
        """Load or reach the policy.

        Raises:
            ModelError: it cannot be had.
        """
        if self.simulated is not None:
            return SimulatedPolicy(self.answers.get, self.simulated)
        return await self.model.make_model()


class Policy:
    """A model backend, shared by everything that a job has in flight.

    Args:
        model: the backend.
        sampling: how tokens are drawn; its seed is the job's.
        patience: seconds for which a server that does not answer is asked again, before the job gives up.
        say: gets a line when the server is not there.
    """

    def __init__(
        self, model: ModelBackend, sampling: Sampling, *, patience: float = 900.0, say: Callable[[str], None] = print
    ) -> None:
        self.model = model
        self.completions = 0
        """Completions drawn so far."""
        self.tokens = 0
        """Tokens written so far."""
        self._sampling = sampling
        self._slots = PrioritySlots(model.concurrency)
        self._patience = patience
        self._say = say

    def render(self, messages: Sequence[Message], prefix: str) -> str:
        """The prompt for these messages and an answer that begins with ``prefix``."""
        return self.model.render(messages, prefix)

    async def draw(
        self, prompt: str, n: int, max_tokens: int, *, key: str, first: int = 0, priority: Priority
    ) -> list[Completion]:
        """Completions ``first .. first + n - 1`` of a prompt.

        Args:
            prompt: as `render` makes it.
            n: how many.
            max_tokens: most tokens of each.
            key: what the prompt is about. It seeds the draws: a rerun draws the same, in whatever order.
            first: the number of the first one.
            priority: which of those that wait comes first, smallest first.

        Raises:
            ModelUnavailableError: its server has not answered for as long as we are patient.
            ModelError: the model failed.
        """
        base = int.from_bytes(hashlib.sha256(f"{self._sampling.seed}/{key}".encode()).digest()[:4], "big") >> 2
        sampling = self._sampling.model_copy(update={"seed": base + first})
        async with self._slots.take(n, priority):
            done = await self._patiently(prompt, n, max_tokens, sampling)
        self.completions += n
        self.tokens += sum(completion.completion_tokens for completion in done)
        return done

    async def _patiently(self, prompt: str, n: int, max_tokens: int, sampling: Sampling) -> list[Completion]:
        pause, waited = FIRST_PAUSE, 0.0
        while True:
            try:
                async with asyncio.timeout(CALL_SECONDS):
                    return await self.model.complete(prompt, stop=(), max_tokens=max_tokens, n=n, sampling=sampling)
            except ModelUnavailableError as error:
                if waited >= self._patience:
                    raise
                if waited == 0:
                    self._say(f"{error}: asking again for {self._patience:.0f} s")
            except TimeoutError as error:
                raise ModelError(f"{self.model.name}: no answer within {CALL_SECONDS:.0f} s") from error
            await asyncio.sleep(pause)
            waited += pause
            pause = min(2 * pause, LONGEST_PAUSE)
