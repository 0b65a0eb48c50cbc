"""Synthesis: what a critic writes is read, run in the sandbox, judged against the labels, and kept or rejected."""

from __future__ import annotations

import contextlib
import io
import json
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genprm.budget import Budget
from genprm.errors import InputError, ModelError, OutputError
from genprm.models.base import Completion, FinishReason, Message, ModelBackend, Sampling
from genprm.models.scripted import Rule as ScriptRule
from genprm.models.scripted import ScriptedModel
from genprm.records import NO_ERROR, Segment, SegmentKind, StopReason, Verdict, judged_steps
from genprm.styles.genprm import ANALYZE, CODE_OUTPUT, JUDGEMENT, JUDGEMENT_END, VERIFY
from genprm.styles.thinkprm import asked
from genprm.styles.thinkprm import read_chain as read_verified
from rationale_synth.consensus import Filter, Reason, balanced, disagreement
from rationale_synth.critique import FORCED, MARK, Critique, critique_messages, read_critique
from rationale_synth.families import family_plants
from rationale_synth.gold_critic import FAULTS, GoldCritic
from rationale_synth.jobs import take_input
from rationale_synth.memory import Memory
from rationale_synth.planted import Check, Kind, Planted, plant, unplanted
from rationale_synth.records import LabelledSolution
from rationale_synth.run_folder import RunFolder
from rationale_synth.synth_job import open_synth_run, read_labelled, run_synth_job, write_data
from rationale_synth.synthesize import Synthesizer, SynthOptions, SynthRecord, SynthStyle
from rationale_synth.taught import verdicts_to_mask, without_verdicts
from rationale_synth.thinkprm import read_chain
from rationale_synth.transcript import Transcript, genprm_transcript
from rationale_synth.validate import labelled, plants, validate, worked_solutions
from rationale_synth.voice import voiced
from rationale_synth.worked import evaluate, read_worked, shown
from sandbox import Sandbox, SandboxLostError

SOLUTIONS, _ = worked_solutions(None)
PLANTED = list(plants(SOLUTIONS))


def chosen(kind: Kind | None) -> Planted:
    return next(planted for planted in PLANTED if planted.kind is kind and planted.label != 0)


async def synthesize(
    model: ModelBackend, sandbox: Sandbox | None, planted: Planted, options: SynthOptions | None = None, **notes: Any
) -> SynthRecord:
    return await Synthesizer(model, sandbox, options or SynthOptions(tries=1)).synthesize(
        labelled(planted), Memory(**notes)
    )


def proves(planted: Planted) -> bool:
    """Whether the checks find every claim right up to the error, and the last one of the error wrong."""
    kernel: dict[str, Any] = {}
    said = [[_printed(check.code, kernel)[-1] == "True" for check in checks] for checks in planted.checks]
    before = said if planted.label == NO_ERROR else said[:-1]
    return all(all(each) for each in before) and (planted.label == NO_ERROR or said[-1][-1] is False)


def _printed(code: str, kernel: dict[str, Any]) -> list[str]:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code, kernel)
    return printed.getvalue().split()


def masked_texts(transcript: Transcript) -> list[str]:
    return [transcript.messages[at.message].content[at.start : at.end] for at in transcript.masked]


# The filter


@pytest.mark.parametrize(
    ("kind", "judged", "label", "correct", "reason"),
    [
        (Filter.PROCESS, -1, -1, True, None),
        (Filter.PROCESS, 2, 2, False, None),
        (Filter.PROCESS, 1, 2, False, Reason.OTHER_ERROR),
        (Filter.PROCESS, -1, 2, False, Reason.MISSED_ERROR),
        (Filter.PROCESS, 0, -1, True, Reason.FALSE_ALARM),
        (Filter.PROCESS, 2, 2, True, None),  # a right answer by a wrong step
        (Filter.OUTCOME, 1, 2, False, None),  # the wrong step, but the right outcome
        (Filter.OUTCOME, 2, 2, True, Reason.FALSE_ALARM),
        (Filter.OUTCOME, -1, -1, False, Reason.MISSED_ERROR),
    ],
)
def test_disagreement(kind: Filter, judged: int, label: int, correct: bool, reason: Reason | None):
    assert disagreement(kind, judged, label, correct) is reason


@given(st.lists(st.tuples(st.integers(0, 99).map(str), st.booleans()), unique_by=lambda item: item[0]), st.randoms())
def test_balance(kept: list[tuple[str, bool]], chance: Any):
    names = balanced(kept)
    wrong = [wrong for name, wrong in kept if name in names]
    if {wrong for _, wrong in kept} == {True, False}:
        assert wrong.count(True) == wrong.count(False) == min(sum(w for _, w in kept), sum(not w for _, w in kept))
    else:
        assert len(names) == len(kept)
    shuffled = list(kept)
    chance.shuffle(shuffled)
    assert balanced(shuffled) == names


# Planted errors


@pytest.mark.parametrize("planted", PLANTED, ids=lambda planted: planted.id)
def test_a_planted_error_is_the_first_and_the_only_one(planted: Planted):
    right = next(unplanted(solution) for solution in SOLUTIONS if planted.id.split("/")[0] == solution.id)
    if planted.kind is None:
        assert planted == right
        return
    before = list(right.steps)
    if planted.kind is Kind.SKIPPED_STEP:
        [skipped] = {*before[: planted.label + 1]} - {*planted.steps}
        before.remove(skipped)
    assert list(planted.steps[: planted.label]) == before[: planted.label]
    assert planted.steps[planted.label] != before[planted.label]
    assert proves(planted)
    assert not planted.steps[-1].endswith(f"The answer is {right.answer}.")


