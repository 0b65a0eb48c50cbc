"""The verifier: solutions in, verifications out, many chains at once.

`AsyncVerifier` is the core; `Verifier` is the same for people who do not write ``async``.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Any, TypeVar

from genprm.aggregate import combine_chains
from genprm.budget import Budget
from genprm.chain import Chain, WallTimeError
from genprm.errors import ConfigError, ContextFullError, ModelError, VerificationError
from genprm.models.base import ModelBackend, Sampling
from genprm.records import MAX_STEPS, FailedRow, OutputRow, Solution, StepVote, StopReason, Usage, Verification
from genprm.styles import GenPRM, Style
from genprm.tasks import gather_all, map_unordered
from sandbox import Limits, Sandbox, SandboxError, SandboxUnavailableError

T = TypeVar("T")
RETRY_AFTER = (0.5, 3.0)
"""Seconds to wait before a chain is begun anew, each time that the sandbox failed under it."""


class AsyncVerifier:
    """Verifies solutions with one model, one style and one sandbox.

    Args:
        model: the model backend; closed with the verifier.
        sandbox: where code runs; started with the verifier and closed with it. None: code is written, not run.
        style: the prompt format.
        budget: what one chain may cost.
        sampling: how tokens are drawn.
        in_flight: most chains under way at once; the backend's own ``concurrency`` by default.
    """

    def __init__(
        self,
        model: ModelBackend,
        sandbox: Sandbox | None,
        *,
        style: Style | None = None,
        budget: Budget | None = None,
        sampling: Sampling | None = None,
        in_flight: int | None = None,
    ) -> None:
        self.model = model
        self.style = style or GenPRM()
        self.budget = budget or Budget()
        self._sandbox = sandbox
        self._sampling = sampling or Sampling()
        self._chains = asyncio.Semaphore(in_flight or model.concurrency)
        self._rows = in_flight or model.concurrency

    @classmethod
    async def from_pretrained(
        cls, model: str | None = None, *, sandbox: str = "docker", adapter: str | None = None, **options: Any
    ) -> AsyncVerifier:
        """Load a model with transformers and start a sandbox.

        Args:
            model: hub id or local folder; None for the embedded model.
            sandbox: ``docker``, ``local`` or ``unix:DIRECTORY``.
            adapter: a LoRA adapter for the model.
            options: as for the class.

        Raises:
            ModelError: the model cannot be loaded.
            sandbox.SandboxUnavailableError: no code can be run.
        """
        from genprm.models.embedded import EMBEDDED
        from genprm.models.transformers_backend import TransformersModel
        from genprm.styles.examples import worked_example

        name = model or EMBEDDED
        if name == EMBEDDED and adapter is None:
            options.setdefault("style", GenPRM(examples=worked_example()))
        budget = options.get("budget") or Budget()
        box = Sandbox(sandbox, Limits(timeout=budget.run_seconds))
        await box.start()
        try:
            backend = await asyncio.to_thread(TransformersModel.load, name, adapter)
            return cls(backend, box, **options)
        except BaseException:
            await box.close()
            raise

    async def __aenter__(self) -> AsyncVerifier:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Release the model and the sandbox."""
        try:
            await self.model.close()
        finally:
            if self._sandbox is not None:
                await self._sandbox.close()

    async def verify(self, problem: str, steps: Sequence[str], *, votes: int = 1, id: str = "solution") -> Verification:
        """Verify one solution.

        Args:
            problem: the problem's text.
            steps: the solution's steps, in order.
            votes: independent chains; each has its own rationales and its own kernel.
            id: what the result is called.

        Raises:
            pydantic.ValidationError: the problem or a step is empty or no text.
            VerificationError: the sandbox or the model failed; nothing is known about the solution.
            sandbox.SandboxUnavailableError: no code can be run at all any more.
        """
        return await self.verify_solution(Solution(id=id, problem=problem, steps=tuple(steps)), votes=votes)

    async def verify_solution(self, solution: Solution, *, votes: int = 1) -> Verification:
        """`verify`, for a record."""
        if votes < 1:
            raise ConfigError(f"votes is {votes}: expected at least 1")
        if len(solution.steps) > MAX_STEPS:
            raise VerificationError(f"{len(solution.steps)} steps: at most {MAX_STEPS} can be verified")
        try:
            done = await gather_all(self._vote(solution, vote) for vote in range(votes))
        except SandboxUnavailableError:
            raise
        except (ModelError, SandboxError) as error:
            raise VerificationError(f"{type(error).__name__}: {error}") from error
        usage = done[0][1]
        for _, cost in done[1:]:
            usage += cost
        return combine_chains(solution, [steps for steps, _ in done], usage, self.model.name, self.style.name)

    async def verify_many(
        self, solutions: Iterable[Solution], *, votes: int = 1
    ) -> AsyncGenerator[tuple[int, OutputRow], None]:
        """Verify many solutions at once; yields ``(index, row)`` as they finish.

        One that fails yields a `FailedRow` and does not touch the others. Memory is bounded: the input is read as
        far ahead as there are chains.

        Raises:
            sandbox.SandboxUnavailableError: no code can be run at all any more.
        """

        async def row(solution: Solution) -> OutputRow:
            try:
                return await self.verify_solution(solution, votes=votes)
            except VerificationError as error:
                return FailedRow(
                    id=solution.id, problem=solution.problem, solution=solution.steps, label=solution.label,
                    error=str(error),
                )  # fmt: skip

        async with aclosing(map_unordered(row, solutions, self._rows)) as rows:
            async for entry in rows:
                yield entry

    async def _vote(self, solution: Solution, vote: int) -> tuple[list[StepVote], Usage]:
        """One chain, begun anew where the sandbox fails under it: its kernel's state cannot be had back."""
        async with self._chains:
            for delay in RETRY_AFTER:
                try:
                    return await self._run_chain(solution, vote)
                except SandboxError:
                    await asyncio.sleep(delay)
            return await self._run_chain(solution, vote)

    async def _run_chain(self, solution: Solution, vote: int) -> tuple[list[StepVote], Usage]:
        key = f"{solution.id}/{vote}"
        steps: list[StepVote] = []
        async with Chain.open(self.model, self._sandbox, self.budget, self._sampling, key) as chain:
            stopped = StopReason.NO_VERDICT
            try:
                async with aclosing(self.style.verify(chain, solution)) as votes:
                    async for step in votes:
                        steps.append(step)
            except WallTimeError:
                stopped = StopReason.WALL_TIME
            except ContextFullError:
                stopped = StopReason.CONTEXT_FULL
            missing = len(solution.steps) - len(steps)
            return [*steps, *[StepVote(score=None, stop_reason=stopped)] * missing], chain.usage


