"""The verifier: solutions in, verifications out, many chains at once.

`AsyncVerifier` is the core; `Verifier` is the same for people who do not write ``async``.
"""

from __future__ import annotations

import asyncio
import threading
import warnings
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterable, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from functools import partial
from types import TracebackType
from typing import Any, TypeVar

from genprm.aggregate import Aggregate, combine_chains, first_error_by_mean
from genprm.budget import Budget
from genprm.chain import Chain
from genprm.errors import ConfigError, ModelError, ModelUnavailableError, VerificationError
from genprm.models.base import ModelBackend, Sampling
from genprm.open_chain import OpenChain
from genprm.priority import PrioritySlots
from genprm.records import MAX_STEPS, NO_ERROR, FailedRow, OutputRow, Solution, Verification
from genprm.styles import GenPRM, Style
from genprm.tasks import gather_all, map_unordered, to_the_end
from genprm.votes import SURE, VotePlan, is_sure, steps_in_doubt
from genprm.watch import Watch
from sandbox import Limits, Sandbox, SandboxError, SandboxUnavailableError

T = TypeVar("T")
ENDING_SECONDS = 60.0
"""For what a `Verifier` has begun to clean up after itself."""


class AsyncVerifier:
    """Verifies solutions with one model, one style and one sandbox.

    Args:
        model: the model backend; closed with the verifier.
        sandbox: where code runs; started with the verifier and closed with it. None: code is written, not run.
        style: the prompt format.
        budget: what one chain may cost.
        sampling: how tokens are drawn.
        likeliest_first: whether the first vote takes the likeliest tokens, and only further ones are drawn.
        votes: how many chains a solution gets, unless a call says otherwise.
        aggregate: how they become one verdict; the style's own way by default.
        stop_at_first_error: verify nothing behind a solution's first error.
        cheap: a style that is asked first, with one chain; ``style`` is asked only where it is not sure.
        sure: least probability of each of the cheap style's verdicts, for it to be taken.
        in_flight: most chains at work at once; the backend's own ``concurrency`` by default.

    Raises:
        ConfigError: it is to stop at the first error of a majority, which is one over whole chains.
    """

    def __init__(
        self,
        model: ModelBackend,
        sandbox: Sandbox | None,
        *,
        style: Style | None = None,
        budget: Budget | None = None,
        sampling: Sampling | None = None,
        likeliest_first: bool = False,
        votes: VotePlan | None = None,
        aggregate: Aggregate | None = None,
        stop_at_first_error: bool = False,
        cheap: Style | None = None,
        sure: float = SURE,
        in_flight: int | None = None,
    ) -> None:
        self.model = model
        self.style = style or GenPRM()
        if stop_at_first_error and self.style.stepwise and (aggregate or self.style.aggregate) is Aggregate.MAJORITY:
            raise ConfigError("stop_at_first_error needs the mean over votes: a majority looks at whole chains")
        self.budget = budget or Budget()
        self.sandbox = sandbox
        self._sampling = sampling or Sampling()
        self._first_sampling = self._sampling.likeliest if likeliest_first else self._sampling
        self.votes = votes or VotePlan()
        self._aggregate = aggregate
        self._cheap = cheap
        self._sure = sure
        self._stop_at_first_error = stop_at_first_error
        self._kernels = PrioritySlots(sandbox.capacity if sandbox else 1)
        self._chains = asyncio.Semaphore(in_flight or model.concurrency)
        # Chains that wait for each other need no slot: with twice as many of them, no slot is idle.
        waiting = 2 if stop_at_first_error else 1
        self.rows_at_once = max(1, -(-waiting * (in_flight or model.concurrency) // self.votes.first))

    @classmethod
    async def from_pretrained(
        cls, model: str | None = None, *, sandbox: str = "docker", adapter: str | None = None, **options: Any
    ) -> AsyncVerifier:
        """Load a model with transformers and start a sandbox.

        Args:
            model: hub id or local folder; None for the embedded model.
            sandbox: ``docker``, ``local`` or ``unix:DIRECTORY``.
            adapter: a LoRA adapter for the model. By default the embedded model has ours, in GenPRM's style;
                ``none`` is the model as it is, which is shown a worked example.
            options: as for the class. With our adapter and no ``sampling`` the first vote takes the likeliest tokens.

        Raises:
            ModelError: the model cannot be loaded.
            sandbox.SandboxUnavailableError: no code can be run.
        """
        from genprm.models.embedded import EMBEDDED, NO_ADAPTER, shipped_adapter
        from genprm.models.transformers_backend import TransformersModel
        from genprm.styles.examples import worked_example
        from genprm.styles.known import style_warning

        name = model or EMBEDDED
        style = options.setdefault("style", None)
        if name == EMBEDDED and adapter is None and (style is None or style.name == GenPRM.name):
            adapter = str(shipped_adapter())
            options.setdefault("likeliest_first", "sampling" not in options)
        elif name == EMBEDDED and adapter == NO_ADAPTER and style is None:
            options["style"] = GenPRM(examples=worked_example())
        adapter = None if adapter == NO_ADAPTER else adapter
        if name != EMBEDDED and adapter is None and (warning := style_warning(name, (style or GenPRM).name)):
            warnings.warn(warning.removeprefix("warning: "), stacklevel=2)
        budget = options.get("budget") or Budget()
        box = None
        if any(each is not None and each.writes_code for each in (options["style"] or GenPRM(), options.get("cheap"))):
            box = Sandbox(sandbox, Limits(timeout=budget.run_seconds))
            await box.start()
        try:
            backend = await asyncio.to_thread(TransformersModel.load, name, adapter)
            return cls(backend, box, **options)
        except BaseException:
            if box is not None:
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
            if self.sandbox is not None:
                await self.sandbox.close()

    async def verify(
        self,
        problem: str,
        steps: Sequence[str],
        *,
        votes: int | VotePlan | None = None,
        given: int = 0,
        id: str = "solution",
    ) -> Verification:
        """Verify one solution.

        Args:
            problem: the problem's text.
            steps: the solution's steps, in order.
            votes: independent chains, each with its own rationales and its own kernel; the verifier's by default.
            given: leading steps to be taken for right, as in a search that has judged them before. A style whose
                verdict on a step depends on its earlier verdicts judges them all the same.
            id: what the result is called; the random draws depend on it.

        Raises:
            ConfigError: no vote is wanted, or every step is given.
            pydantic.ValidationError: the problem is empty, there are no steps, or one of them is no text.
            VerificationError: the sandbox or the model failed; nothing is known about the solution.
            ModelUnavailableError: the model's server is gone.
            sandbox.SandboxUnavailableError: no code can be run at all any more.
        """
        solution = Solution(id=id, problem=problem, steps=tuple(steps))
        return await self.verify_solution(solution, votes=votes, given=given)

    async def verify_solution(
        self,
        solution: Solution,
        *,
        votes: int | VotePlan | None = None,
        given: int = 0,
        watch: Watch | None = None,
    ) -> Verification:
        """`verify`, for a record. ``watch`` is told of everything as it is written."""
        if not 0 <= given < len(solution.steps):
            raise ConfigError(f"given is {given}: expected 0 to {len(solution.steps) - 1}, so that a step is left")
        if isinstance(votes, int) and votes < 1:
            raise ConfigError(f"votes is {votes}: expected at least 1")
        if len(solution.steps) > MAX_STEPS:
            raise VerificationError(f"{len(solution.steps)} steps: at most {MAX_STEPS} can be verified")
        plan = VotePlan.fixed(votes) if isinstance(votes, int) else votes or self.votes
        chains: list[OpenChain] = []
        try:
            async with self._kernels_for(plan):
                if self._cheap is None:
                    return await self._decide(solution, self.style, plan, chains, given, watch)
                return await self._escalate(solution, self._cheap, plan, chains, given, watch)
        except (SandboxUnavailableError, ModelUnavailableError):
            raise
        except (ModelError, SandboxError) as error:
            raise VerificationError(f"{type(error).__name__}: {error}") from error
        finally:
            await to_the_end(chain.close() for chain in chains)

    @asynccontextmanager
    async def _kernels_for(self, plan: VotePlan) -> AsyncIterator[None]:
        """Chains that wait for each other keep their kernels: begin only when all that may be needed are free.

        Otherwise many solutions with a few kernels each could wait for the next one for ever.
        """
        kernels = plan.most if self.style.writes_code and (self._stop_at_first_error or plan.first < plan.most) else 0
        if self._cheap is not None and self._cheap.writes_code and self._stop_at_first_error:
            kernels = max(kernels, 1)  # its chain is closed before the dear ones begin
        if self.sandbox is None or not kernels:
            yield
            return
        if kernels > self.sandbox.capacity:
            raise ConfigError(f"{kernels} votes need as many kernels: the sandbox has {self.sandbox.capacity}")
        async with self._kernels.take(kernels, ()):
            yield

    async def verify_many(
        self, solutions: Iterable[Solution], *, votes: int | VotePlan | None = None
    ) -> AsyncGenerator[tuple[int, OutputRow], None]:
        """Verify many solutions at once; yields ``(index, row)`` as they finish.

        One that fails yields a `FailedRow` and does not touch the others. Memory is bounded: the input is read as
        far ahead as there are chains.

        Raises:
            ModelUnavailableError: the model's server is gone.
            sandbox.SandboxUnavailableError: no code can be run at all any more.
        """

        async def row(solution: Solution) -> OutputRow:
            try:
                return await self.verify_solution(solution, votes=votes)
            except (SandboxUnavailableError, ModelUnavailableError, ConfigError):
                raise
            except VerificationError as error:
                why = str(error)
            except Exception as error:  # noqa: BLE001 - on what one model wrote: the others are not to be lost for it
                why = f"a fault of genprm's own: {type(error).__name__}: {error}"
            return FailedRow(
                id=solution.id, problem=solution.problem, solution=solution.steps, label=solution.label,
                generator=solution.generator, error=why,
            )  # fmt: skip

        async with aclosing(map_unordered(row, solutions, self.rows_at_once)) as rows:
            async for entry in rows:
                yield entry

    async def _escalate(
        self,
        solution: Solution,
        cheap: Style,
        plan: VotePlan,
        begun: list[OpenChain],
        given: int,
        watch: Watch | None,
    ) -> Verification:
        """Take the cheap style's verdict where it is sure, the dear one's elsewhere."""
        # How sure it is says a probability: the majority of one vote is always sure.
        first = await self._decide(solution, cheap, VotePlan(), begun, given, watch, Aggregate.MEAN)
        if is_sure(first.steps, first.first_error, self._sure, first.whole):
            return first
        for chain in begun:
            await chain.close()
        second = await self._decide(solution, self.style, plan, begun, given, watch)
        both = f"{cheap.name}>{self.style.name}"
        return second.model_copy(update={"usage": first.usage.then(second.usage), "style": both})

    async def _decide(
        self,
        solution: Solution,
        style: Style,
        plan: VotePlan,
        begun: list[OpenChain],
        given: int,
        watch: Watch | None,
        aggregate: Aggregate | None = None,
    ) -> Verification:
        """Draw votes until the first error is settled. ``begun`` gets all chains; the caller closes them."""
        aggregate = aggregate or self._aggregate or style.aggregate
        # A majority is one over whole chains, and a style that does not go from step to step has no others.
        lazily = style.stepwise and aggregate is Aggregate.MEAN
        whole = len(solution.steps) + 1
        chains: list[OpenChain] = []

        def begin() -> OpenChain:
            chain = self._begin(solution, style, len(chains), given, watch)
            chains.append(chain)
            begun.append(chain)
            return chain

        for _ in range(plan.first):
            begin()
        if self._stop_at_first_error and style.stepwise:
            await self._to_first_error(chains, len(solution.steps))
        else:
            await gather_all(chain.advance(whole) for chain in chains)
        while doubtful := steps_in_doubt([chain.said for chain in chains], plan, aggregate):
            behind = (chain for chain in chains if chain.reached < doubtful) if lazily else iter(())
            chain = next(behind, None) or begin()
            if lazily and self._stop_at_first_error:
                await chain.advance(chain.reached + 1)  # it may be the first wrong one: there is no doubt behind that
            else:
                await chain.advance(doubtful if lazily else whole)
        return combine_chains(
            solution, [chain.said for chain in chains], self.model.name, style.name,
            aggregate=aggregate, stop_at_first_error=self._stop_at_first_error, side_by_side=plan.first,
        )  # fmt: skip

    async def _to_first_error(self, chains: Sequence[OpenChain], steps: int) -> None:
        """Take all chains forward together, no step further than the first one that they find wrong."""
        for step in range(1, steps + 2):
            await gather_all(chain.advance(step) for chain in chains)
            if first_error_by_mean([chain.said for chain in chains]) != NO_ERROR:
                return

    def _begin(self, solution: Solution, style: Style, vote: int, given: int, watch: Watch | None) -> OpenChain:
        key = f"{solution.id}/{vote}"
        sampling = self._sampling if vote else self._first_sampling
        begin = partial(Chain, self.model, self.sandbox, self.budget, sampling, key)
        return OpenChain(solution, style, begin, self._chains, given, vote, watch)


async def _ended() -> None:
    """Cancel what still runs on this loop, and let it clean up."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        if not task.cancelling():  # a second time would cut its cleaning up short
            task.cancel()
    if tasks:
        await asyncio.wait(tasks)


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

    def verify(
        self, problem: str, steps: Sequence[str], *, votes: int | VotePlan | None = None, id: str = "solution"
    ) -> Verification:
        """See `AsyncVerifier.verify`."""
        return self._call(self._verifier.verify(problem, steps, votes=votes, id=id))

    def verify_many(self, solutions: Iterable[Solution], *, votes: int | VotePlan | None = None) -> list[OutputRow]:
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
        with suppress(TimeoutError):
            asyncio.run_coroutine_threadsafe(_ended(), self._loop).result(ENDING_SECONDS)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=10)
        self._loop.close()