@pytest.mark.parametrize("planted", PLANTED, ids=lambda planted: planted.id)
def test_other_words_for_the_same_solution(planted: Planted):
    for seed in range(4):
        told = voiced(planted, seed)
        assert voiced(planted, seed) == told
        assert proves(told)
        assert (told.problem, told.kind, told.answer) == (planted.problem, planted.kind, planted.answer)
        assert (told.label == NO_ERROR) is (planted.label == NO_ERROR)
        assert len(told.checks) == (len(told.steps) if told.label == NO_ERROR else told.label + 1)
        checks = [check for checks in told.checks for check in checks]
        expected = [check for checks in planted.checks for check in checks]
        assert checks[: len(expected)] == expected
        repeated = [check.model_copy(update={"is_repeated": True}) for check in expected[-1:]]
        assert checks[len(expected) :] in ([], repeated)  # of an answer that is a step of its own
        for step, checks in zip(told.steps, told.checks, strict=False):
            assert all(check.claim in step.replace(",", "") for check in checks)
    assert len({voiced(planted, seed).steps for seed in range(8)}) > 4


def test_an_answer_that_is_only_said_again_is_compared_with_what_was_found():
    seen = 0
    for seed in range(40):
        *before, last = voiced(chosen(None), seed).checks
        if last and last[0].is_repeated:
            found = [check for checks in before for check in checks][-1]
            assert (len(last), last[0].claim, last[0].work) == (1, found.claim, found.work)
            assert last[0].code.startswith("print(found, ")
            seen += 1
    assert 10 < seen < 30


def test_facts_are_said_again():
    """What the problem gives stands in steps of its own, and before equations; neither is worked out."""
    problem = (
        "He buys 12 pens, and she has 3.50 dollars and two cats. 4 + x = 9. A pen costs $2. How much do 31 pens cost?"
    )
    facts = ("he buys 12 pens", "she has 3.50 dollars and two cats", "a pen costs $2")
    planted = chosen(None).model_copy(update={"problem": problem})
    own = begun = 0
    for seed in range(40):
        told = voiced(planted, seed)
        for step, checks in zip(told.steps, told.checks, strict=True):
            said = [fact for fact in facts if fact in step.lower()]
            own += bool(said) and not checks
            begun += bool(said) and bool(checks)
    assert min(own, begun) > 5


SOLVED = r"\d\)? = \W*\d"
"""An equation with a result."""


def test_an_equation_is_set_up_before_it_is_solved():
    """Nothing is worked out where a letter has no value yet; its numbers are known."""
    set_up = _told_like(r"\b[xynkTmpq] = \d[^=]*\d\W*$|= [xynkTmpq] ")
    apart = [step for _, step, checks in set_up if not checks]
    assert len(apart) > 10
    assert not any(re.search(SOLVED, step) for step in apart)
    assert all(told.is_grounded for told, _, _ in set_up)
    assert all(re.search(r"\d\D* = ", step) for _, step, checks in set_up if checks)  # the next one, in the same step


def test_what_has_a_letter_or_comes_to_no_result_is_not_worked_out():
    set_up = _told_like(
        r"\d[xynkTmpq]\b|[-+*/] [xynkTmpq]\b|\b[xynkTmpq] [-+*/]|calculate [\d.]+ [-+*/×]|expression \\\[ [\d.]+ "
    )
    apart = [step for _, step, checks in set_up if not checks]
    assert len(apart) > 15
    assert not any(re.search(SOLVED, step) for step in apart)
    assert len([step for step in apart if re.search(r"\d[xynkTmpq]\b", step)]) > 3


def _told_like(pattern: str) -> list[tuple[Planted, str, tuple[Check, ...]]]:
    """The steps in other words that a pattern finds: their solution, their text, and their checks."""
    return [
        (told, step, checks)
        for told in (voiced(planted, seed) for planted in PLANTED for seed in range(4))
        for step, checks in zip(told.steps, told.checks, strict=False)
        if re.search(pattern, step)
    ]


def test_a_result_that_is_said_again_in_its_step_is_one_claim():
    again = _told_like(r"(?:So it is|we have|This gives us|what we get is|result of this step is) -?\d")
    assert len(again) > 20
    for told, step, checks in again:
        assert len(checks) <= len(re.findall(r" = ", step)) or told.is_leap, step


def test_what_is_divided_by_a_letter_has_no_coefficient():
    """6 / 2x is not 6 / 2 * x."""
    worked = Planted(
        id="p", problem="Six, two.", answer="21", steps=("He has 6 / 2 * 7 = 21.",), label=NO_ERROR, kind=None,
        checks=((Check(claim="21", work="6 / 2 * 7"),),),
    )  # fmt: skip
    steps = [step for seed in range(600) for step in voiced(worked, seed).steps]
    found = {re.sub("[xynkTmpq]", "x", each) for step in steps for each in re.findall(r"6 / .(?: \* .)?", step)}
    assert {"6 / 2 * x", "6 / x * 7"} <= found
    assert [step for step in steps if re.search(r"/ [\d.]+[xynkTmpq]\b", step)] == []


@pytest.mark.parametrize(
    "planted", [told for told in map(voiced, PLANTED) if told.is_grounded], ids=lambda told: told.id
)
async def test_a_rationale_s_code_is_right_of_every_step(planted: Planted):
    """In one kernel, as it is run in use: a step that computes nothing looks its numbers up among the known."""
    parts = await _gold_parts(planted)
    kernel = dict[str, Any]()
    for index, (part, after) in enumerate(pairwise(parts)):
        code = part.partition("```python\n")[2]
        if after.startswith("That did not run"):
            with pytest.raises(NameError):
                _printed(code, kernel)
        else:
            assert ("False" in _printed(code, kernel)) is (index == planted.label), part


