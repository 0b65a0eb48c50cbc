"""A chain that can be taken forward a step at a time, and is begun anew where the sandbox fails under it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing
from functools import partial

from genprm.aggregate import ChainVotes
from genprm.chain import Chain, Shown, WallTimeError
from genprm.errors import ContextFullError
from genprm.records import ParseStatus, Solution, StepVote, StopReason, Usage
from genprm.styles.base import Style
from genprm.watch import Watch
from sandbox import SandboxError, SandboxUnavailableError

RETRY_AFTER = (0.5, 3.0)
"""Seconds to wait before a chain is begun anew, each time that the sandbox failed under it."""
UNREACHED = StepVote(score=None, stop_reason=StopReason.SETTLED, parse=ParseStatus.NOT_ASKED)
GIVEN = StepVote(score=None, stop_reason=StopReason.GIVEN, parse=ParseStatus.NOT_ASKED)


class OpenChain:
    """One vote on one solution.

    Between two calls of `advance` it holds a kernel, but none of the ``slots`` that bound how many chains work at once:
    chains that wait for each other must not keep others from working.

    Args:
        solution: what is verified.
        style: by which script.
        begin: opens a chain; it is handed who is to be told of the segments that are written.
        slots: one is held while the chain works.
        given: leading steps to be taken for right, if the style can judge the others without them.
        vote: which of the solution's votes it is, from 0.
        watch: is told of everything as it is written.
    """

    def __init__(
        self,
        solution: Solution,
        style: Style,
        begin: Callable[[Shown | None], AbstractAsyncContextManager[Chain]],
        slots: asyncio.Semaphore,
        given: int = 0,
        vote: int = 0,
        watch: Watch | None = None,
    ) -> None:
        self._solution = solution
        self._style = style
        self._begin = begin
        self._slots = slots
        self._given = given if style.independent else 0
        self._vote = vote
        self._watch = watch
        self._stack = AsyncExitStack()
        self._chain: Chain | None = None
        self._script: AsyncGenerator[StepVote, None] | None = None
        self._votes: list[StepVote] = []
        self._lost = Usage()
        """Of attempts that the sandbox has failed under."""
        self._over = False

    async def advance(self, steps: int) -> None:
        """Go on until there is a vote on each of the first ``steps`` steps; one more is the vote on the whole.

        Raises:
            ModelError: the model failed.
            SandboxError: the sandbox failed again and again.
        """
        if self._over or len(self._votes) >= steps:
            return
        async with self._slots:
            for delay in (*RETRY_AFTER, None):
                try:
                    await self._work(steps)
                    break
                except SandboxUnavailableError:
                    raise
                except SandboxError:
                    if delay is None:
                        raise
                    await self.close()  # what its kernel knew cannot be had back
                    await asyncio.sleep(delay)
            if self._over:
                await self.close()

    async def close(self) -> None:
        """End it: its kernel is destroyed. What it said stays."""
        self._script = None
        await self._stack.aclose()

    @property
    def reached(self) -> int:
        """How many steps it has a vote on, or has nothing more to say of."""
        return sys.maxsize if self._over else len(self._votes)

    @property
    def said(self) -> ChainVotes:
        """What it says so far; steps that it has not come to are unscored."""
        count = len(self._solution.steps)
        steps = self._votes[:count]
        return ChainVotes(
            steps=(*steps, *[UNREACHED] * (count - len(steps))),
            usage=self._lost.then(self._chain.usage) if self._chain else Usage(),
            whole=self._votes[count] if len(self._votes) > count else None,
        )

    async def _work(self, steps: int) -> None:
        if self._script is None:
            self._votes = [GIVEN] * self._given
            if self._chain is not None:
                self._lost = self._lost.then(self._chain.usage)
            shown = None
            if self._watch is not None:
                self._watch.begun(self._vote, self._style.name)
                shown = partial(self._watch.written, self._vote)
            self._chain = await self._stack.enter_async_context(self._begin(shown))
            self._script = await self._stack.enter_async_context(
                aclosing(self._style.verify(self._chain, self._solution, self._given))
            )
        chain, script = self._chain, self._script
        assert chain is not None
        chain.resume()
        try:
            while len(self._votes) < steps:
                said = await anext(script)
                self._votes.append(said)
                if self._watch is not None:
                    self._watch.judged(self._vote, len(self._votes) - 1, said)
            self._over = len(self._votes) > len(self._solution.steps)
        except StopAsyncIteration:
            self._over = True
        except WallTimeError:
            self._end(StopReason.WALL_TIME)
        except ContextFullError:
            self._end(StopReason.CONTEXT_FULL)
        finally:
            chain.pause()

    def _end(self, reason: StopReason) -> None:
        missing = len(self._solution.steps) + self._style.judges_whole - len(self._votes)
        self._votes += [StepVote(score=None, stop_reason=reason, parse=ParseStatus.NOT_ASKED)] * missing
        self._over = True
