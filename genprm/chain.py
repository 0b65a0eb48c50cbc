"""One chain: a model, a budget, a kernel and a transcript, for one pass over one solution.

A style (`genprm.styles`) writes the script of a step in terms of what a chain offers: `write`, `run` and
`choose`. The chain counts the cost, keeps the deadlines and opens a kernel when the first code comes.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from genprm.budget import Budget
from genprm.errors import ModelUnavailableError
from genprm.models.base import HEARD, Completion, Heard, Message, ModelBackend, Sampling
from genprm.records import ParseStatus, Segment, Usage, as_text
from genprm.sigmoid import sigmoid
from sandbox import RunResult, SandboxLostError, SandboxTimeoutError, Session

if TYPE_CHECKING:
    from sandbox import Sandbox

T = TypeVar("T")
UNBOUNDED_TEXT = 8192
"""Tokens of a text that the budget does not bound (ThinkPRM, section 4.1)."""
Shown = Callable[[int, Segment], None]
"""Gets a step's index and a part of its rationale."""


class Reading(NamedTuple):
    """What was read where a verdict had to stand."""

    score: float | None
    status: ParseStatus


TOP_LOGPROBS = 20
"""Alternatives asked for at a judgement token, as the reference does."""
SURE_ALONE = 0.99
"""Probability from which on a word alone will do, where the server names no alternatives."""
RUN_SLACK = 60.0
"""Seconds beyond a run's own limit, for a kernel to start and to be stopped on a busy machine."""


class WallTimeError(Exception):
    """The chain has used its wall time. Becomes a stop reason; never leaves the engine."""


