"""One labelled solution to a training record: rationales are written until one agrees with the labels."""

from __future__ import annotations

from enum import Enum
from typing import Any, Literal

from pydantic import Field, model_validator

from genprm.budget import Budget
from genprm.chain import Chain, WallTimeError
from genprm.errors import ContextFullError, ModelError, ModelUnavailableError
from genprm.models.base import ModelBackend, Sampling
from genprm.records import NO_ERROR, SCHEMA_VERSION, Record, Usage
from genprm.styles.examples import worked_example
from genprm.train.record import TrainingRecord
from rationale_synth.consensus import Filter, Reason, disagreement
from rationale_synth.critique import read_critique, write_critique
from rationale_synth.memory import Memory
from rationale_synth.records import LabelledSolution
from rationale_synth.thinkprm import read_chain, thinkprm_transcript, write_chain
from rationale_synth.transcript import Transcript, genprm_transcript
from rationale_synth.turns import write_turns
from sandbox import Sandbox, SandboxError, SandboxUnavailableError


class SynthStyle(str, Enum):
    """How a rationale is written."""

    GENPRM = "genprm"
    """All steps in one conversation, code executed as it is written (GenPRM, section 4.2)."""
    GENPRM_STEP = "genprm-step"
    """Step by step, as the verifier works."""
    THINKPRM = "thinkprm"
    """One long chain without code."""


class SynthOptions(Record):
    """Everything that decides what a synthesis job writes, but the model."""

    style: SynthStyle = SynthStyle.GENPRM
    filter: Filter = Filter.PROCESS
    tries: int = Field(default=4, ge=1)
    """Rationales written of each solution until one is kept."""
    balance: bool = True
    """Whether as many solutions with as without an error are kept."""
    right_per_wrong: float | None = Field(default=None, gt=0)
    """With the labels' verdicts: on how many right steps per wrong one the verdict is a target. None: on all."""
    example: bool = False
    """Whether the step-by-step style shows a worked example first."""
    temperature: float = Field(default=0.6, ge=0)
    seed: int = 0
    budget: Budget = Budget()

    @model_validator(mode="after")
    def _labels_go_step_by_step(self) -> SynthOptions:
        if self.filter is Filter.LABELS and self.style is not SynthStyle.GENPRM_STEP:
            raise ValueError("--filter labels goes with --style genprm-step only")
        if self.right_per_wrong is not None and self.filter is not Filter.LABELS:
            raise ValueError("--right-per-wrong goes with --filter labels only")
        return self

    @property
    def runs_code(self) -> bool:
        """Whether its rationales have code in them."""
        return self.style is not SynthStyle.THINKPRM


class Attempt(Record):
    """One rationale, and what became of it."""

    reason: Reason | None
    """Why it was not kept; None if it agrees."""
    judged: int | None = None
    """The first error that it names."""
    error: str | None = None
    """What failed, where something did."""
    transcript: Transcript | None = None
    runs: int = 0
    tokens: int = 0


class SynthRecord(Record):
    """Everything about one solution; a line of a shard."""

    schema_version: Literal[1] = SCHEMA_VERSION
    solution: LabelledSolution
    attempts: tuple[Attempt, ...]

    @property
    def kept(self) -> Transcript | None:
        """The conversation that is kept, if one is."""
        return next((attempt.transcript for attempt in self.attempts if attempt.reason is None), None)

    def first_error(self, kind: Filter) -> int:
        """The first error that the kept conversation tells: by the outcome filter it need not be the labels'."""
        named = next((attempt.judged for attempt in self.attempts if attempt.reason is None), None)
        return self.solution.label if named is None or kind is not Filter.OUTCOME else named

    @property
    def failed(self) -> bool:
        """Whether model or sandbox failed, so that it is worth another run."""
        return self.kept is None and any(attempt.reason is Reason.FAILED for attempt in self.attempts)


class Synthesizer:
    """Writes rationales with one model and one sandbox.

    Args:
        model: the critic.
        sandbox: where its code runs; None for a style without code.
        options: how.
    """

    def __init__(self, model: ModelBackend, sandbox: Sandbox | None, options: SynthOptions) -> None:
        self._model = model
        self._sandbox = sandbox
        self._options = options
        self._examples = worked_example() if options.example else ()

    async def synthesize(self, solution: LabelledSolution, memory: Memory) -> SynthRecord:
        """Write rationales of a solution until one is kept, or all tries are used.

        Raises:
            ModelUnavailableError: there is no model any more.
            SandboxUnavailableError: no code can be run any more.
        """
        attempts: list[Attempt] = []
        while len(attempts) < self._options.tries and not (attempts and attempts[-1].reason is None):
            number = len(attempts)

            async def call(number: int = number) -> dict[str, Any]:
                return (await self._attempt(solution, number)).model_dump(mode="json")

            try:
                attempts.append(Attempt.model_validate(await memory.recall(f"attempt/{number}", call)))
            except (ModelUnavailableError, SandboxUnavailableError):
                raise
            except (ModelError, SandboxError) as error:  # not noted down: the next run tries it again
                attempts.append(Attempt(reason=Reason.FAILED, error=f"{type(error).__name__}: {error}"))
        return SynthRecord(solution=solution, attempts=tuple(attempts))

    async def _attempt(self, solution: LabelledSolution, number: int) -> Attempt:
        sampling = Sampling(temperature=self._options.temperature, seed=self._options.seed)
        key = f"{solution.id}/{number}"
        async with Chain(self._model, self._sandbox, self._options.budget, sampling, key) as chain:
            try:
                found = await self._write(chain, solution)
            except (WallTimeError, ContextFullError):
                found = Reason.TOO_LONG
            return self._judged(found, solution, chain.usage)

    async def _write(self, chain: Chain, solution: LabelledSolution) -> tuple[int, Transcript] | Reason:
        """The first error that a rationale names, and its conversation; or why it is none."""
        problem, steps = solution.problem, solution.steps
        if self._options.style is SynthStyle.THINKPRM:
            text = await write_chain(chain, problem, steps)
            read = text if isinstance(text, Reason) else read_chain(text, len(steps))
            if isinstance(read, Reason):
                return read
            thought, judged = read
            return judged, thinkprm_transcript(problem, steps, thought, judged == NO_ERROR)
        if self._options.style is SynthStyle.GENPRM_STEP:
            by_labels = self._options.filter is Filter.LABELS
            return await write_turns(chain, solution, self._examples, by_labels=by_labels)
        critique = read_critique(await write_critique(chain, problem, steps), len(steps))
        if isinstance(critique, Reason):
            return critique
        return critique.first_error, genprm_transcript(problem, steps, critique.rationales, critique.first_error)

    def _judged(self, found: tuple[int, Transcript] | Reason, solution: LabelledSolution, usage: Usage) -> Attempt:
        runs, tokens = usage.code_runs, usage.completion_tokens
        if isinstance(found, Reason):
            return Attempt(reason=found, runs=runs, tokens=tokens)
        judged, transcript = found
        reason = disagreement(self._options.filter, judged, solution.label, solution.correct)
        kept = None if reason else transcript
        return Attempt(reason=reason, judged=judged, transcript=kept, runs=runs, tokens=tokens)


def training_record(record: SynthRecord, transcript: Transcript, options: SynthOptions, model: str) -> TrainingRecord:
    """The row that a kept rationale becomes."""
    return TrainingRecord(
        id=record.solution.id, style=options.style.value,
        messages=transcript.messages, masked=transcript.masked,
        problem=record.solution.problem, steps=record.solution.steps, label=record.first_error(options.filter),
        model=model,
    )  # fmt: skip
