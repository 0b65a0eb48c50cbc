"""One chain: a model, a budget, a kernel and a transcript, for one pass over one solution.

A style (`genprm.styles`) writes the script of a step in terms of what a chain offers: `write`, `run` and
`probability_of_yes`. The chain counts the cost, keeps the deadlines and opens a kernel when the first code comes.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import time
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

from genprm.budget import Budget
from genprm.models.base import Completion, Message, ModelBackend, Sampling
from genprm.records import Usage
from sandbox import RunResult, SandboxTimeoutError, Session

if TYPE_CHECKING:
    from sandbox import Sandbox

T = TypeVar("T")
TOP_LOGPROBS = 20
"""Alternatives asked for at a judgement token, as the reference does."""
RUN_SLACK = 60.0
"""Seconds beyond a run's own limit, for a kernel to start and to be stopped on a busy machine."""


class WallTimeError(Exception):
    """The chain has used its wall time. Becomes a stop reason; never leaves the engine."""


class Chain:
    """The resources of one chain, and what it has cost so far."""

    def __init__(
        self, model: ModelBackend, sandbox: Sandbox | None, budget: Budget, sampling: Sampling, key: str
    ) -> None:
        self.budget = budget
        self._model = model
        self._sandbox = sandbox
        self._sampling = sampling
        self._key = key
        self._session: Session | None = None
        self._started = time.monotonic()
        self._deadline = self._started + budget.wall_seconds
        self._prompt_tokens = 0
        self._completion_tokens = 0
        self._calls = 0
        self._runs = 0

    @classmethod
    @asynccontextmanager
    async def open(
        cls, model: ModelBackend, sandbox: Sandbox | None, budget: Budget, sampling: Sampling, key: str
    ) -> AsyncIterator[Chain]:
        """A chain whose kernel is destroyed at the end. ``key`` makes its random draws its own."""
        chain = cls(model, sandbox, budget, sampling, key)
        try:
            yield chain
        finally:
            if chain._session is not None:
                await chain._session.close()

    @property
    def executes(self) -> bool:
        """Whether code can be run."""
        return self._sandbox is not None

    @property
    def usage(self) -> Usage:
        """What the chain has cost so far."""
        return Usage(
            prompt_tokens=self._prompt_tokens,
            completion_tokens=self._completion_tokens,
            model_calls=self._calls,
            code_runs=self._runs,
            seconds=round(time.monotonic() - self._started, 3),
        )

    def render(self, messages: Sequence[Message], prefix: str) -> str:
        """The prompt for ``messages`` with an open assistant's turn that begins with ``prefix``."""
        return self._model.render(messages, prefix)

    async def write(self, prompt: str, stop: Sequence[str], max_tokens: int) -> Completion:
        """Let the model continue ``prompt``.

        Raises:
            WallTimeError: the chain's time is up.
            ModelError: the model failed, or its context is full.
        """
        return await self._complete(prompt, stop, max_tokens, 0)

    async def probability_of_yes(self, prompt: str) -> float | None:
        """P(Yes) / (P(Yes) + P(No)) for the one token after ``prompt`` (GenPRM, section 3.1).

        None if neither is among the `TOP_LOGPROBS` likeliest tokens. One that is missing there counts as 0.
        """
        completion = await self._complete(prompt, (), 1, TOP_LOGPROBS)
        if not completion.tokens:
            return None
        mass = {"yes": 0.0, "no": 0.0}
        for text, logprob in completion.tokens[0].top.items():
            word = text.strip().lower()
            if word in mass:
                mass[word] += math.exp(logprob)
        total = mass["yes"] + mass["no"]
        return mass["yes"] / total if total > 0 else None

    async def run(self, code: str) -> RunResult:
        """Run code in this chain's kernel; variables of earlier runs are there, unless the kernel was lost.

        Raises:
            WallTimeError: the chain's time is up.
            SandboxError: the sandbox failed, so that nothing is known about the code.
        """
        assert self._sandbox is not None
        if self._session is None or not self._session.alive:
            if self._session is not None:
                await self._session.close()
            self._session = await self._in_time(self._sandbox.session())
        self._runs += 1
        # The session keeps the run's own deadline; ours is only a bound on a sandbox that does not.
        seconds = self.budget.run_seconds
        try:
            return await asyncio.wait_for(self._session.run(code, timeout=seconds), seconds + RUN_SLACK)
        except TimeoutError as error:
            raise SandboxTimeoutError(f"a run of {seconds:g} s was not over after {seconds + RUN_SLACK:g} s") from error

    async def _complete(self, prompt: str, stop: Sequence[str], max_tokens: int, logprobs: int) -> Completion:
        call = self._model.complete(
            prompt, stop=stop, max_tokens=max_tokens, logprobs=logprobs, sampling=self._next_sampling()
        )
        [completion] = await self._in_time(call)
        self._calls += 1
        self._prompt_tokens += completion.prompt_tokens
        self._completion_tokens += completion.completion_tokens
        return completion

    def _next_sampling(self) -> Sampling:
        # A seed per call, from what the call is about and not from when it happens: reruns draw the same.
        text = f"{self._sampling.seed}/{self._key}/{self._calls}"
        seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1
        return self._sampling.model_copy(update={"seed": seed})

    async def _in_time(self, work: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout_at(asyncio.get_running_loop().time() + self._deadline - time.monotonic()):
                return await work
        except TimeoutError as error:
            raise WallTimeError from error