async def _gold_parts(planted: Planted) -> list[str]:
    """The rationale of a planted solution, cut where its code is run."""
    critic = GoldCritic([planted])
    messages = critique_messages(planted.problem, planted.steps)
    parts: list[str] = []
    for _ in range(1 + len(judged_steps(planted.steps, planted.label))):
        prompt = critic.render(messages, MARK.join([*parts, ""]))
        parts.append((await critic.complete(prompt, stop=[], max_tokens=1000, sampling=Sampling()))[0].text)
    return parts


async def test_code_that_fails_is_read_and_not_learned(local_sandbox: Sandbox):
    """Of a letter that has no value: what fails says nothing, and the step agrees."""
    planted = Planted(
        id="p",
        problem="Ana has 5 pens and buys 8.",
        answer="13",
        steps=("Let us see.", "Let x be all of them. Then x = 5 + 8.", "So x is 13."),
        label=NO_ERROR,
        kind=None,
        checks=((), (), (Check(claim="13", work="5 + 8"),)),
    )
    record = await synthesize(GoldCritic([planted]), local_sandbox, planted)
    assert record.kept is not None
    turn = record.kept.messages[4].content
    assert "NameError" in turn
    assert "That did not run" in turn
    assert "boxed{Yes}" in turn
    masked = masked_texts(record.kept)
    assert "found = x\nprint(found)\n```\n" in masked
    assert sum("found" in text for text in masked) == 1


WORK = r"\(*[\d.]+\)*(?: [-+*/] \(*[\d.]+\)*)+"


@pytest.mark.parametrize("planted", list(family_plants(82, errors=2)), ids=lambda planted: planted.id)
def test_other_words_claim_nothing_else(planted: Planted):
    for seed in range(3):
        told = " ".join(voiced(planted, seed).steps)
        plain = told.replace("\\times", "*").replace("\\div", "/").replace("×", "*").replace("÷", "/")
        plain = re.sub(r"\\frac{([^{}]+)}{([^{}]+)}", r"\1 / \2", plain)
        plain = re.sub(r" \\text{( [a-z]+)}", r"\1", plain)
        plain = re.sub(r"\$|(?<=\d),(?=\d{3})| [a-z]{3,}s(?=\)* [-+*/=] |\)*/)", "", plain)
        plain = re.sub(r"(?<=\d)\.00?\b|(?<=\.\d)0\b", "", plain)
        plain = re.sub(r"\(([\d.]+/[\d.]+)\)", r"\1", plain)
        plain = re.sub(r"(?<=[\d)])/(?=[\d(])", " / ", plain)
        plain = re.sub(r"(?<=[\d)]) x (?=[\d(])", " * ", plain)
        plain = re.sub(r"[\d.]+% of [\d.]+ = ", "", plain)
        plain = re.sub(rf"({WORK}) = {WORK}(?= = )", r"\1", plain)
        for equation in re.findall(r"[^\s$\\(]+(?: [-+*/^] \S+)+ = -?[\d.]*\d", plain):
            assert equation.lstrip("(") in " ".join((planted.problem, *planted.steps)), (told, planted.steps)


def test_a_number_from_nowhere():
    planted = chosen(None).model_copy(update={"steps": ("Let us see what 777 gives.",), "checks": ((),)})
    assert not planted.is_grounded
    assert planted.model_copy(update={"steps": ("Step 3: Let us see.",)}).is_grounded
    assert all(each.is_grounded for each in PLANTED)


def test_every_kind_can_be_planted():
    assert {planted.kind for planted in PLANTED} == {None, *Kind}


@pytest.mark.parametrize("kind", list(Kind))
def test_the_seed_decides_where_and_how(kind: Kind):
    for solution in SOLUTIONS:
        assert plant(solution, kind, 1) == plant(solution, kind, 1)
    assert any(plant(solution, kind, 1) != plant(solution, kind, 2) for solution in SOLUTIONS) or kind in (
        Kind.SIGN,
        Kind.UNIT,
    )


@pytest.mark.parametrize(
    "solution",
    [
        "It is <<1+1=3>>3.\n#### 3",  # a wrong mark
        "It is two and two = <<2+2=4>>4.\n#### 4",  # not written as in the mark
        "It is 2+2=<<2+2=4>>4.\n#### 5",  # another answer
        "It is 1/3=<<1/3=0.33>>0.33.\n#### 0.33",  # rounded
        "It is 2+2=<<2+2=4>>4 {braces}.\n#### 4",
        "Nothing is computed.\n#### 4",
        "",
    ],
)
def test_solutions_that_cannot_be_worked_out_anew(solution: str):
    assert read_worked("w", "What is 2 and 2?", solution) is None


def test_a_solution_is_read_as_it_reads():
    worked = read_worked("w", "Pens cost $3. Tom buys 4.", "He pays 4 x 3 = $<<4*3=12>>12.\nThat is all.\n#### 12")
    assert worked is not None
    assert worked.texts() == ("He pays 4 * 3 = 12.", "That is all.")
    assert worked.steps[0].computation.sources == (-1, -1)


# Critiques


async def test_validate_on_our_own_solutions(local_sandbox: Sandbox):
    lines = await validate(PLANTED, local_sandbox)
    assert [line.name for line in lines if not line.passed] == []
    assert sum(line.tried for line in lines) > 300


