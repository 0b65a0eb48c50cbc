"""The label job: problems in, a run folder out. On this machine here; on a Ray cluster in `ray_engine`."""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
import time
from collections import Counter
from collections.abc import AsyncGenerator, Generator, Iterator
from contextlib import aclosing, closing, contextmanager
from pathlib import Path

from genprm.errors import OutputError
from genprm.progress import LiveProgress
from genprm.tasks import map_unordered
from rationale_synth.answers import AnswerChecker
from rationale_synth.label import LabelOptions, label_problem
from rationale_synth.memory import Memory
from rationale_synth.policy import Policy
from rationale_synth.records import Outcome, Problem, ProblemRecord
from rationale_synth.run_folder import SYNC_SECONDS, InputMark, RunConfig, RunFolder, write_whole

INPUT = "input.jsonl"
ROWS_IN_FLIGHT = 256
"""Most problems under way at once; the policy's own limit is on completions."""


def take_input(problems: Iterator[Problem], folder: Path) -> InputMark:
    """Copy the input into a run's folder, unless it is there; returns its mark.

    Nothing is left of it where a row is wrong.

    Raises:
        InputError: a row is wrong.
        OutputError: the folder cannot be made.
    """
    mark = hashlib.sha256()
    rows = 0
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder.parent) as copy:
            for problem in problems:
                line = problem.model_dump_json().encode() + b"\n"
                mark.update(line)
                copy.write(line)
                rows += 1
            copy.seek(0)
            if not (folder / INPUT).exists():
                folder.mkdir(exist_ok=True)
                write_whole(folder / INPUT, iter(copy))
    except OSError as error:
        raise OutputError(f"{folder}: {error.strerror or error}") from error
    return InputMark(rows=rows, sha256=mark.hexdigest())


def open_label_run(folder: Path, options: LabelOptions, policy: str, mark: InputMark) -> RunFolder:
    """The run folder of a label job.

    Raises:
        OutputError: it cannot be written, or another process works in it.
        ConfigError: it holds another run.
    """
    shown = {**options.model_dump(mode="json"), "policy": policy}
    return RunFolder(folder, RunConfig(job="label", options=shown, input=mark))


def problems_of(run: RunFolder, wanted: Iterator[int]) -> Generator[tuple[int, Problem], None, None]:
    """The problems of these rows, which come in order."""
    with open(run.path / INPUT, "rb") as file:
        lines = enumerate(file)
        for index in wanted:
            line = next(line for number, line in lines if number == index)
            yield index, Problem.model_validate_json(line)


class LabelProgress:
    """How far a label job is, while it runs."""

    def __init__(self, run: RunFolder, policy: Policy | None) -> None:
        self.outcomes: Counter[Outcome] = Counter()
        self._policy = policy
        self._live = LiveProgress("labelling", run.config.input.rows, run.done)
        self._rollouts = 0
        self._tokens = 0

    @contextmanager
    def shown(self) -> Iterator[LabelProgress]:
        """Show it until the end of the block."""
        with self._live:
            yield self

    def add(self, record: ProblemRecord) -> None:
        """A problem is done."""
        self.outcomes[record.outcome] += 1
        self._rollouts += record.cost.rollouts + record.cost.samples
        self._tokens += record.cost.completion_tokens
        self._live.row_done()
        self.show()

    def show(self) -> None:
        """Tell it, if it is time to."""
        drawn = self._policy.completions if self._policy else self._rollouts
        tokens = self._policy.tokens if self._policy else self._tokens
        kept = self.outcomes[Outcome.LABELLED]
        dropped = sum(self.outcomes.values()) - kept - self.outcomes[Outcome.FAILED]
        self._live.show(
            f"{drawn} completions, {drawn / self._live.seconds:.0f}/s, {tokens / self._live.seconds:.0f} tokens/s, "
            f"{kept} kept, {dropped} dropped, {self.outcomes[Outcome.FAILED]} failed"
        )


async def run_label_job(run: RunFolder, policy: Policy, options: LabelOptions) -> Counter[Outcome]:
    """Label what is pending in a run; returns what became of it.

    Raises:
        OutputError: the folder cannot be written any more. What is in it stays good.
        ModelUnavailableError: there is no model any more.
    """
    progress = LabelProgress(run, policy)
    with progress.shown():
        async with AnswerChecker() as checker, aclosing(_records(run, policy, checker, options)) as records:
            synced = time.monotonic()
            async for index, record in records:
                run.add(index, record, failed=record.outcome is Outcome.FAILED)
                progress.add(record)
                if time.monotonic() - synced > SYNC_SECONDS:
                    await asyncio.to_thread(run.sync)
                    synced = time.monotonic()
    return progress.outcomes


async def _records(
    run: RunFolder, policy: Policy, checker: AnswerChecker, options: LabelOptions
) -> AsyncGenerator[tuple[int, ProblemRecord], None]:
    async def work(item: tuple[int, Problem]) -> tuple[int, ProblemRecord]:
        index, problem = item
        memory = Memory(run.take_notes(index), lambda key, value: run.note(index, key, value))
        return index, await label_problem(index, problem, policy, checker, options, memory)

    limit = min(ROWS_IN_FLIGHT, max(4, policy.model.concurrency))
    with closing(problems_of(run, run.pending())) as problems:
        async with aclosing(map_unordered(work, problems, limit)) as finished:
            async for _, done in finished:
                yield done
