"""The model that writes solutions and completes them, shared by everything that a job has in flight."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence

from genprm.errors import ModelError
from genprm.models.base import Completion, Message, ModelBackend, Sampling
from genprm.priority import Priority, PrioritySlots
from genprm.records import as_text

CALL_SECONDS = 3600.0
"""Most seconds for one call, however long its queue at the server."""


class Policy:
    """A model backend that draws completions with seeds of their own.

    Args:
        model: the backend.
        sampling: how tokens are drawn; its seed is the job's.
    """

    def __init__(self, model: ModelBackend, sampling: Sampling) -> None:
        self.model = model
        self.completions = 0
        """Completions drawn so far."""
        self._sampling = sampling
        self._slots = PrioritySlots(model.concurrency)

    def render(self, messages: Sequence[Message], prefix: str) -> str:
        """The prompt for these messages and an answer that begins with ``prefix``."""
        return self.model.render(messages, prefix)

    async def draw(
        self,
        prompt: str,
        n: int,
        max_tokens: int,
        *,
        key: str,
        first: int = 0,
        priority: Priority,
        stop: Sequence[str] = (),
    ) -> list[Completion]:
        """Completions ``first .. first + n - 1`` of a prompt.

        Args:
            prompt: as `render` makes it.
            n: how many.
            max_tokens: most tokens of each.
            key: what the prompt is about. It seeds the draws: a rerun draws the same, in whatever order.
            first: the number of the first one.
            priority: which of those that wait comes first, smallest first.
            stop: a completion ends before one of these strings.

        Raises:
            ModelUnavailableError: its server has not answered for as long as the backend is patient.
            ModelError: the model failed.
        """
        base = int.from_bytes(hashlib.sha256(f"{self._sampling.seed}/{key}".encode()).digest()[:4], "big") >> 2
        sampling = self._sampling.model_copy(update={"seed": base + first})
        async with self._slots.take(n, priority):
            try:
                async with asyncio.timeout(CALL_SECONDS):
                    done = await self.model.complete(prompt, stop=stop, max_tokens=max_tokens, n=n, sampling=sampling)
            except TimeoutError as error:
                raise ModelError(f"{self.model.name}: no answer within {CALL_SECONDS:.0f} s") from error
        self.completions += n
        # What a policy writes becomes a solution, which may not hold everything that a model can write.
        return [completion.model_copy(update={"text": as_text(completion.text)}) for completion in done]