@pytest.mark.parametrize("kind", [None, Kind.WRONG_OPERATION])
async def test_what_is_kept_says_what_the_model_did_not_write(local_sandbox: Sandbox, kind: Kind | None):
    planted = chosen(kind)
    record = await synthesize(GoldCritic([planted]), local_sandbox, planted)
    kept = record.kept
    assert kept is not None
    roles = [message.role for message in kept.messages]
    judged = len(planted.steps) if planted.label == NO_ERROR else planted.label + 1
    assert roles == ["system"] + ["user", "assistant"] * judged
    assert kept.messages[1].content == f"Question: {planted.problem}\n\n{planted.steps[0]}"
    answers = [message.content for message in kept.messages if message.role == "assistant"]
    words = ["No" if index == planted.label else "Yes" for index in range(judged)]
    assert [f"boxed{{{word}}}" in answer for word, answer in zip(words, answers, strict=True)] == [True] * judged
    masked = masked_texts(kept)
    outputs = [text for text in masked if text.startswith("[Code Output]\n\n```\n") and text.endswith("\n```\n")]
    assert len(outputs) == judged
    assert masked.count(JUDGEMENT) == masked.count(JUDGEMENT_END) == judged
    assert masked.count(VERIFY) == len(outputs)
    assert all(text.count("[Code Output]") == 1 for text in answers if "```python" in text)


async def test_a_step_that_computes_nothing(local_sandbox: Sandbox):
    planted = Planted(
        id="p",
        problem="Patricia has 30 roses.",
        answer="30",
        steps=("Patricia had 30 roses on day 1.", "First, 2 things are asked."),
        label=NO_ERROR,
        kind=None,
        checks=((), ()),
    )
    record = await synthesize(GoldCritic([planted]), local_sandbox, planted)
    assert record.kept is not None
    first, second = (message.content for message in record.kept.messages if message.role == "assistant")
    assert "```python\nimport math\n# nothing to work out\n```\n[Code Output]\n\n```\n\n```\n" in first
    assert "```python\n# nothing to work out\n```" in second


async def test_planted_errors_as_thinkprm_chains():
    """Without a sandbox: in these the right value stands in words, and the chain ends with the first error."""
    options = SynthOptions(tries=1, style=SynthStyle.THINKPRM)
    for planted in PLANTED:
        kept = (await synthesize(GoldCritic([planted]), None, planted, options)).kept
        assert kept is not None
        assert [message.role for message in kept.messages] == ["user", "assistant"]
        chain = kept.messages[1].content
        verdicts = [vote.verdict for vote in read_verified(chain, len(planted.steps), StopReason.JUDGED)]
        judged = len(planted.steps) if planted.label == NO_ERROR else planted.label
        wrong = [] if planted.label == NO_ERROR else [Verdict.INCORRECT]
        assert verdicts[: judged + 1] == [Verdict.CORRECT] * judged + wrong
        assert chain.endswith(" Yes" if planted.label == NO_ERROR else " No")
        if planted.kind is Kind.ARITHMETIC_SLIP:
            [check] = planted.checks[planted.label]
            value = evaluate(check.work, ())
            assert value is not None
            assert f"{check.work} = {shown(value)}. The step says {check.claim}." in chain


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_faulty_rationale_is_rejected_for_its_fault(local_sandbox: Sandbox, fault: Reason):
    planted = chosen(None if fault is Reason.FALSE_ALARM else Kind.ARITHMETIC_SLIP)
    record = await synthesize(GoldCritic([planted], fault), local_sandbox, planted)
    assert [attempt.reason for attempt in record.attempts] == [fault]
    assert record.kept is None


async def test_tries_go_on_until_one_is_kept(local_sandbox: Sandbox):
    planted = chosen(None)
    right = GoldCritic([planted])

    class Learning(GoldCritic):
        calls = 0

        async def complete(self, prompt: str, **options: Any) -> list[Completion]:
            if prompt.endswith("\x1e"):  # the beginning of a rationale
                self.calls += 1
            return await (super().complete if self.calls < 3 else right.complete)(prompt, **options)

    critic = Learning([planted], Reason.NO_SUCH_STEP)
    notes: dict[str, Any] = {}
    record = await synthesize(critic, local_sandbox, planted, SynthOptions(tries=8), note=notes.__setitem__)
    assert [attempt.reason for attempt in record.attempts] == [Reason.NO_SUCH_STEP, Reason.NO_SUCH_STEP, None]
    assert list(notes) == ["attempt/0", "attempt/1", "attempt/2"]
    again = await synthesize(right, None, planted, SynthOptions(tries=8), known=json.loads(json.dumps(notes)))
    assert again == record


class Broken(GoldCritic):
    """Fails when it is asked."""

    error: Exception = ModelError("the server refuses")

    async def complete(self, prompt: str, **options: Any) -> list[Completion]:
        raise self.error


@pytest.mark.parametrize("error", [ModelError("the server refuses"), SandboxLostError("gone")])
async def test_failures_are_no_rejections(local_sandbox: Sandbox, error: Exception):
    planted = chosen(None)
    critic = Broken([planted])
    critic.error = error
    record = await synthesize(critic, local_sandbox, planted)
    assert record.failed
    assert record.attempts[0].error == f"{type(error).__name__}: {error}"


