"""Labelling: values near the true ones, interrupted work taken up, and what goes wrong named."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from genprm.answers import AnswerChecker
from genprm.errors import ContextFullError, ModelError
from genprm.models.base import Completion, FinishReason, Message, ModelBackend, Sampling
from genprm.models.scripted import Rule as ScriptRule
from genprm.models.scripted import ScriptedModel
from genprm.policy import Policy
from genprm.records import Problem
from rationale_synth.jobs import input_rows, open_label_run, run_label_job, take_input
from rationale_synth.label import LabelOptions, label_problem, labelled_solutions
from rationale_synth.labels import Rule, RuleName
from rationale_synth.memory import Memory
from rationale_synth.records import Outcome, ProblemRecord, parse_record
from rationale_synth.segment import Segmentation
from rationale_synth.simulate import SimulatedPolicy, Strength

PROBLEMS = [Problem(id=f"p{n}", problem=f"Problem {n}", answer=str(n)) for n in range(20)]
ANSWERS = {problem.problem: problem.answer for problem in PROBLEMS}
OPTIONS = LabelOptions(samples=8, max_samples=16, solutions=4)
BARE = OPTIONS.model_copy(update={"settling": None})


@pytest.fixture(scope="module")
async def checker() -> AsyncIterator[AnswerChecker]:
    async with AnswerChecker() as it:
        yield it


def policy(model: ModelBackend | None = None) -> Policy:
    return Policy(model or SimulatedPolicy(ANSWERS.get), Sampling(temperature=1))


async def records(checker: AnswerChecker, options: LabelOptions = OPTIONS) -> list[ProblemRecord]:
    return [await label_problem(n, p, policy(), checker, options, Memory()) for n, p in enumerate(PROBLEMS)]


def kept(found: list[ProblemRecord]) -> ProblemRecord:
    return next(record for record in found if record.outcome is Outcome.LABELLED and len(record.solutions) > 2)


async def test_values_are_near_the_true_ones(checker: AnswerChecker):
    simulated = SimulatedPolicy(ANSWERS.get)
    errors = []
    for record in await records(checker, BARE.model_copy(update={"rollouts": 64, "rule": Rule(name="abs-q")})):
        for solution in record.solutions:
            for end, value in enumerate(solution.values, 1):
                true = simulated.value(record.problem.problem, ["\n\n".join(solution.steps[:end])])
                assert value.value is not None
                errors.append(value.value - true)
                assert abs(errors[-1]) < 0.35
    assert len(errors) > 50
    assert abs(sum(errors) / len(errors)) < 0.02


async def test_what_is_kept(checker: AnswerChecker):
    for record in await records(checker):
        rate = record.pass_rate
        assert rate is not None
        if record.outcome is Outcome.LABELLED:
            assert 0 < rate.right < rate.rollouts
            assert {solution.correct for solution in record.solutions} == {True, False}
            assert len({solution.number for solution in record.solutions}) == len(record.solutions) <= 4
            assert record.planned == (128 if rate.value < 0.1 else 64 if rate.value < 0.9 else 32)
        else:
            assert rate.right == (rate.rollouts if record.outcome is Outcome.ALL_RIGHT else 0)
            assert rate.rollouts == 16
            assert not record.solutions


async def test_the_last_value_is_the_answer(checker: AnswerChecker):
    record = kept(await records(checker))
    for solution in record.solutions:
        assert solution.values[-1].value == float(solution.correct)
        assert solution.values[-1].rollouts == 0
    drawn = sum(value.rollouts for solution in record.solutions for value in solution.values)
    assert record.start is not None
    assert record.cost.rollouts == drawn + record.start.rollouts


async def test_the_bare_problem_has_rollouts_of_its_own_where_a_rule_compares_with_it(checker: AnswerChecker):
    """The samples were drawn until a right and a wrong one were there."""
    record = kept(await records(checker))
    assert record.start is not None
    assert record.start.rollouts == record.planned > record.pass_rate.rollouts
    assert labelled_solutions(record, Rule(), "p")[0].pass_rate == record.start.value
    options = OPTIONS.model_copy(update={"rule": Rule(name=RuleName.HARD)})
    assert kept(await records(checker, options)).start is None
    assert record.cost.samples == record.pass_rate.rollouts


async def test_adaptive_and_fixed_k_see_the_same_rollouts(checker: AnswerChecker):
    """With certainty asked for, adaptive K ends where fixed K ends."""
    sure = OPTIONS.settling.model_copy(update={"confidence": 1.0, "zero_confidence": 1.0})
    adaptive = await records(checker, OPTIONS.model_copy(update={"settling": sure}))
    fixed = await records(checker, BARE)
    for one, other in zip(adaptive, fixed, strict=True):
        ours, theirs = (labelled_solutions(record, Rule(), "p") for record in (one, other))
        assert [row.step_labels for row in ours] == [row.step_labels for row in theirs]
        assert [row.label for row in ours] == [row.label for row in theirs]


async def test_work_that_was_interrupted_goes_on(checker: AnswerChecker):
    """Whatever part of the notes is there, the record is the same, and no noted call is made again."""
    problem = kept(await records(checker)).problem
    notes: dict[str, Any] = {}
    whole = await label_problem(0, problem, policy(), checker, OPTIONS, Memory({}, notes.__setitem__))
    assert len(notes) > 10
    for known in (0, 1, 5, len(notes) // 2, len(notes)):
        made: dict[str, Any] = {}
        memory = Memory(dict(list(notes.items())[:known]), made.__setitem__)
        asked = policy()
        assert await label_problem(0, problem, asked, checker, OPTIONS, memory) == whole
        assert len(made) == len(notes) - known
        assert (asked.completions == 0) is (known == len(notes))


async def test_one_failing_problem_takes_nobody_along(tmp_path: Path):
    class Fails(SimulatedPolicy):
        async def complete(self, prompt: str, **options: Any) -> list[Completion]:
            if prompt.startswith("Problem 7"):
                raise ModelError("too long")
            return await super().complete(prompt, **options)

    found = await job(tmp_path / "run", Fails(ANSWERS.get))
    assert [record.outcome is Outcome.FAILED for record in found] == [n == 7 for n in range(20)]
    assert found[7].error == "too long"
    again = await job(tmp_path / "run", SimulatedPolicy(ANSWERS.get))
    assert again == await job(tmp_path / "other", SimulatedPolicy(ANSWERS.get))


async def job(folder: Path, model: ModelBackend, options: LabelOptions = OPTIONS) -> list[ProblemRecord]:
    mark = take_input(iter(PROBLEMS), folder)
    with open_label_run(folder, options, "simulated", mark) as run:
        await run_label_job(run, policy(model), options)
        return [parse_record(line) for _, line in run.records()]


async def test_a_cancelled_job_goes_on(tmp_path: Path):
    undisturbed = await job(tmp_path / "whole", SimulatedPolicy(ANSWERS.get))
    for _ in range(4):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(job(tmp_path / "run", SimulatedPolicy(ANSWERS.get, seconds=0.01, in_flight=8)), 0.4)
    assert await job(tmp_path / "run", SimulatedPolicy(ANSWERS.get)) == undisturbed
    shards = [(tmp_path / name / "shards" / "00000.jsonl").read_bytes() for name in ("whole", "run")]
    assert shards[0] == shards[1]


def test_an_input_that_no_run_was_begun_with_is_replaced(tmp_path: Path):
    """Kill -9 can come between the copy of the input and the configuration."""
    take_input(PROBLEMS[:5], tmp_path / "run")
    mark = take_input(PROBLEMS[5:8], tmp_path / "run")
    with open_label_run(tmp_path / "run", OPTIONS, "simulated", mark) as run:
        assert [row for _, row in input_rows(run, Problem, run.pending())] == PROBLEMS[5:8]
        run.note(0, "key", "begun")
    assert take_input(PROBLEMS, tmp_path / "run").rows == 20
    assert len((tmp_path / "run" / "input.jsonl").read_text().splitlines()) == 3


def scripted(answer: Callable[[str], str]) -> Policy:
    return policy(ScriptedModel(lambda prompt: ScriptRule(text=answer(prompt))))


@pytest.mark.parametrize(
    ("gold", "text", "outcome"),
    [
        ("5", "One.\n\nThe answer is \\boxed{5}.", Outcome.ALL_RIGHT),
        ("5", "One.\n\nThe answer is \\boxed{6}.", Outcome.ALL_WRONG),
        ("5", "", Outcome.ALL_WRONG),
        ("x" * 1001, "One.", Outcome.BAD_ANSWER),
    ],
)
async def test_problems_that_are_dropped(checker: AnswerChecker, gold: str, text: str, outcome: Outcome):
    problem = Problem(id="p", problem="P", answer=gold)
    record = await label_problem(0, problem, scripted(lambda _: text), checker, OPTIONS, Memory())
    assert record.outcome is outcome
    assert labelled_solutions(record, Rule(), "p") == []


class Alternating(ModelBackend):
    """Writes one text for even seeds and another for odd ones."""

    name, concurrency = "alternating", 8

    def __init__(self, *texts: str) -> None:
        self.texts = texts
        self.prompts: list[str] = []

    async def complete(self, prompt: str, *, n: int = 1, sampling: Sampling, **_: Any) -> list[Completion]:
        self.prompts.append(prompt)
        return [
            Completion(
                text=self.texts[(sampling.seed + draw) % len(self.texts)], finish_reason="stop", completion_tokens=3
            )
            for draw in range(n)
        ]

    def render(self, messages: Sequence[Message], prefix: str) -> str:
        return messages[-1]["content"] + "|" + prefix

    async def close(self) -> None:
        pass


class Undecided(AnswerChecker):
    """Cannot compare some of the wrong answers."""

    def __init__(self, every: int) -> None:
        super().__init__(1)
        self._every = every
        self._wrong = 0

    async def is_right(self, gold: str, answer: str | None) -> bool | None:
        if found := await super().is_right(gold, answer):
            return found
        self._wrong += 1
        return None if self._wrong % self._every == 0 else False


async def test_an_answer_that_cannot_be_compared_is_neither_right_nor_wrong():
    async with Undecided(1) as none, Undecided(2) as half:
        for record in await records(none):
            assert record.outcome in (Outcome.ALL_RIGHT, Outcome.FAILED)
            assert record.outcome is Outcome.ALL_RIGHT or record.error == "no sample's answer could be compared in time"
        record = kept(await records(half, OPTIONS.model_copy(update={"samples": 16, "max_samples": 32})))
    assert record.pass_rate is not None
    assert record.uncomparable > 0
    counted = [record.start, *(value for solution in record.solutions for value in solution.values)]
    assert all(each.value == each.right / each.rollouts for each in counted if each and each.rollouts)
    drawn = sum(each.rollouts for each in counted if each)
    samples = record.cost.samples - record.pass_rate.rollouts
    assert record.uncomparable == record.cost.rollouts - drawn + samples


async def test_what_could_not_be_compared_is_compared_in_the_next_run(checker: AnswerChecker):
    notes: dict[str, Any] = {}
    async with Undecided(1) as none:
        records = [
            await label_problem(n, p, policy(), none, OPTIONS, Memory(note=lambda k, v, n=n: notes.update({(n, k): v})))
            for n, p in enumerate(PROBLEMS)
        ]
    failed = [record.index for record in records if record.outcome is Outcome.FAILED]
    assert failed
    for n in failed:
        known = {key: value for (of, key), value in notes.items() if of == n}
        again = await label_problem(n, PROBLEMS[n], policy(), checker, OPTIONS, Memory(known))
        assert again.outcome is Outcome.ALL_WRONG


async def test_a_gold_answer_that_takes_too_long_is_tried_again(checker: AnswerChecker):
    class Slow(AnswerChecker):
        async def can_compare(self, gold: str) -> bool | None:
            return None

    async with Slow(1) as slow:
        record = await label_problem(0, PROBLEMS[0], policy(), slow, OPTIONS, Memory())
    assert record.outcome is Outcome.FAILED
    assert record.error == "the gold answer could not be read in time"


async def test_answers_that_nobody_can_read_are_counted(checker: AnswerChecker):
    model = Alternating("Two.\n\nIt is five, surely.", "Two.\n\nIt is \\boxed{5}.")
    record = await label_problem(0, Problem(id="p", problem="P", answer="5"), policy(model), checker, BARE, Memory())
    assert record.outcome is Outcome.LABELLED
    assert record.unanswered == record.cost.samples // 2 + record.cost.rollouts // 2


async def test_a_policy_that_never_emits_steps(checker: AnswerChecker):
    model = Alternating("It is \\boxed{5}.", "It is \\boxed{6}.")
    problem = Problem(id="p", problem="P", answer="5")
    record = await label_problem(0, problem, policy(model), checker, OPTIONS, Memory())
    assert (record.outcome, record.unsplittable) == (Outcome.NO_STEPS, 2)


async def test_a_sample_that_is_cut_off_is_no_solution(checker: AnswerChecker):
    """Its last step is half a one: labelled, it would teach that long is wrong."""

    class CutOff(Alternating):
        async def complete(self, prompt: str, **further: Any) -> list[Completion]:
            done = await super().complete(prompt, **further)
            return [
                each.model_copy(update={"finish_reason": FinishReason.LENGTH}) if "so we" in each.text else each
                for each in done
            ]

    right, wrong = "We need 2*3.\n\nIt is \\boxed{5}.", "We need 2*3.\n\nIt is \\boxed{6}."
    half = "We need 2*3.\n\nThat means two groups, so we"
    problem = Problem(id="p", problem="P", answer="5")
    record = await label_problem(0, problem, policy(CutOff(right, half, wrong)), checker, OPTIONS, Memory())
    assert {solution.steps[-1] for solution in record.solutions} == {"It is \\boxed{5}.", "It is \\boxed{6}."}
    assert record.cut_off > 0
    one_kind = await label_problem(0, problem, policy(CutOff(right, half)), checker, OPTIONS, Memory())
    assert (one_kind.outcome, one_kind.solutions) == (Outcome.ALL_RIGHT, ())
    assert one_kind.pass_rate is not None
    assert 0 < one_kind.pass_rate.value < 1
    assert one_kind.cut_off == one_kind.pass_rate.rollouts - one_kind.pass_rate.right
    alone = CutOff("That means two groups,\n\nso we")
    assert (await label_problem(0, problem, policy(alone), checker, OPTIONS, Memory())).outcome is Outcome.ALL_WRONG


async def test_rollouts_go_on_from_exactly_what_was_written(checker: AnswerChecker):
    model = Alternating(" One,\n two.\n \nStep 2: so \\boxed{5}.\n", " Two.\nStep 2: \\boxed{6}.")
    options = OPTIONS.model_copy(update={"segmentation": Segmentation.STEP_FORCING})
    problem = Problem(id="p", problem="P", answer="5")
    record = await label_problem(0, problem, policy(model), checker, options, Memory())
    prefixes = {re.sub(r"(?s).*\|", "", prompt) for prompt in model.prompts}
    assert prefixes == {"Step 1:", "Step 1: One,\n two.\n \n", "Step 1: Two.\n"}
    assert [solution.steps[0] for solution in record.solutions] == ["Step 1: One,\n two.", "Step 1: Two."]


async def test_a_solution_that_is_too_long_to_be_marked(checker: AnswerChecker):
    """There is no room in the context to say it again: that is its own fault, and nobody else's."""

    class Short(Alternating):
        async def complete(self, prompt: str, **further: Any) -> list[Completion]:
            if prompt.endswith("|<chunk>"):
                raise ContextFullError("full")
            return await super().complete(prompt, **further)

    model = Short("It is \\boxed{5}.", "It is \\boxed{6}.")
    options = OPTIONS.model_copy(update={"segmentation": Segmentation.CHUNK})
    record = await label_problem(0, Problem(id="p", problem="P", answer="5"), policy(model), checker, options, Memory())
    assert (record.outcome, record.unsplittable) == (Outcome.NO_STEPS, 2)