class Verifier:
    """`AsyncVerifier` for notebooks and scripts: the same calls, without ``await``.

        with Verifier.from_pretrained(sandbox="docker") as verifier:
            report = verifier.verify("What is 2 + 2 * 3?", ["2 * 3 is 6.", "2 + 6 is 9."])
            report.first_error, report.steps[1].score

    It runs its own event loop in a thread, so that it works where a loop is running already.
    """

    def __init__(self, make: Callable[[], Coroutine[Any, Any, AsyncVerifier]]) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="verifier", daemon=True)
        self._thread.start()
        try:
            self._verifier = self._call(make())
        except BaseException:
            self._stop()
            raise

    @classmethod
    def from_pretrained(
        cls, model: str | None = None, *, sandbox: str = "docker", adapter: str | None = None, **options: Any
    ) -> Verifier:
        """See `AsyncVerifier.from_pretrained`."""
        return cls(lambda: AsyncVerifier.from_pretrained(model, sandbox=sandbox, adapter=adapter, **options))

    def __enter__(self) -> Verifier:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def verify(self, problem: str, steps: Sequence[str], *, votes: int = 1, id: str = "solution") -> Verification:
        """See `AsyncVerifier.verify`."""
        return self._call(self._verifier.verify(problem, steps, votes=votes, id=id))

    def verify_many(self, solutions: Iterable[Solution], *, votes: int = 1) -> list[OutputRow]:
        """Verify many solutions at once; returns the rows in the order of the input."""

        async def collect() -> list[OutputRow]:
            async with aclosing(self._verifier.verify_many(solutions, votes=votes)) as rows:
                return [row for _, row in sorted([entry async for entry in rows], key=lambda entry: entry[0])]

        return self._call(collect())

    def close(self) -> None:
        """Release the model, the sandbox and the thread. Idempotent."""
        if self._thread.is_alive():
            try:
                self._call(self._verifier.close())
            finally:
                self._stop()

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=10)
        self._loop.close()