class Chain:
    """The resources of one chain, and what it has cost so far; a context, at whose end its kernel is destroyed.

    Args:
        model: who writes.
        sandbox: where its code runs.
        budget: what it may cost.
        sampling: how tokens are drawn.
        key: makes its random draws its own.
        shown: is told of a step's segments as they are written.
    """

    def __init__(
        self,
        model: ModelBackend,
        sandbox: Sandbox | None,
        budget: Budget,
        sampling: Sampling,
        key: str,
        shown: Shown | None = None,
    ) -> None:
        self.budget = budget
        self._model = model
        self._sandbox = sandbox
        self._sampling = sampling
        self._key = key
        self._shown = shown
        self._session: Session | None = None
        self._began: float | None = time.monotonic()
        self._active = 0.0
        self._prompt_tokens = 0
        self._completion_tokens = 0
        self._calls = 0
        self._runs = 0

    async def __aenter__(self) -> Chain:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Destroy its kernel."""
        if self._session is not None:
            await self._session.close()

    def pause(self) -> None:
        """Stop the clock: the chain waits for somebody else."""
        self._active, self._began = self._elapsed, None

    def resume(self) -> None:
        """Start the clock again."""
        self._active, self._began = self._elapsed, time.monotonic()

    @property
    def _elapsed(self) -> float:
        return self._active + (0.0 if self._began is None else time.monotonic() - self._began)

    @property
    def executes(self) -> bool:
        """Whether code can be run."""
        return self._sandbox is not None

    @property
    def tokens_left(self) -> int:
        """Tokens that the model may still write for this solution."""
        most = self.budget.chain_tokens
        return sys.maxsize if most is None else max(0, most - self._completion_tokens)

    @property
    def text_tokens(self) -> int:
        """The same for a style whose chain is one text, which has an end also where the budget names none."""
        return UNBOUNDED_TEXT if self.budget.chain_tokens is None else self.tokens_left

    @property
    def usage(self) -> Usage:
        """What the chain has cost so far."""
        return Usage(
            prompt_tokens=self._prompt_tokens,
            completion_tokens=self._completion_tokens,
            model_calls=self._calls,
            code_runs=self._runs,
            seconds=round(self._elapsed, 3),
        )

    def show(self, step: int, segment: Segment) -> None:
        """Let whoever watches see a part of a step's rationale."""
        if self._shown is not None:
            self._shown(step, segment)

    def render(self, messages: Sequence[Message], prefix: str) -> str:
        """The prompt for ``messages`` with an open assistant's turn that begins with ``prefix``."""
        return self._model.render(messages, prefix)

    def plain(self, text: str) -> str:
        """The prompt for a text that is no conversation."""
        return self._model.plain(text)

    async def write(self, prompt: str, stop: Sequence[str], max_tokens: int) -> Completion:
        """Let the model continue ``prompt``.

        Raises:
            WallTimeError: the chain's time is up.
            ModelError: the model failed, or its context is full.
        """
        return await self._complete(prompt, stop, max_tokens, 0)

    async def choose(self, prompt: str, good: str = "Yes", bad: str = "No") -> Reading:
        """P(good) / (P(good) + P(bad)) for what comes after ``prompt`` (GenPRM, section 3.1). Nothing is sampled.

        Words of one token are looked up among the `TOP_LOGPROBS` likeliest, whatever their case and the space before
        them; one that is missing there counts as 0. Where the tokenizer cuts one of them up, both are scored whole:
        the first piece alone may begin other words too.
        """
        if not (self._model.is_token(good) and self._model.is_token(bad)):
            likely, unlikely = await self._in_time(self._model.score(prompt, [good, bad]))
            self._calls += 1
            return Reading(sigmoid(likely - unlikely), ParseStatus.OK)
        completion = await self._complete(prompt, (), 1, TOP_LOGPROBS, is_drawn=False)
        if not completion.tokens:
            wrote = completion.text or completion.completion_tokens  # not every server counts
            return Reading(None, ParseStatus.NO_LOGPROBS if wrote else ParseStatus.EMPTY)
        mass = {good.strip().lower(): 0.0, bad.strip().lower(): 0.0}
        for text, logprob in completion.tokens[0].top.items():
            word = text.strip().lower()
            if word in mass:
                mass[word] += math.exp(logprob)
        yes, no = mass.values()
        if len(completion.tokens[0].top) == 1 and 0 < yes + no < SURE_ALONE:
            return Reading(None, ParseStatus.NO_LOGPROBS)  # the server tells of what was drawn, and of nothing else
        return (
            Reading(yes / (yes + no), ParseStatus.OK) if yes + no > 0 else Reading(None, ParseStatus.NO_VERDICT_TOKEN)
        )

    async def step_rewards(self, text: str, marker: str) -> list[float]:
        """What the model's reward head says at every ``marker`` of ``text``.

        Raises:
            WallTimeError: the chain's time is up.
            ModelError: the model has no such head, or failed.
        """
        rewards = await self._in_time(self._model.step_rewards(text, marker))
        self._calls += 1
        return rewards

    async def run(self, code: str) -> RunResult:
        """Run code in this chain's kernel; variables of earlier runs are there, unless the kernel was lost.

        Raises:
            WallTimeError: the chain's time is up.
            SandboxError: the sandbox failed, so that nothing is known about the code.
        """
        assert self._sandbox is not None
        if self._session is None or not self._session.alive:
            if self._session is not None:
                last, self._session = self._session, None
                await last.close()
                if last.lost:  # with the variables that the next code counts on
                    raise SandboxLostError("the kernel was lost between two runs")
            self._session = await self._in_time(self._sandbox.session())
        self._runs += 1
        # The session keeps the run's own deadline; ours is only a bound on a sandbox that does not.
        seconds = self.budget.run_seconds
        try:
            return await asyncio.wait_for(self._session.run(code, timeout=seconds), seconds + RUN_SLACK)
        except TimeoutError as error:
            raise SandboxTimeoutError(f"a run of {seconds:g} s was not over after {seconds + RUN_SLACK:g} s") from error

    async def _complete(
        self, prompt: str, stop: Sequence[str], max_tokens: int, logprobs: int, *, is_drawn: bool = True
    ) -> Completion:
        sampling = self._next_sampling()
        if not is_drawn:  # some servers tell of the probabilities as a temperature has left them
            sampling = sampling.likeliest
        call = self._model.complete(prompt, stop=stop, max_tokens=max_tokens, logprobs=logprobs, sampling=sampling)
        [completion] = await self._in_time(call)
        self._calls += 1
        self._prompt_tokens += completion.prompt_tokens
        self._completion_tokens += completion.completion_tokens
        return completion.model_copy(update={"text": as_text(completion.text)})

    def _next_sampling(self) -> Sampling:
        # A seed per call, from what the call is about and not from when it happens: reruns draw the same.
        text = f"{self._sampling.seed}/{self._key}/{self._calls}"
        seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1
        return self._sampling.model_copy(update={"seed": seed})

    async def _in_time(self, work: Awaitable[T]) -> T:
        heard = Heard()
        before = HEARD.set(heard)
        try:
            async with asyncio.timeout(self.budget.wall_seconds - self._elapsed):
                return await work
        except TimeoutError as error:
            if heard.away:  # it was not thinking that took so long: nothing is known of the step
                raise ModelUnavailableError(
                    f"{self._model.name}: no answer for the rest of a chain's {self.budget.wall_seconds:g} s"
                ) from error
            raise WallTimeError from error
        finally:
            HEARD.reset(before)
