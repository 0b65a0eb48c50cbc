"""Searches: who is asked what, what is kept, what it costs, and what survives."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from functools import partial
from hashlib import sha256
from typing import Any

import pytest

from genprm import AsyncVerifier, Problem, Sampling
from genprm.answers import AnswerChecker
from genprm.errors import ContextFullError, ModelError, VerificationError
from genprm.models.scripted import Rule as Line
from genprm.models.scripted import ScriptedModel
from genprm.policy import Policy
from genprm.records import MAX_STEPS, Solution
from genprm.search.base import Path, Search
from genprm.search.beam import beam_search
from genprm.search.bon import best_of_n
from genprm.search.curves import search_figures, told
from genprm.search.records import SearchResult, Spent, TracePoint
from genprm.search.refine import critique, refine
from genprm.search.reset import chunk_reset
from genprm.search.select import Reduce, Rule
from genprm.styles import Direct, Discriminative, GenPRM, History, PRMFormat, StepWiser, Style, ThinkPRM

PROBLEM = Problem(id="p", problem="What is 6 times 7?", answer="42")
GOOD = "So 6 times 7 is forty-two.\n\nThe answer is \\boxed{42}."
BAD = "So 6 times 7 is something.\n\nThe answer is \\boxed{43}."


@pytest.fixture(scope="module")
async def checker() -> AsyncIterator[AnswerChecker]:
    async with AnswerChecker() as it:
        yield it


def judge_by(bad: str) -> Callable[[str], Line]:
    """A verifier that finds a step wrong if the last one it is shown holds ``bad``."""

    def answer(prompt: str) -> Line:
        shown = prompt.rpartition("<|user|>")[2].partition("<|assistant|>")[0].strip().split("\n\n")[-1]
        return Line(yes=0.1 if re.search(bad, shown) else 0.9)

    return answer


def search(
    checker: AnswerChecker,
    writes: ScriptedModel,
    judges: Callable[[str], Line],
    style: Style | None = None,
    **more: Any,
) -> Search:
    verifier = AsyncVerifier(ScriptedModel(judges, name="judge"), None, style=style or Direct(history=History.NONE))
    policy = Policy(writes, Sampling(temperature=1))
    return Search(PROBLEM, policy, verifier, checker, **{"reduce": Reduce.MIN, "max_tokens": 100, **more})


async def test_best_of_n_takes_what_the_verifier_believes(checker: AnswerChecker):
    hunt = search(checker, ScriptedModel([Line(one_of=(BAD, BAD, GOOD))]), judge_by("something"))
    await best_of_n(hunt, n=6, rule=Rule.BEST)
    result = await hunt.result("bon")
    assert (result.answer, result.correct, result.score) == ("42", True, pytest.approx(0.9))
    assert result.completions == result.verifications == len(result.candidates) == 6
    assert [point.spent.policy for point in result.trace] == sorted(point.spent.policy for point in result.trace)
    assert result.trace[-1].spent == result.spent == Spent(policy=sum_words(result), verifier=12)


def sum_words(result: SearchResult) -> int:
    return sum(len("\n\n".join(candidate.steps).split()) for candidate in result.candidates)


async def test_a_policy_may_write_what_is_no_text(checker: AnswerChecker):
    hunt = search(checker, ScriptedModel([Line(one_of=(GOOD.replace("So", "So\0\ud800"), BAD))]), judge_by("something"))
    await best_of_n(hunt, n=2, rule=Rule.BEST)
    result = await hunt.result("bon")
    assert (result.answer, result.solution[0]) == ("42", "So\ufffd\ufffd 6 times 7 is forty-two.")


async def test_majority_needs_no_score(checker: AnswerChecker):
    hunt = search(checker, ScriptedModel([Line(one_of=(BAD, GOOD, BAD))]), lambda _: Line(choice={"Perhaps": 1.0}))
    await best_of_n(hunt, n=6, rule=Rule.MAJORITY)
    result = await hunt.result("bon")
    assert (result.answer, result.score) == ("43", None)
    assert not any(candidate.prm_step_scores for candidate in result.candidates), "unscored is never a score"


async def test_beam_search_leaves_bad_beginnings(checker: AnswerChecker):
    writes = ScriptedModel([
        Line(when=r"\\boxed\{4\d\}\.\n\n$", text=""),
        Line(when=r"forty-two\.\n\n$", text="The answer is \\boxed{42}."),
        Line(when=r"something\.\n\n$", text="The answer is \\boxed{43}."),
        Line(one_of=(BAD, BAD, BAD, GOOD)),
    ])  # fmt: skip
    hunt = search(checker, writes, judge_by("something"), reduce=Reduce.LAST)
    await beam_search(hunt, beams=4, width=2, max_steps=5)
    result = await hunt.result("beam")
    assert (result.answer, result.correct) == ("42", True)
    assert result.solution == tuple(GOOD.split("\n\n"))
    assert result.completions <= 4 + 2 * 2 * 4
    assert all("<|assistant|>\n" in prompt for prompt in writes.prompts)


async def test_what_was_cut_off_without_an_answer_is_not_believed(checker: AnswerChecker):
    def write(prompt: str) -> Line:
        if prompt.endswith("something.\n\n"):
            return Line(text="The answer is \\boxed{43}.")
        return Line(one_of=("So 6 times 7 is forty-two, as everybody knows who ever has asked himself", BAD))

    for find in (partial(best_of_n, n=4, rule=Rule.BEST), partial(beam_search, beams=4, width=1, max_steps=4)):
        hunt = search(checker, ScriptedModel(write), judge_by("The answer"), max_tokens=10)
        await find(hunt)
        assert (await hunt.result("x")).answer == "43"


async def test_an_empty_line_more_ends_no_search(checker: AnswerChecker):
    def write(prompt: str) -> Line:
        written = prompt.rpartition("<|assistant|>")[2]
        return Line(text="\n\nThe answer is \\boxed{42}." if "forty-two" in written else "\n\n" + GOOD)

    hunt = search(checker, ScriptedModel(write), judge_by("something"))
    await beam_search(hunt, beams=2, width=1, max_steps=4)
    result = await hunt.result("beam")
    assert (result.answer, len(result.solution)) == ("42", 2)


async def test_beam_search_ends_though_nothing_is_ever_finished(checker: AnswerChecker):
    hunt = search(checker, ScriptedModel([Line(text="And so on.\n\nAnd")]), judge_by("never"))
    await beam_search(hunt, beams=2, width=2, max_steps=3)
    result = await hunt.result("beam")
    assert (result.solution, result.answer, result.correct) == (("And so on.",) * 3, None, False)


async def test_beam_search_does_not_forget_what_was_finished(checker: AnswerChecker):
    """A whole solution falls out of the beam for beginnings that look better, and come to nothing."""
    first = iter(["The answer is \\boxed{42}.", "A bright idea.\n\n"])
    writes = ScriptedModel(lambda prompt: Line(text=next(first, "And so on.\n\n")))
    hunt = search(checker, writes, lambda prompt: Line(yes=0.6 if "boxed{42}" in prompt else 0.9), reduce=Reduce.LAST)
    await beam_search(hunt, beams=2, width=2, max_steps=3)
    result = await hunt.result("beam")
    assert (result.answer, len(result.trace)) == ("42", 1)


async def test_one_candidate_that_cannot_be_verified_costs_no_problem(checker: AnswerChecker):
    long = "\n\n".join(f"Line {n}." for n in range(MAX_STEPS + 1))
    hunt = search(checker, ScriptedModel([Line(one_of=(long, GOOD))]), judge_by("something"), max_tokens=9999)
    await best_of_n(hunt, n=4, rule=Rule.BEST)
    result = await hunt.result("bon")
    assert (result.answer, len(result.candidates)) == ("42", result.verifications)
    assert result.verifications < result.completions
    hunt = search(checker, ScriptedModel([Line(text=long)]), judge_by("something"), max_tokens=9999)
    with pytest.raises(VerificationError, match="at most 512"):
        await best_of_n(hunt, n=4, rule=Rule.BEST)


async def test_an_attempt_without_a_score_does_not_replace_one_that_has(checker: AnswerChecker):
    writes = ScriptedModel([Line(when="found fault", text=GOOD), Line(text=BAD)])

    def judges(prompt: str) -> Line:
        return Line(choice={"Perhaps": 1.0}) if "forty-two" in prompt else judge_by("something")(prompt)

    hunt = search(checker, writes, judges, style=Direct())
    await refine(hunt, turns=3)
    result = await hunt.result("refine")
    assert ([point.answer for point in result.trace], result.completions) == (["43"], 2)


async def test_a_rejected_chunk_is_drawn_anew(checker: AnswerChecker):
    writes = ScriptedModel([
        Line(when=r"forty-two\.\n\n$", text="The answer is \\boxed{42}."), Line(one_of=(BAD, BAD, GOOD))
    ])  # fmt: skip
    hunt = search(checker, writes, judge_by("something"))
    await chunk_reset(hunt, attempts=5, max_steps=9)
    result = await hunt.result("reset")
    assert result.correct
    assert result.spent.policy > result.trace[-1].spent.policy - result.spent.policy >= 0
    assert 2 <= result.completions <= 6


async def test_where_no_chunk_is_accepted_the_best_one_is_kept(checker: AnswerChecker):
    def judges(prompt: str) -> Line:
        return Line(yes=0.4 if "third" in prompt else 0.2)

    hunt = search(checker, ScriptedModel([Line(one_of=("A first.\n\n", "A second.\n\n", "A third.\n\n"))]), judges)
    await chunk_reset(hunt, attempts=3, max_steps=1)
    assert (await hunt.result("reset")).solution == ("A third.",)


async def test_unscored_is_not_accepted(checker: AnswerChecker):
    hunt = search(checker, ScriptedModel([Line(text="A step.\n\n")]), lambda _: Line(choice={"Perhaps": 1.0}))
    await chunk_reset(hunt, attempts=3, max_steps=1)
    result = await hunt.result("reset")
    assert (result.completions, result.score) == (3, None)


async def test_the_critique_goes_back_to_the_policy(checker: AnswerChecker):
    def judges(prompt: str) -> Line:
        if prompt.rstrip().endswith("step by step:"):
            return Line(text="The word something is no number.")
        return judge_by("something")(prompt)

    writes = ScriptedModel([Line(when="(?s)found fault.*no number", text=GOOD), Line(text=BAD)])
    hunt = search(checker, writes, judges, style=GenPRM(verify=False, history=History.NONE))
    await refine(hunt, turns=3)
    result = await hunt.result("refine")
    assert [point.answer for point in result.trace] == ["43", "42"], "nothing is asked once no error is found"
    assert "Paragraph 1" in writes.prompts[1]
    assert "Paragraph 2" not in writes.prompts[1], "only wrong steps are criticized"


async def test_a_critique_without_an_argument_says_which_step(checker: AnswerChecker):
    async with AsyncVerifier(ScriptedModel([Line(yes=0.0)]), None, style=Direct()) as verifier:
        report = await verifier.verify("p", ["A" * 80])
    assert critique(report) == f"Paragraph 1, which begins '{'A' * 60}...':\nIt is wrong."


async def test_a_policy_that_says_nothing(checker: AnswerChecker):
    hunt = search(checker, ScriptedModel([Line(text="")]), judge_by("x"))
    with pytest.raises(ModelError, match="wrote nothing"):
        await best_of_n(hunt, n=2, rule=Rule.BEST)


@pytest.mark.parametrize("later", ["", " \n"])
async def test_a_later_draw_that_says_nothing_costs_no_answer(checker: AnswerChecker, later: str):
    writes = ScriptedModel([Line(when="found fault", text=later), Line(text=BAD)])
    hunt = search(checker, writes, judge_by("something"))
    await refine(hunt, turns=3)
    result = await hunt.result("refine")
    assert [point.answer for point in result.trace] == ["43"]
    assert result.spent.policy > 0


async def test_a_context_that_is_full_costs_no_answer(checker: AnswerChecker):
    """Of a later turn, of a chunk, or of one beam."""

    def writes(full: str) -> ScriptedModel:
        def answer(prompt: str) -> Line:
            if re.search(full, prompt):
                raise ContextFullError("full")
            return Line(text=BAD)

        return ScriptedModel(answer)

    hunt = search(checker, writes("found fault"), judge_by("something"))
    await refine(hunt, turns=3)
    assert (await hunt.result("refine")).answer == "43"
    with pytest.raises(ContextFullError):
        await refine(search(checker, writes(""), judge_by("something")), turns=3)
    hunt = search(checker, writes(r"something\."), judge_by("never"))
    await chunk_reset(hunt, attempts=1, max_steps=5)
    assert (await hunt.result("reset")).solution == ("So 6 times 7 is something.",)

    def beam(prompt: str) -> Line:
        if "something" in prompt:
            raise ContextFullError("full")
        if "forty-two" in prompt:
            return Line(text="The answer is \\boxed{42}.")
        return Line(one_of=("So it is something.\n\n", "So it is forty-two.\n\n"))

    hunt = search(checker, ScriptedModel(beam), judge_by("never"))
    await beam_search(hunt, beams=6, width=1, max_steps=5)
    assert (await hunt.result("beam")).answer == "42"


async def test_a_chunk_that_says_nothing_is_drawn_anew(checker: AnswerChecker):
    drawn = iter(["", GOOD.split("\n\n")[0], GOOD.split("\n\n")[1]])
    hunt = search(
        checker, ScriptedModel(lambda prompt: Line(text=next(drawn, "The answer is \\boxed{42}."))), judge_by("x")
    )
    await chunk_reset(hunt, attempts=2, max_steps=3)
    assert (await hunt.result("reset")).answer == "42"


async def test_a_heading_is_no_answer(checker: AnswerChecker):
    steps = iter(["#### Step 1: Six times seven", "Six sevens are 42.", "The answer is \\boxed{42}."])
    hunt = search(checker, ScriptedModel(lambda prompt: Line(text=next(steps))), judge_by("x"))
    await chunk_reset(hunt, attempts=1, max_steps=9)
    assert (await hunt.result("reset")).answer == "42"


async def test_what_is_accepted_is_not_judged_again(checker: AnswerChecker):
    """A style whose verdicts are independent is asked about the new step only; another one about all."""
    for style, asked in ((StepWiser(), 1), (Direct(history=History.NONE), 1), (Direct(), 2)):
        hunt = search(checker, ScriptedModel([Line(text="x")]), lambda _: Line(yes=0.9), style=style)
        one = await hunt.judge(Path(steps=("a",)))
        before = hunt.spent.verifier
        two = await hunt.judge(Path(steps=("a", "b"), scores=one.scores))
        calls = two.report.usage.model_calls if two.report else 0
        assert calls == asked * (2 if isinstance(style, StepWiser) else 1)
        assert (len(two.scores), hunt.spent.verifier > before) == (2, True)


def by_hash(prompt: str) -> Line:
    probability = sha256(prompt.encode()).digest()[0] / 255
    return Line(choice={word: probability if word in ("Yes", "+", "Positive") else 1 - probability
                        for word in ("Yes", "No", "+", "-", "Positive", "Negative")})  # fmt: skip


@pytest.mark.parametrize(
    "style",
    [
        StepWiser(), Direct(history=History.NONE), GenPRM(verify=False, history=History.NONE),
        Discriminative(PRMFormat.RLHFLOW), Discriminative(PRMFormat.MATH_SHEPHERD), ThinkPRM(), Direct(),
    ],
    ids=lambda style: type(style).__name__,
)  # fmt: skip
async def test_given_steps_change_no_verdict(style: Style):
    solution = Solution(id="a", problem="p", steps=("one", "two", "three", "four"))
    async with AsyncVerifier(ScriptedModel(by_hash), None, style=style, sampling=Sampling(temperature=0)) as verifier:
        whole = await verifier.verify_solution(solution)
        part = await verifier.verify_solution(solution, given=2)
    assert [step.score for step in part.steps[2:]] == [step.score for step in whole.steps[2:]]
    assert [step.asked for step in part.steps] == [not style.independent, not style.independent, True, True]
    assert (part.usage.model_calls < whole.usage.model_calls) is style.independent


def point(tokens: int, correct: bool | None) -> TracePoint:
    return TracePoint(spent=Spent(policy=tokens), answer="1", correct=correct)


def result(*trace: TracePoint) -> SearchResult:
    return SearchResult(
        id="p", problem="p", gold="1", method="bon", answer="1", correct=trace[-1].correct, score=None, solution=("s",),
        trace=trace, candidates=(), spent=trace[-1].spent, completions=1, verifications=1, seconds=0.0, policy="m",
        verifier="m", style="direct",
    )  # fmt: skip


def test_accuracy_within_so_many_tokens():
    rows = [told(result(point(10, False), point(100, True))), told(result(point(50, True), point(80, None)))]
    figures = search_figures(rows)
    assert (figures.accuracy, figures.policy_tokens) == (50.0, 90.0)
    curve = dict(figures.curve)
    assert curve[10] == 0
    assert max(curve.values()) == 50
    assert curve[100] == 50
    assert [row.right_within(60) for row in rows] == [False, True]
    assert [row.right_within(90) for row in rows] == [False, False], "an answer that cannot be compared is not right"
