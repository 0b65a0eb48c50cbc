"""Batch jobs on this machine: rows in, a run folder out. The label job; the synthesis job is in `synth_job`."""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Generator, Iterable, Iterator
from contextlib import aclosing, closing
from pathlib import Path
from typing import Protocol, TypeVar

from genprm.answers import AnswerChecker
from genprm.errors import OutputError
from genprm.policy import Policy
from genprm.progress import LiveProgress
from genprm.records import Problem, Record
from genprm.tasks import map_unordered
from rationale_synth.label import LabelOptions, label_problem
from rationale_synth.memory import Memory
from rationale_synth.records import Outcome, ProblemRecord
from rationale_synth.run_folder import (
    CONFIG,
    INPUT,
    LOCK,
    SHARDS,
    SYNC_SECONDS,
    InputMark,
    RunConfig,
    RunFolder,
    write_whole,
)

ROWS_IN_FLIGHT = 256
"""Most rows under way at once; the model's own limit is on completions."""
Row = TypeVar("Row", bound=Record)
Found = TypeVar("Found", bound=Record)
Told = TypeVar("Told", bound=Record, contravariant=True)


class Progress(Protocol[Told]):
    """What a job tells while it runs."""

    def add(self, record: Told) -> bool:
        """A row is done; returns whether it failed."""


def take_input(rows: Iterable[Record], folder: Path) -> InputMark:
    """Copy the input into a run's folder, unless there is a run in it; returns its mark.

    Nothing is left of it where a row is wrong.

    Raises:
        InputError: a row is wrong.
        OutputError: the folder cannot be made, or it holds files that are no run's.
    """
    _check_ours(folder)
    mark = hashlib.sha256()
    count = 0
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder.parent) as copy:
            for row in rows:
                line = row.model_dump_json().encode() + b"\n"
                mark.update(line)
                copy.write(line)
                count += 1
            copy.seek(0)
            if not (folder / CONFIG).exists():  # else the configuration knows which input is there
                (folder / SHARDS).mkdir(parents=True, exist_ok=True)
                write_whole(folder / INPUT, iter(copy))
    except OSError as error:
        raise OutputError(f"{folder}: {error.strerror or error}") from error
    return InputMark(rows=count, sha256=mark.hexdigest())


def _check_ours(folder: Path) -> None:
    """Refuse a folder in which a run would write over somebody's files."""
    if not (folder / CONFIG).exists() and folder.is_dir():
        # What a run leaves that was ended before it had a configuration.
        begun = {SHARDS, INPUT, INPUT + ".new", LOCK, CONFIG + ".new"} if (folder / SHARDS).is_dir() else set()
        if foreign := sorted({file.name for file in folder.iterdir()} - begun):
            raise OutputError(f"{folder}: no run in it, but {foreign[0]}: choose a new folder, or an empty one")


def check_input(run: RunFolder) -> None:
    """Refuse a run whose input is not the one that its configuration is about.

    Raises:
        OutputError: it was changed, or written by another command that began at the same time.
    """
    path = run.path / INPUT
    try:
        with open(path, "rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise OutputError(f"{path}: {error.strerror or error}") from error
    if found != run.config.input.sha256:
        raise OutputError(f"{path}: not the input that the run was begun with: start again in another folder")


def open_run(folder: Path, config: RunConfig) -> RunFolder:
    """A job's folder, with the input that `take_input` has put there.

    Raises:
        OutputError: as `RunFolder` and `check_input`.
        ConfigError: as `RunFolder`.
    """
    run = RunFolder(folder, config)
    try:
        check_input(run)
    except BaseException:
        run.close()
        raise
    return run


def input_rows(run: RunFolder, kind: type[Row], wanted: Iterator[int]) -> Generator[tuple[int, Row], None, None]:
    """These rows of a run's input, which come in order."""
    with open(run.path / INPUT, "rb") as file:
        lines = enumerate(file)
        for index in wanted:
            line = next(line for number, line in lines if number == index)
            yield index, kind.model_validate_json(line)


async def run_job(
    run: RunFolder,
    kind: type[Row],
    work: Callable[[int, Row, Memory], Awaitable[Found]],
    in_flight: int,
    progress: Progress[Found],
) -> None:
    """Do what is pending in a run.

    Args:
        run: the run's folder.
        kind: the class of its input rows.
        work: makes a row's record, from its index, the row, and what is known of it already.
        in_flight: rows under way at once.
        progress: is told of every record.

    Raises:
        OutputError: the folder cannot be written any more. What is in it stays good.
    """

    async def one(item: tuple[int, Row]) -> tuple[int, Found]:
        index, row = item
        memory = Memory(run.take_notes(index), lambda key, value: run.note(index, key, value))
        return index, await work(index, row, memory)

    synced = time.monotonic()
    with closing(input_rows(run, kind, run.pending())) as rows:
        async with aclosing(map_unordered(one, rows, min(ROWS_IN_FLIGHT, max(4, in_flight)))) as finished:
            async for _, (index, record) in finished:
                run.add(index, record, failed=progress.add(record))
                if time.monotonic() - synced > SYNC_SECONDS:
                    await asyncio.to_thread(run.sync)
                    synced = time.monotonic()


def open_label_run(folder: Path, options: LabelOptions, policy: str, mark: InputMark) -> RunFolder:
    """The run folder of a label job.

    Raises:
        OutputError: it cannot be written, or another process works in it.
        ConfigError: it holds another run.
    """
    shown = {**options.model_dump(mode="json"), "policy": policy}
    return open_run(folder, RunConfig(job="label", options=shown, input=mark))


class LabelProgress(LiveProgress):
    """How far a label job is, while it runs."""

    def __init__(self, run: RunFolder) -> None:
        super().__init__("labelling", run.config.input.rows, run.done)
        self.outcomes: Counter[Outcome] = Counter()
        self._completions = 0
        self._tokens = 0

    def add(self, record: ProblemRecord) -> bool:
        """A problem is done; returns whether it failed."""
        self.outcomes[record.outcome] += 1
        self._completions += record.cost.rollouts + record.cost.samples
        self._tokens += record.cost.completion_tokens
        self.row_done()
        drawn, tokens = self._completions, self._tokens
        kept = self.outcomes[Outcome.LABELLED]
        dropped = sum(self.outcomes.values()) - kept - self.outcomes[Outcome.FAILED]
        self.show(
            f"{drawn} completions, {drawn / self.seconds:.0f}/s, {tokens / self.seconds:.0f} tokens/s, "
            f"{kept} kept, {dropped} dropped, {self.outcomes[Outcome.FAILED]} failed"
        )
        return record.outcome is Outcome.FAILED


async def run_label_job(run: RunFolder, policy: Policy, options: LabelOptions) -> Counter[Outcome]:
    """Label what is pending in a run; returns what became of it.

    Raises:
        OutputError: the folder cannot be written any more. What is in it stays good.
        ModelUnavailableError: there is no model any more.
    """
    progress = LabelProgress(run)
    async with AnswerChecker() as checker:

        async def work(index: int, problem: Problem, memory: Memory) -> ProblemRecord:
            return await label_problem(index, problem, policy, checker, options, memory)

        with progress:
            await run_job(run, Problem, work, policy.model.concurrency, progress)
    return progress.outcomes