async def test_chunks_of_a_policy_that_marks_them(checker: AnswerChecker):
    class Chunking(Alternating):
        async def complete(self, prompt: str, *, n: int = 1, sampling: Sampling, **further: Any) -> list[Completion]:
            if prompt.endswith("|<chunk>"):
                text = prompt.partition("Solution:\n")[2].removesuffix("|<chunk>")
                marked = text.replace(". ", ". </chunk><chunk>") + "</chunk>" if "6" not in text else text
                return [Completion(text=marked, finish_reason="stop")]
            return await super().complete(prompt, n=n, sampling=sampling, **further)

    model = Chunking("We add. It is \\boxed{5}.", "We take. It is \\boxed{6}.")
    options = OPTIONS.model_copy(update={"segmentation": Segmentation.CHUNK})
    problem = Problem(id="p", problem="P", answer="5")
    record = await label_problem(0, problem, policy(model), checker, options, Memory())
    assert [solution.steps for solution in record.solutions] == [("We add.", "It is \\boxed{5}.")]
    assert record.unsplittable == 1  # the other was not reproduced


@pytest.mark.parametrize("name", list(RuleName))
async def test_a_finished_run_is_labelled_by_any_rule(checker: AnswerChecker, name: RuleName):
    record = kept(await records(checker))
    rows = labelled_solutions(record, Rule(name=name), "p")
    assert [len(row.step_labels) for row in rows] == [len(solution.steps) for solution in record.solutions]
    for row in rows:
        wrong = [index for index, label in enumerate(row.step_labels) if label == 0]
        assert row.label == (wrong[0] if wrong else -1)


@pytest.mark.parametrize("strength", list(Strength))
def test_simulated_values_are_martingales(strength: Strength):
    """The value of a prefix is the mean of the values that its next step leads to."""
    simulated = SimulatedPolicy(ANSWERS.get, strength)
    for number in range(50):
        course = simulated.course(f"problem {number}")
        for step, keep in enumerate(course.keeps):
            on, off = course.on_track[step + 1], course.off_track[step + 1]
            assert course.on_track[step] == pytest.approx(keep * on + (1 - keep) * off)
            assert course.off_track[step] == pytest.approx(course.recovers * on + (1 - course.recovers) * off)
