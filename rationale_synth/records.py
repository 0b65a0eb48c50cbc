"""What the data factory reads and writes: problems, and solutions with the value and the label of every step."""

from __future__ import annotations

from enum import Enum
from typing import Literal

from pydantic import Field, TypeAdapter

from genprm.records import NO_ERROR, Problem, Record, Solution, Text
from rationale_synth.labels import Rule

SCHEMA_VERSION: Literal[1] = 1


class Cost(Record):
    """What a record has cost."""

    rollouts: int = 0
    """Completions from a prefix of a solution."""
    samples: int = 0
    """Solutions drawn from the bare problem."""
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(**{name: getattr(self, name) + getattr(other, name) for name in Cost.model_fields})


class StepValue(Record):
    """The Monte Carlo estimate of one prefix, up to and including a step."""

    right: int = Field(ge=0)
    """Rollouts that reached the gold answer."""
    rollouts: int = Field(ge=0)
    """Rollouts drawn. 0 for a step behind one of value 0, which was skipped; the last step needs none."""
    value: float | None = Field(ge=0, le=1)
    """The share of right ones; None where the step was skipped. The last step's is known from its answer."""


class SampledSolution(Record):
    """One solution of a problem with the values of its steps."""

    number: int = Field(ge=0)
    """Which of the problem's samples it was."""
    steps: tuple[Text, ...] = Field(min_length=1)
    correct: bool
    """Whether its final answer is the gold one."""
    values: tuple[StepValue, ...]


class Outcome(str, Enum):
    """What became of a problem."""

    LABELLED = "labelled"
    ALL_RIGHT = "all_right"
    """Every sampled solution was right: there is nothing to tell apart."""
    ALL_WRONG = "all_wrong"
    NO_STEPS = "no_steps"
    """No sample that was written to its end could be split into at least two steps."""
    BAD_ANSWER = "bad_answer"
    """The gold answer is none that anything could be compared with."""
    FAILED = "failed"
    """The model failed. Tried again when the job is run again."""


class ProblemRecord(Record):
    """Everything that a label job found out about one problem; a line of a shard."""

    schema_version: Literal[1] = SCHEMA_VERSION
    index: int = Field(ge=0)
    """The problem's place in the input."""
    problem: Problem
    outcome: Outcome
    error: str | None = None
    pass_rate: StepValue | None = None
    """Right ones among the samples, which were drawn until a right and a wrong one were there."""
    start: StepValue | None = None
    """The value of the bare problem, by rollouts of its own; None where the rule does not compare with it."""
    planned: int = 0
    """K: the rollouts that a fixed-K run draws from each prefix."""
    solutions: tuple[SampledSolution, ...] = ()
    uncomparable: int = 0
    """Answers that could not be compared with the gold one in time; they are neither right nor wrong."""
    cut_off: int = 0
    """Samples and rollouts that the limit of tokens ended. They are as right as what they came to; no such sample is
    labelled, since its last step may be half a one."""
    unanswered: int = 0
    """Samples and rollouts that ended by themselves without an answer that can be read: they count as wrong."""
    unsplittable: int = 0
    """Samples that had no steps, or whose segmentation did not reproduce them."""
    cost: Cost = Cost()

    @property
    def bare(self) -> StepValue:
        """The best estimate there is of the value of the bare problem, of a problem that was sampled."""
        found = self.start or self.pass_rate
        assert found is not None
        return found


class LabelledSolution(Record):
    """A solution with a label for every step: a row of ``labelled.jsonl``, and a row that `verify` and `eval` read."""

    schema_version: Literal[1] = SCHEMA_VERSION
    id: str
    problem: str
    answer: str
    steps: tuple[str, ...]
    label: int = Field(ge=NO_ERROR)
    """The first wrong step, -1 for none."""
    step_labels: tuple[float, ...]
    """1 for a right step and 0 for a wrong one; under the soft rule its value."""
    correct: bool
    pass_rate: float | None
    """The value of the bare problem; None where no solutions were sampled."""
    values: tuple[float | None, ...]
    """The MC value after each step; None where it was skipped."""
    rollouts: tuple[int, ...]
    """How many rollouts each value stands on."""
    rule: Rule | None
    """None where the labels are known by construction."""
    policy: str

    @classmethod
    def known(cls, solution: Solution, policy: str) -> LabelledSolution:
        """A solution whose first error is known without rollouts: planted, or found by people.

        Args:
            solution: it has a label.
            policy: who wrote it.
        """
        assert solution.label is not None
        steps = len(solution.steps)
        right = range(steps) if solution.label == NO_ERROR else range(solution.label)
        return cls(
            id=solution.id, problem=solution.problem, answer=solution.answer or "", steps=solution.steps,
            label=solution.label, step_labels=tuple(float(index in right) for index in range(steps)),
            correct=solution.label == NO_ERROR, pass_rate=None, values=(None,) * steps, rollouts=(0,) * steps,
            rule=None, policy=policy,
        )  # fmt: skip


_RECORD: TypeAdapter[ProblemRecord] = TypeAdapter(ProblemRecord)


def parse_record(line: str | bytes) -> ProblemRecord:
    """Read a line of a shard.

    Raises:
        pydantic.ValidationError: it is no record of this schema version.
    """
    return _RECORD.validate_json(line)