@given(st.lists(st.sampled_from([
    "### Paragraph 1\n", "### Paragraph 2\n", "<analyze>\na\n</analyze>\n", "<verify>\n", "```python\nx\n```\n",
    "</verify>\n", "\\boxed{-1}", "\\boxed{1}", "\\boxed{9}", "[Code Output]", "```", "text ",
]), max_size=14), st.integers(1, 3))  # fmt: skip
def test_any_text_is_read_or_rejected(parts: list[str], steps: int):
    read = read_critique(Critique(text="".join(parts)), steps)
    if not isinstance(read, Reason):
        judged = steps if read.first_error == NO_ERROR else read.first_error + 1
        assert len(read.rationales) == judged
        transcript = genprm_transcript("P", ["s"] * steps, read.rationales, read.first_error)
        assert len(transcript.messages) == 1 + 2 * judged


@pytest.mark.parametrize(
    ("ending", "judged"),
    [
        ("", Reason.NO_VERDICT),
        ("The first wrong paragraph: \\boxed{-1}", NO_ERROR),
        (FORCED + "1}", 0),
        ("<verify>\nhalf a part: \\boxed{1}", Reason.NO_VERDICT),
        ("<verify>\nhalf a part: \\boxed{1}" + FORCED + "-1}", Reason.MISSING_SECTION),
    ],
)
def test_a_box_that_is_quoted_is_no_verdict(ending: str, judged: int | Reason):
    text = "### Paragraph 1\n<analyze>\nIt says that the answer is \\boxed{1}, which follows.\n</analyze>\n" + ending
    read = read_critique(Critique(text=text), 1)
    assert (read if isinstance(read, Reason) else read.first_error) == judged


class Writes(ModelBackend):
    """Writes a text, from stop string to stop string."""

    name = "writes"

    def __init__(self, text: str) -> None:
        self._left = text

    async def complete(
        self, prompt: str, *, stop: Sequence[str], max_tokens: int, logprobs: int = 0, n: int = 1, sampling: Sampling
    ) -> list[Completion]:
        text, found, self._left = self._left.partition(stop[0])
        ended = FinishReason.STOP if found else FinishReason.END
        return [Completion(text=text, finish_reason=ended, prompt_tokens=1, completion_tokens=1)]

    def render(self, messages: Sequence[Message], prefix: str) -> str:
        return prefix

    async def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("analysis", "check", "reason"),
    [
        ("It is\n```\n42\n```\nby the problem.", "```python\nprint(42)\n```\nIt is.", None),
        ("It is.", "```python\nprint('```')\n```\nIt is.", None),
        ("It is.", "```python\nprint(42)\n```\nSo:\n```\n42\n```\nIt is.", None),
        ("It is.", "```python\nprint(42)\n``` \nIt is.", Reason.UNRUN_CODE),
        ("It is.", "```python3\nprint(42)\n```\nIt is.", Reason.UNRUN_CODE),
    ],
)
async def test_blocks_that_are_code_and_blocks_that_are_none(
    local_sandbox: Sandbox, analysis: str, check: str, reason: Reason | None
):
    planted = Planted(id="p", problem="P", answer="42", steps=("It is 42.",), label=NO_ERROR, kind=None, checks=((),))
    text = f"### Paragraph 1\n<analyze>\n{analysis}\n</analyze>\n<verify>\n{check}\n</verify>\n\n\\boxed{{-1}}"
    record = await synthesize(Writes(text), local_sandbox, planted)
    assert [attempt.reason for attempt in record.attempts] == [reason]
    if record.kept is not None:
        turn = record.kept.messages[-1].content
        assert turn.count("[Code Output]") == 1
        assert analysis in turn


def test_a_problem_with_braces_is_asked_as_it_is():
    content = critique_messages("What is {x} in \\frac{1}{x}?", ["{paragraphs}"])[1]["content"]
    assert "What is {x} in \\frac{1}{x}?" in content
    assert "<paragraph_1>\n{paragraphs}\n</paragraph_1>" in content


def test_code_output_with_a_fence_in_it_is_masked_as_a_whole():
    segments = [
        Segment(kind=SegmentKind.ANALYSIS, text="a"),
        Segment(kind=SegmentKind.CODE, text="print('```')"),
        Segment(kind=SegmentKind.OUTPUT, text="```\n[Code Output]"),
    ]
    transcript = genprm_transcript("P", ["s"], [segments], NO_ERROR)
    assert masked_texts(transcript) == [
        ANALYZE.format(step=1), VERIFY, "[Code Output]\n\n```\n```\n[Code Output]\n```\n", JUDGEMENT, JUDGEMENT_END,
    ]  # fmt: skip


# The other styles


async def test_step_by_step(local_sandbox: Sandbox):
    script = [
        ScriptRule(when=r"```python\n$", text="print(6 * 7)\n```\n"),
        ScriptRule(when="step by step: $", text="It looks right.</analyze>\n"),
        ScriptRule(when=r"boxed\{$", yes=0.9),
        ScriptRule(text="So it is.\n</verify>\n<output>\n"),
    ]
    options = SynthOptions(tries=1, style=SynthStyle.GENPRM_STEP)
    right = await synthesize(ScriptedModel(script), local_sandbox, chosen(None), options)
    assert right.kept is not None
    assert masked_texts(right.kept).count(VERIFY) == len(chosen(None).steps)
    wrong = await synthesize(ScriptedModel(script), local_sandbox, chosen(Kind.ARITHMETIC_SLIP), options)
    assert [attempt.reason for attempt in wrong.attempts] == [Reason.MISSED_ERROR]


