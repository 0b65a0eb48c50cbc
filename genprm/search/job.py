"""Searching over a file of problems: many at once, each with its own fate, resumable."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, aclosing, asynccontextmanager
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from genprm.answers import AnswerChecker
from genprm.batch import Checked
from genprm.errors import ConfigError, ModelError, ModelUnavailableError, VerificationError
from genprm.journal import Journal
from genprm.models.base import ModelBackend, Sampling
from genprm.models.embedded import NO_ADAPTER
from genprm.options import ModelOptions, RunOptions, open_verifier
from genprm.policy import Policy
from genprm.progress import LiveProgress
from genprm.records import Problem
from genprm.search.base import Search
from genprm.search.records import FailedSearch, SearchOutput, SearchResult, parse_search_row
from genprm.search.select import Reduce
from genprm.tasks import map_unordered


class PolicyOptions(BaseModel):
    """The model that writes the solutions."""

    model_config = ConfigDict(frozen=True)

    model: ModelOptions | None = None
    """None: the verifier's own model."""
    temperature: float = Field(default=0.7, ge=0)
    max_tokens: int = Field(default=1024, ge=1)
    """Most tokens of one draw."""
    example: bool | None = None
    """Whether it is shown a solved problem; by default only the embedded model is."""

    def check(self) -> None:
        """Refuse options that contradict each other.

        Raises:
            ConfigError: they do.
        """
        if self.model is not None:
            try:
                self.model.check()
            except ConfigError as error:
                raise ConfigError(f"the policy: {error}") from error


class SearchOptions(BaseModel):
    """Everything that decides what a search's output is."""

    model_config = ConfigDict(frozen=True)

    method: str
    parameters: dict[str, str | int]
    """Of the method, as the user gave them."""
    reduce: Reduce
    policy: PolicyOptions
    verifier: RunOptions


async def search_rows(
    problems: Checked[Problem],
    work: Callable[[Search], Awaitable[None]],
    options: SearchOptions,
    output: Path,
    say: Callable[[str], None],
) -> None:
    """Search over all ``problems``; their rows are in ``output`` at the end, in the order of the input.

    Args:
        problems: the input.
        work: the method, with its parameters.
        options: what the output depends on.
        output: rows are kept beside it as they finish, so that an interrupted run can be continued.
        say: gets the lines that a user should see.

    Raises:
        GenprmError: the options, a model or the output are not usable.
        SandboxError: no code can be run.
    """
    options.policy.check()
    if options.verifier.needs_head and options.policy.model is None:
        raise ConfigError("the verifier is read by a reward head, and writes nothing: name a --policy")
    mark = problems.fingerprint({**options.model_dump(mode="json"), "verifier": options.verifier.fingerprint_fields()})
    with ExitStack() as stack:
        journal = stack.enter_context(Journal(output, mark, _is_searched))
        done = frozenset(journal.done)
        if done:
            say(f"{len(done)} of {problems.count} problems are done already: going on from {journal.partial}")
        if len(done) < problems.count:
            numbers: list[int] = []
            async with _opened(options, say) as (begin, at_once):

                async def one(item: tuple[int, Problem]) -> SearchOutput:
                    return await _search(begin(*item), work, options.method)

                progress = stack.enter_context(SearchProgress(problems.count, len(done)))
                todo = enumerate(problems.missing(done, numbers))
                async with aclosing(map_unordered(one, todo, at_once)) as finished:
                    async for position, row in finished:
                        journal.add(numbers[position], row)
                        progress.add(row)
        journal.finish()


@asynccontextmanager
async def _opened(
    options: SearchOptions, say: Callable[[str], None]
) -> AsyncIterator[tuple[Callable[[int, Problem], Search], int]]:
    """How to begin the search over a problem, and how many to have under way."""
    async with open_verifier(options.verifier, say) as verifier, AnswerChecker() as checker:
        own: ModelBackend | None = None
        wanted = options.policy
        of_its_own = wanted.model or (ModelOptions(adapter=NO_ADAPTER) if options.verifier.is_shipped else None)
        if of_its_own is not None:
            own = await of_its_own.make_model()  # an adapter that judges is no policy
        try:
            embedded = (of_its_own or options.verifier).is_embedded
            example = embedded if wanted.example is None else wanted.example
            sampling = Sampling(temperature=wanted.temperature, seed=options.verifier.seed)
            policy = Policy(own or verifier.model, sampling)

            def begin(index: int, problem: Problem) -> Search:
                return Search(
                    problem, policy, verifier, checker, reduce=options.reduce, max_tokens=wanted.max_tokens,
                    example=example, index=index,
                )  # fmt: skip

            yield begin, options.verifier.in_flight or policy.model.concurrency
        finally:
            if own is not None:
                await own.close()


async def _search(search: Search, work: Callable[[Search], Awaitable[None]], method: str) -> SearchOutput:
    try:
        await work(search)
        return await search.result(method)
    except ModelUnavailableError:
        raise  # nothing is wrong with the problem: the job ends, to be gone on with
    except (ModelError, VerificationError) as error:
        problem = search.problem
        return FailedSearch(
            id=problem.id, problem=problem.problem, gold=problem.answer, method=method, error=str(error)
        )


def _is_searched(line: bytes) -> bool:
    return isinstance(parse_search_row(line), SearchResult)


class SearchProgress(LiveProgress):
    """The progress of a search."""

    def __init__(self, total: int, done: int = 0) -> None:
        super().__init__("searching", total, done)
        self._tokens = 0
        self._right = 0
        self._failed = 0

    def add(self, row: SearchOutput) -> None:
        """One more problem is done."""
        self.row_done()
        if isinstance(row, SearchResult):
            self._tokens += row.spent.total
            self._right += bool(row.correct)
        else:
            self._failed += 1
        self.show(f"{self._tokens / self.seconds:.0f} tokens/s, {self._right} right, {self._failed} failed")
