"""The synthesis job: labelled solutions in, training data out."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from genprm.errors import InputError
from genprm.models.base import ModelBackend
from genprm.progress import LiveProgress
from genprm.records import NO_ERROR
from genprm.rows import iterate_solutions
from genprm.train.record import TrainingRecord
from rationale_synth.consensus import Filter, Reason, balanced
from rationale_synth.jobs import open_run, run_job
from rationale_synth.label_output import ROWS, share
from rationale_synth.memory import Memory
from rationale_synth.output import card, counts, table, write_rows
from rationale_synth.plots import bars
from rationale_synth.records import LabelledSolution
from rationale_synth.run_folder import InputMark, RunConfig, RunFolder
from rationale_synth.synthesize import Synthesizer, SynthOptions, SynthRecord, training_record
from rationale_synth.taught import Place, verdicts_to_mask, without_verdicts
from sandbox import Sandbox

DATA = "train"


def read_labelled(source: Path) -> Iterator[LabelledSolution]:
    """The labelled solutions of a label run's folder, or of a file of rows with labels from elsewhere.

    Raises:
        InputError: there are none, or a line is none.
    """
    if not source.exists():
        raise InputError(f"{source}: no such file or folder")
    if source.is_file():
        seen: set[str] = set()
        for solution in iterate_solutions(str(source)):
            if solution.id in seen:
                raise InputError(f"{source}: two rows with the id {solution.id}: records are known by their ids")
            seen.add(solution.id)
            if solution.label is None:
                raise InputError(f"{source}: row {solution.id} has no field label: the first wrong step, -1 for none")
            yield LabelledSolution.known(solution, solution.generator or "unknown")
        return
    path = source / f"{ROWS}.jsonl"
    number = 0
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    yield LabelledSolution.model_validate_json(line)
                except ValidationError as error:
                    raise InputError(f"{path}, line {number}: {error.errors()[0]['msg']}") from error
    except OSError as error:
        raise InputError(
            f"{path}: {error.strerror or error}: expected the folder of a finished `genprm label`, or a file of rows"
        ) from error
    if not number:
        raise InputError(f"{path}: no rows in it: nothing was labelled")


def open_synth_run(folder: Path, options: SynthOptions, model: str, mark: InputMark) -> RunFolder:
    """The run folder of a synthesis job.

    Raises:
        OutputError: it cannot be written, or another process works in it.
        ConfigError: it holds another run.
    """
    shown = {**options.model_dump(mode="json"), "model": model}
    return open_run(folder, RunConfig(job="synth", options=shown, input=mark))


class SynthProgress(LiveProgress):
    """How far a synthesis job is, while it runs."""

    def __init__(self, run: RunFolder, sandbox: Sandbox | None = None) -> None:
        super().__init__("synthesizing", run.config.input.rows, run.done)
        self._sandbox = sandbox
        self._kept = self._rejected = self._failed = self._tokens = self._runs = 0

    def add(self, record: SynthRecord) -> bool:
        """A solution is done; returns whether it failed."""
        self._kept += record.kept is not None
        self._failed += record.failed
        self._rejected += record.kept is None and not record.failed
        self._tokens += sum(attempt.tokens for attempt in record.attempts)
        self._runs += sum(attempt.runs for attempt in record.attempts)
        self.row_done()
        kernels = f"{self._sandbox.busy} kernels busy, " if self._sandbox else ""
        self.show(
            f"{self._tokens / self.seconds:.0f} tokens/s, {self._runs} code runs, {kernels}{self._kept} kept, "
            f"{self._rejected} rejected, {self._failed} failed"
        )
        return record.failed


async def run_synth_job(run: RunFolder, model: ModelBackend, sandbox: Sandbox | None, options: SynthOptions) -> None:
    """Write the rationales that are pending in a run.

    Raises:
        OutputError: the folder cannot be written any more. What is in it stays good.
        ModelUnavailableError: there is no model any more.
        SandboxUnavailableError: no code can be run any more.
    """
    synthesizer = Synthesizer(model, sandbox, options)

    async def work(_index: int, solution: LabelledSolution, memory: Memory) -> SynthRecord:
        return await synthesizer.synthesize(solution, memory)

    with SynthProgress(run, sandbox) as progress:
        await run_job(run, LabelledSolution, work, model.concurrency, progress)


class SynthSummary:
    """What a synthesis run amounts to."""

    def __init__(self, kind: Filter) -> None:
        self._kind = kind
        self.solutions = 0
        self.failed = 0
        self.agreeing: list[tuple[str, bool]] = []
        self.reasons: Counter[Reason] = Counter()
        self.attempts = 0
        self.runs = 0
        self.tokens = 0
        self.written = 0
        self.with_error = 0

    def add(self, record: SynthRecord) -> None:
        """Count a solution."""
        self.solutions += 1
        self.failed += record.failed
        self.attempts += len(record.attempts)
        self.reasons.update(attempt.reason for attempt in record.attempts if attempt.reason)
        self.runs += sum(attempt.runs for attempt in record.attempts)
        self.tokens += sum(attempt.tokens for attempt in record.attempts)
        if record.kept is not None:
            self.agreeing.append((record.solution.id, record.first_error(self._kind) != NO_ERROR))

    @property
    def figures(self) -> list[tuple[str, str]]:
        """The summary as names and figures."""
        return [
            ("solutions", f"{self.solutions}"),
            ("rationales written", f"{self.attempts}"),
            *((f"  {reason.value.replace('_', ' ')}", f"{n}") for reason, n in self.reasons.most_common()),
            ("solutions with a rationale that is kept", share(len(self.agreeing), self.solutions)),
            ("records", f"{self.written}"),
            ("  with an error", f"{self.with_error}"),
            ("code runs", f"{self.runs}"),
            ("tokens written", f"{self.tokens}"),
        ]


def write_data(run: RunFolder, options: SynthOptions, model: str) -> SynthSummary:
    """Write a run's training data, with its card.

    Raises:
        OutputError: the files cannot be written.
    """
    summary = SynthSummary(options.filter)
    for record in _records(run):
        summary.add(record)
    chosen = balanced(summary.agreeing) if options.balance else {name for name, _ in summary.agreeing}
    if dropped := len(summary.agreeing) - len(chosen):
        summary.reasons[Reason.UNBALANCED] = dropped

    masked = set[Place]()
    if options.right_per_wrong is not None:
        solutions = (record.solution for record in _records(run) if record.solution.id in chosen)
        masked = verdicts_to_mask(solutions, options.right_per_wrong)

    def rows() -> Iterator[TrainingRecord]:
        for record in _records(run):
            if record.kept is not None and record.solution.id in chosen:
                summary.with_error += record.first_error(options.filter) != NO_ERROR
                steps = [step for step in range(len(record.solution.steps)) if (record.solution.id, step) in masked]
                yield training_record(record, without_verdicts(record.kept, steps), options, model)

    summary.written = write_rows(run.path, DATA, TrainingRecord, rows())
    _write_card(run, summary, options, model)
    return summary


def _records(run: RunFolder) -> Iterator[SynthRecord]:
    for _, line in run.records():
        yield SynthRecord.model_validate_json(line)


def _write_card(run: RunFolder, summary: SynthSummary, options: SynthOptions, model: str) -> None:
    reasons = [(reason.value.replace("_", " "), n) for reason, n in summary.reasons.most_common()]
    bars(run.path / "plots" / "rejections.png", "", "rationales", *zip(*reasons, strict=True) if reasons else ((), ()))
    given = options.model_dump(mode="json", exclude={"budget"}).items()
    sections = [
        ("What this is", [
            f"Verification rationales in the style `{options.style.value}`, written by `{model}`, kept where they "
            f"agree with the labels ({options.filter.value} filter).",
            "A row has the conversation (`messages`), the characters of its answers that the model did not write and "
            "that are no target for training (`masked`: message, start, end), the problem, the steps, and the first "
            "wrong step (`label`).",
        ]),
        ("Counts", table(("", ""), ((name.strip(), figure) for name, figure in summary.figures))),
        ("Rejections", [*counts("reason", Counter(dict(reasons))), "", "![rejections](plots/rejections.png)"]),
        ("Options", table(("option", "value"), [*given, ("budget", json.dumps(options.budget.model_dump()))])),
    ]  # fmt: skip
    run.write("README.md", card("Verification rationales", f"{DATA}.parquet", sections))
