"""One problem through the factory: sample solutions, choose, estimate the value of every step."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from genprm.answers import AnswerChecker
from genprm.errors import ModelError, ModelUnavailableError
from genprm.models.base import Sampling
from genprm.policy import Policy
from genprm.records import Problem, Record
from genprm.tasks import gather_all
from rationale_synth.labels import Rule, first_error, label_steps, soft_labels
from rationale_synth.memory import Memory
from rationale_synth.records import (
    LabelledSolution,
    Outcome,
    ProblemRecord,
    SampledSolution,
    StepValue,
)
from rationale_synth.rollout import Estimator, rollouts_by_pass_rate
from rationale_synth.segment import Segmentation, forced_start, policy_messages
from rationale_synth.settle import Settling, Tally
from rationale_synth.solutions import Draft, Sampler


class LabelOptions(Record):
    """Everything that decides what values a label job finds, but the model.

    Raises:
        pydantic.ValidationError: a value is out of range.
    """

    rule: Rule = Rule()
    """Whose labels the rollouts are to settle. A finished run can be labelled by any other rule."""
    samples: int = Field(default=16, ge=1)
    """Solutions sampled from each problem; further waves of as many follow while all are right or all wrong ..."""
    max_samples: int = Field(default=64, ge=1)
    """... up to this many (GenPRM: 2048)."""
    solutions: int = Field(default=4, ge=1)
    """Most solutions labelled of each problem."""
    rollouts: int | None = Field(default=None, ge=1)
    """K; by default the paper's, by the pass rate."""
    settling: Settling | None = Settling.of(Rule())
    """When rollouts stop; None draws all K."""
    segmentation: Segmentation = Segmentation.BLANK_LINE
    example: bool = False
    """Whether the policy is shown a worked example."""
    max_tokens: int = Field(default=1024, ge=1)
    """Most tokens of a solution, and of a rollout."""
    temperature: float = Field(default=1.0, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    top_k: int = Field(default=50, ge=1)
    seed: int = 0

    @property
    def sampling(self) -> Sampling:
        """How the policy draws tokens."""
        return Sampling(temperature=self.temperature, top_p=self.top_p, top_k=self.top_k, seed=self.seed)

    @model_validator(mode="after")
    def _samples_fit(self) -> LabelOptions:
        if self.max_samples < self.samples:
            raise ValueError(f"max_samples ({self.max_samples}) is less than samples ({self.samples})")
        return self


async def label_problem(
    index: int, problem: Problem, policy: Policy, checker: AnswerChecker, options: LabelOptions, memory: Memory
) -> ProblemRecord:
    """Everything about one problem. What goes wrong with it is its outcome.

    Raises:
        ModelUnavailableError: there is no model any more.
        ConfigError: the job as a whole cannot work.
    """
    try:
        return await _Work(index, problem, policy, checker, options, memory).run()
    except ModelUnavailableError:
        raise
    except ModelError as error:
        return ProblemRecord(index=index, problem=problem, outcome=Outcome.FAILED, error=str(error))


class _Work:
    def __init__(
        self,
        index: int,
        problem: Problem,
        policy: Policy,
        checker: AnswerChecker,
        options: LabelOptions,
        memory: Memory,
    ) -> None:
        self._index = index
        self._problem = problem
        self._checker = checker
        self._options = options
        asked = policy_messages(options.segmentation, problem.problem, example=options.example)
        self._sampler = Sampler(
            policy, checker, memory, messages=asked, segmentation=options.segmentation, max_tokens=options.max_tokens
        )
        self._estimator = Estimator(
            policy, checker, memory, rule=options.rule, settling=options.settling,
            messages=asked, max_tokens=options.max_tokens,
        )  # fmt: skip

    async def run(self) -> ProblemRecord:
        options = self._options
        can_compare = await self._checker.can_compare(self._problem.answer)
        if can_compare is None:
            return self._record(Outcome.FAILED, error="the gold answer could not be read in time")
        if not can_compare:
            return self._record(Outcome.BAD_ANSWER)
        samples = await self._sampler.sample(self._problem, self._index, options.samples, options.max_samples)
        uncomparable = sum(sample.right is None for sample in samples)
        found: dict[str, Any] = {
            "uncomparable": uncomparable,
            "cut_off": sum(sample.cut_off for sample in samples),
            "unanswered": sum(not (sample.answered or sample.cut_off) for sample in samples),
        }
        if uncomparable == len(samples):
            return self._record(Outcome.FAILED, error="no sample's answer could be compared in time", **found)
        pass_rate = Tally.known(sum(sample.right is True for sample in samples), len(samples) - uncomparable)
        found["pass_rate"] = StepValue(right=pass_rate.right, rollouts=pass_rate.drawn, value=pass_rate.value)
        kinds = {sample.right for sample in samples if sample.is_usable}
        if len(kinds) < 2:  # those that were cut off are none that could be labelled
            return self._record(Outcome.ALL_RIGHT if kinds == {True} else Outcome.ALL_WRONG, **found)
        drafts, found["unsplittable"] = await self._sampler.cut(self._problem, self._index, samples, options.solutions)
        if not drafts:
            return self._record(Outcome.NO_STEPS, **found)
        found["planned"] = options.rollouts or rollouts_by_pass_rate(pass_rate.value or 0.0)
        start = pass_rate
        if options.rule.compares:
            prefix = forced_start(options.segmentation)
            start = await self._estimator.start(self._problem, self._index, prefix, found["planned"])
            found["start"] = StepValue(right=start.right, rollouts=start.drawn, value=start.value)
        found["solutions"] = await gather_all(self._solution(draft, start, found["planned"]) for draft in drafts)
        found["uncomparable"] += self._estimator.uncomparable
        found["cut_off"] += self._estimator.cut_off
        found["unanswered"] += self._estimator.unanswered
        return self._record(Outcome.LABELLED, **found)

    async def _solution(self, draft: Draft, start: Tally, planned: int) -> SampledSolution:
        place = (self._index, draft.number)
        values = await self._estimator.values(self._problem, place, draft.pieces, start, planned, draft.correct)
        steps = tuple(piece.strip() for piece in draft.pieces)
        return SampledSolution(number=draft.number, steps=steps, correct=draft.correct, values=values)

    def _record(self, outcome: Outcome, **found: Any) -> ProblemRecord:
        cost = self._sampler.cost + self._estimator.cost
        return ProblemRecord(index=self._index, problem=self._problem, outcome=outcome, cost=cost, **found)


def labelled_solutions(record: ProblemRecord, rule: Rule, policy: str) -> list[LabelledSolution]:
    """A problem's solutions with their labels by ``rule``; none unless the problem was labelled.

    Raises:
        ValueError: the rule needs a value that was not sampled.
    """
    if record.outcome is not Outcome.LABELLED:
        return []
    rows = []
    for solution in record.solutions:
        values = [record.bare.value, *(step.value for step in solution.values)]
        labels = label_steps(rule, values)
        rows.append(
            LabelledSolution(
                id=f"{record.problem.id}/{solution.number}",
                problem=record.problem.problem,
                answer=record.problem.answer,
                steps=solution.steps,
                label=first_error(labels),
                step_labels=soft_labels(values) if rule.soft else tuple(map(float, labels)),
                correct=solution.correct,
                pass_rate=record.bare.value or 0.0,
                values=tuple(values[1:]),
                rollouts=tuple(step.rollouts for step in solution.values),
                rule=rule,
                policy=policy,
            )
        )
    return rows