async def test_an_output_that_no_code_has_printed(local_sandbox: Sandbox):
    forged = "```python\nprint(42)\n```\n[Code Output]\n\n```\n42\n```\nIt is.</analyze>\n"
    script = [
        ScriptRule(when="step by step: $", text=forged),
        ScriptRule(when=r"boxed\{$", yes=0.9),
        ScriptRule(text="So it is.\n</verify>\n<output>\n"),
    ]
    options = SynthOptions(tries=1, style=SynthStyle.GENPRM_STEP)
    record = await synthesize(ScriptedModel(script), local_sandbox, chosen(None), options)
    assert [attempt.reason for attempt in record.attempts] == [Reason.FORGED_OUTPUT]


@pytest.mark.parametrize(
    ("fence", "shown"),
    [("```python\n", ["a\ufffdb"]), ("```python \n", ["a\ufffdb"]), ("```text\n", [])],
)
async def test_what_was_printed_is_no_target(local_sandbox: Sandbox, fence: str, shown: list[str]):
    """However the model opens its block; and a NUL in it, or in the model's own text, is no character."""
    parts = [
        f"### Paragraph 1\n<analyze>\nIt \0 is.\n</analyze>\n<verify>\n{fence}print('a', 'b', sep=chr(0))\n```\n",
        "So it is.\n</verify>\n\n\\boxed{-1}",
    ]

    class Critic(GoldCritic):
        async def complete(self, prompt: str, *, stop: Sequence[str], **_: Any) -> list[Completion]:
            rest = "".join(parts)[len(prompt.partition("\x1e")[2].replace("".join(map(told, shown)), "")) :]
            text = rest.partition(stop[0])[0]
            return [Completion(text=text, finish_reason="stop", completion_tokens=5)]

    planted = chosen(None).model_copy(update={"steps": ("It is.",), "checks": ((),)})
    record = await synthesize(Critic([planted]), local_sandbox, planted)
    assert record.kept is not None, record.attempts
    [answer] = [turn.content for turn in record.kept.messages if turn.role == "assistant"]
    assert "It \ufffd is." in answer
    for output in shown:
        assert told(output) in answer
        assert any(output in masked for masked in masked_texts(record.kept))
    assert not any("ab" in target or "[Code Output]" in target for target in targets(record.kept))


def told(output: str) -> str:
    """As the model is told what its code printed."""
    return CODE_OUTPUT.format(output=output)


def targets(record: Transcript) -> list[str]:
    """What is learned of each answer."""
    found: dict[int, list[str]] = {}
    for number, message in enumerate(record.messages):
        if message.role == "assistant":
            kept = list(message.content)
            for at in record.masked:
                if at.message == number:
                    kept[at.start : at.end] = [""] * (at.end - at.start)
            found[number] = kept
    return ["".join(kept) for kept in found.values()]


@pytest.mark.parametrize("filter", list(Filter))
async def test_what_the_verifier_ended_for_the_model_is_no_target(filter: Filter, local_sandbox: Sandbox):
    """The analysis runs into its limit; the code, where it does too, is a rationale without an end."""
    script = [
        ScriptRule(when=r"```python\n$", text="print(6 * 7)\n```\n"),
        ScriptRule(when="step by step: $", text="It looks right, since it says so, and so on, and on and on."),
        ScriptRule(when=r"boxed\{$", yes=0.9),
        ScriptRule(text="So it is.\n</verify>\n<output>\n"),
    ]
    budget = Budget(step_tokens=300, analysis_tokens=5)
    options = SynthOptions(tries=1, style=SynthStyle.GENPRM_STEP, filter=filter, budget=budget)
    record = await synthesize(ScriptedModel(script), local_sandbox, chosen(None), options)
    assert record.kept is not None
    for target in targets(record.kept):
        assert "</analyze>" not in target
        assert target.endswith("print(6 * 7)\n```\nSo it is.\n</verify>\n<output>\nYes")
    budget = Budget(step_tokens=7, analysis_tokens=5)
    options = SynthOptions(tries=1, style=SynthStyle.GENPRM_STEP, filter=filter, budget=budget)
    record = await synthesize(ScriptedModel(script), local_sandbox, chosen(None), options)
    if filter is Filter.LABELS:
        assert record.kept is not None
        assert all("```\n" not in target and "</verify>" not in target for target in targets(record.kept))
    else:
        assert [attempt.reason for attempt in record.attempts] == [Reason.TOO_LONG]


async def test_verdicts_of_the_labels(local_sandbox: Sandbox):
    """It says Yes to all: of the wrong step only the verdict is a target, and there it is No."""
    script = [
        ScriptRule(when=r"```python\n$", text="print(6 * 7)\n```\n"),
        ScriptRule(when="step by step: $", text="It looks right.</analyze>\n"),
        ScriptRule(when=r"boxed\{$", yes=0.9),
        ScriptRule(text="So it is.\n</verify>\n<output>\n"),
    ]
    options = SynthOptions(tries=1, style=SynthStyle.GENPRM_STEP, filter=Filter.LABELS)
    planted = chosen(Kind.ARITHMETIC_SLIP)
    record = await synthesize(ScriptedModel(script), local_sandbox, planted, options)
    assert record.kept is not None
    *agreed, differed = targets(record.kept)
    assert len(agreed) == planted.label > 0
    written = "It looks right.</analyze>\nprint(6 * 7)\n```\nSo it is.\n</verify>\n<output>\nYes"
    assert set(agreed) == {written}
    assert differed == "No"
    assert record.kept.messages[-1].content.endswith("[Code Output]\n\n```\n42\n```\n" + judged("No"))
    assert record.kept.messages[-3].content.endswith(judged("Yes"))
    assert targets(without_verdicts(record.kept, [0]))[0] == written.removesuffix("Yes")


def judged(word: str) -> str:
    return f"So it is.\n</verify>\n<output>\n{JUDGEMENT}{word}{JUDGEMENT_END}"


def test_right_steps_per_wrong_one():
    rows = [labelled(planted) for planted in PLANTED]
    steps = [(row.id, step) for row in rows for step in range(len(row.steps) if row.label == NO_ERROR else row.label)]
    masked = verdicts_to_mask(rows, 0.5)
    assert masked < set(steps)
    assert verdicts_to_mask(reversed(rows), 0.5) == masked
    for place in range(max(len(row.steps) for row in rows)):
        wrong = sum(row.label == place for row in rows)
        kept = [step for step in steps if step[1] == place and step not in masked]
        assert len(kept) == round(0.5 * wrong), "as many as are wrong at the same place, or it would tell them apart"
    everywhere = {row.label for row in rows}
    assert {place for _, place in verdicts_to_mask(rows, 1000)}.isdisjoint(everywhere)


def test_labels_in_the_place_of_verdicts_are_for_one_style():
    with pytest.raises(ValueError, match="goes with --style genprm-step only"):
        SynthOptions(filter=Filter.LABELS)
    with pytest.raises(ValueError, match="goes with --filter labels only"):
        SynthOptions(style=SynthStyle.GENPRM_STEP, right_per_wrong=2)


def chain(*verdicts: str) -> str:
    return "\n".join(f"Step {n}: hm. The step is \\boxed{{{v}}}" for n, v in enumerate(verdicts, 1)) + "\nDone."


@pytest.mark.parametrize(
    ("verdicts", "read"),
    [
        (["correct"] * 3, -1),
        (["correct", "incorrect"], 1),
        (["correct", "incorrect", "correct"], 1),
        (["correct", "\\text{incorrect}"], 1),
        (["correct", "correct"], Reason.MISSING_SECTION),
        (["correct"] * 4, Reason.NO_SUCH_STEP),
        ([], Reason.NO_VERDICT),
        (["incorrect"], 0),
    ],
)
def test_thinkprm_chains(verdicts: Sequence[str], read: int | Reason):
    found = read_chain("Let's verify step by step:\n" + chain(*verdicts), 3)
    if isinstance(read, Reason):
        assert found is read
    else:
        assert not isinstance(found, Reason)
        assert found[1] == read
        assert found[0].endswith("}")


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("Step 1: \\boxed{correct}\nStep 3: \\boxed{incorrect}", Reason.MISSING_SECTION),
        ("Step 2: \\boxed{correct}\nStep 1: \\boxed{incorrect}", Reason.MISSING_SECTION),
        ("Step 1: \\boxed{correct}, no: \\boxed{incorrect}", Reason.MISSING_SECTION),
        ("Step 7: \\boxed{incorrect}", Reason.NO_SUCH_STEP),
        ("It is \\boxed{correct}, and then \\boxed{incorrect}", 1),
    ],
)
def test_a_chain_names_its_steps_in_their_order(text: str, read: int | Reason):
    found = read_chain(text, 3)
    assert (found if isinstance(found, Reason) else found[1]) == read


def test_two_rows_with_one_id(tmp_path: Path):
    row = {"id": "x", "problem": "p", "steps": ["s"], "label": 0}
    (tmp_path / "rows.jsonl").write_text(f"{json.dumps(row)}\n{json.dumps(row | {'label': -1})}\n")
    with pytest.raises(InputError, match="two rows with the id x"):
        list(read_labelled(tmp_path / "rows.jsonl"))


@pytest.mark.parametrize("kind", [None, Kind.WRONG_OPERAND])
async def test_thinkprm_records(kind: Kind | None):
    planted = chosen(kind)
    verdicts = ["correct"] * len(planted.steps) if kind is None else ["correct"] * planted.label + ["incorrect"]
    model = ScriptedModel([ScriptRule(text=f"\n{chain(*verdicts)}")])
    record = await synthesize(model, None, planted, SynthOptions(tries=1, style=SynthStyle.THINKPRM))
    assert record.kept is not None
    question, answer = (message.content for message in record.kept.messages)
    assert question == asked(planted.problem, planted.steps)
    assert "stop after" not in question.lower()
    assert answer.startswith("<think>\nLet's verify step by step:\nStep 1: ")
    assert answer.endswith("}\n</think>\nIs the solution correct? " + ("Yes" if kind is None else "No"))


# The job


async def job(folder: Path, sandbox: Sandbox, rows: Sequence[Planted], options: SynthOptions) -> RunFolder:
    run = open_synth_run(folder, options, "planted", take_input(map(labelled, rows), folder))
    with run:
        await run_synth_job(run, GoldCritic(rows), sandbox, options)
        write_data(run, options, "planted")
    return run


async def test_data_is_balanced_and_loads(tmp_path: Path, local_sandbox: Sandbox):
    import datasets

    rows = PLANTED[:24]
    await job(tmp_path / "data", local_sandbox, rows, SynthOptions(tries=1))
    loaded = datasets.load_dataset(
        "parquet", data_files=str(tmp_path / "data" / "train.parquet"), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert [row["label"] == -1 for row in loaded].count(True) * 2 == len(loaded)
    first = loaded[0]
    assert {"role", "content"} == set(first["messages"][0])
    texts = [first["messages"][at["message"]]["content"][at["start"] : at["end"]] for at in first["masked"]]
    assert any(text.startswith("[Code Output]") for text in texts)
    lines = [json.loads(line) for line in (tmp_path / "data" / "train.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == loaded["id"]
    assert "unbalanced" in (tmp_path / "data" / "README.md").read_text()


async def test_the_same_data_twice(tmp_path: Path, local_sandbox: Sandbox):
    for name in ("one", "other"):
        await job(tmp_path / name, local_sandbox, PLANTED[:12], SynthOptions(tries=1, balance=False))
    for name in ("train.jsonl", "train.parquet", "README.md", "plots/rejections.png"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "other" / name).read_bytes()


def test_labelled_rows_survive_json():
    for planted in PLANTED:
        row = labelled(planted)
        assert LabelledSolution.model_validate_json(row.model_dump_json()) == row


def test_rows_without_worked_solutions(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"question": "Q", "answer": "no marks\\n#### 5"}\n')
    with pytest.raises(InputError, match="no solution in it that can be worked out anew"):
        worked_solutions(str(path))
    path.write_text('{"problem": "Q"}\n')
    with pytest.raises(InputError, match="line 1: expected the fields question and answer"):
        worked_solutions(str(path))


# What a job leaves alone, and what it does again


async def test_what_failed_is_written_by_the_next_run(tmp_path: Path):
    rows = list(map(labelled, PLANTED[:3]))
    options = SynthOptions(style=SynthStyle.THINKPRM, tries=2, balance=False)
    healthy = GoldCritic(PLANTED[:3])
    failing = Broken(PLANTED[:3])
    failing.error = ModelError("away for a moment")
    for critic, failed in ((failing, 3), (healthy, 0)):
        with open_synth_run(tmp_path / "run", options, "planted", take_input(rows, tmp_path / "run")) as run:
            await run_synth_job(run, critic, None, options)
            summary = write_data(run, options, "planted")
        assert (summary.failed, summary.written) == (failed, 0 if failed else len(summary.agreeing))
    assert len(summary.agreeing) == 3


def test_a_folder_of_somebody_elses_files_is_left_alone(tmp_path: Path):
    (tmp_path / "input.jsonl").write_text("mine\n")
    with pytest.raises(OutputError, match=r"no run in it, but input\.jsonl: choose a new folder"):
        take_input(map(labelled, PLANTED[:1]), tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["input.jsonl"]
    assert (tmp_path / "input.jsonl").read_text() == "mine\n"


def test_an_input_that_was_changed_is_refused(tmp_path: Path):
    """Two commands that begin at once with different inputs come to this as well."""
    folder, options = tmp_path / "run", SynthOptions()
    mark = take_input(map(labelled, PLANTED[:2]), folder)
    (folder / "input.jsonl").write_bytes(b"")
    with pytest.raises(OutputError, match="not the input that the run was begun with"):
        open_synth_run(folder, options, "planted", mark)
    assert not folder.exists(), "nothing was in it"
    take_input(map(labelled, PLANTED[:2]), folder)
    (folder / "input.jsonl").unlink()
    with pytest.raises(OutputError, match="No such file"):
        open_synth_run(folder, options, "planted", mark)


async def test_the_outcome_filter_counts_what_a_rationale_says(tmp_path: Path):
    """A right answer by a step that the labels call wrong: who finds no error is kept, as a record without one."""
    right = next(planted for planted in PLANTED if planted.kind is None)
    row = labelled(right).model_copy(update={"label": 0, "correct": True})
    options = SynthOptions(style=SynthStyle.THINKPRM, filter=Filter.OUTCOME)
    with open_synth_run(tmp_path / "run", options, "planted", take_input([row], tmp_path / "run")) as run:
        await run_synth_job(run, GoldCritic([right]), None, options)
        summary = write_data(run, options, "planted")
    assert (summary.written, summary.with_error) == (1, 0)
    assert json.loads((tmp_path / "run" / "train.jsonl").read_text())["label"] == NO_ERROR


# Planted text


def test_a_wrong_step_does_not_name_the_right_result():
    worked = read_worked(
        "w", "Tom has 16 red pizzas with 2 slices each, and eats all twice.",
        "Of 32 slices, 16*2=<<16*2=32>>32, he eats each.\nThe 32 slices are 32*2=<<32*2=64>>64.\n#### 64",
    )  # fmt: skip
    assert worked is not None
    for seed in range(20):
        planted = plant(worked, Kind.WRONG_OPERATION, seed)
        assert planted is not None
        named = [re.findall(r"\b(?:32|64)\b", step) for step in planted.steps]
        assert named == ([[], []] if planted.label == 0 else [["32", "32"], ["32", "32"]]), planted.steps


def test_a_number_before_a_comma_is_given_by_the_problem():
    worked = read_worked("w", "Of 1,200 pens, 12, at most, are red.", "12*100=<<12*100=1200>>1200\n#### 1200")
    assert worked is not None
    assert worked.steps[0].computation.sources == (-1, None)


def test_no_text_is_planted_twice():
    for solution in SOLUTIONS:
        texts = [planted.steps for planted in plants([solution])]
        assert len(texts) == len(set(texts))


def test_two_rows_with_one_id_are_refused(tmp_path: Path):
    row = json.dumps({"id": "a", "question": "Of 2 and 3, the sum?", "answer": "2+3=<<2+3=5>>5\n#### 5"}) + "\n"
    (tmp_path / "rows.jsonl").write_text(row * 2)
    with pytest.raises(InputError, match="line 2: a second row with the id a"):
        worked_solutions(str(tmp_path / "rows.jsonl"))


def test_a_mark_that_no_parser_takes_is_no_worked_solution():
    assert read_worked("w", "P", f"<<{'-' * 20_000}1=1>>1\n#### 1") is None
