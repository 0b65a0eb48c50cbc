"""Every style through transcripts of real shape, and the traps of the reference codes, numbered.

 1. ThinkPRM: a chain of twelve steps has twelve verdicts (reference: compares step numbers as strings).
 2. ThinkPRM: a chain that contains ``<think>`` keeps its text (reference: everything behind the tag is lost).
 3. ThinkPRM: the solution is scored on " Yes" against " No", as trained (reference: lower-case words).
 4. ThinkPRM: a failure is unscored (reference: an exception scores 0).
 5. ThinkPRM: each further round begins with another phrase, and the closing tag is taken away before it.
 6. Judge: the last box counts, and an index that names no step is no answer.
 7. Discriminative: each earlier step is followed by a plus, whatever was read there.
 8. GenPRM: the verdict is the score's, and a missing one is never 0.5 (see test_semantics, 11 to 13).
 9. StepWiser: boxed mathematics in the analysis is no verdict.
10. A verdict word of several tokens is scored whole: its first piece may begin other words.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence

import pytest

from genprm import AsyncVerifier, Budget, ParseStatus, Solution, StopReason
from genprm.errors import ContextFullError
from genprm.models.base import Completion, FinishReason
from genprm.models.scripted import Rule, ScriptedModel
from genprm.records import SegmentKind, Verification
from genprm.styles import STYLES, Direct, Discriminative, GenPRM, History, Judge, PRMFormat, StepWiser, Style, ThinkPRM
from genprm.styles.known import prm_format, style_warning, trained_style
from genprm.styles.thinkprm import QUESTION, TRIGGERS, read_chain

CHAIN = (
    "\nStep 1: The price is 3 and there are 4 pens, so 12 is right. The step is \\boxed{correct}\n"
    "Step 2: 20 - 12 is 8, which may be written \\boxed{8}, and not 9. The step is \\boxed{\\text{incorrect}}"
)


async def verify(model: ScriptedModel, style: Style, steps: int = 2, **options) -> Verification:
    async with AsyncVerifier(model, None, style=style, **options) as verifier:
        return await verifier.verify("Six times seven?", [f"Claim {n}." for n in range(1, steps + 1)])


def says(*rules: Rule) -> ScriptedModel:
    return ScriptedModel(rules)


def scores(report: Verification) -> list[float | None]:
    return [step.score for step in report.steps]


# ThinkPRM


def thinker(text: str, yes: float = 0.2) -> ScriptedModel:
    return says(Rule(when=r"Is the solution correct\?$", yes=yes), Rule(text=text))


async def test_thinkprm():
    model = thinker(f"{CHAIN}\n</think>\nIs the solution correct? No")
    report = await verify(model, ThinkPRM(), steps=3)
    assert scores(report) == [1.0, 0.0, None]
    assert (report.first_error, report.unscored, report.score) == (1, 0, pytest.approx(0.2))
    assert report.steps[2].stop_reason is StopReason.AFTER_ERROR
    assert report.whole is not None
    assert report.whole.votes[0].segments[0].text == "No"
    kinds = [segment.kind for segment in report.steps[1].segments]
    assert kinds == [SegmentKind.ANALYSIS, SegmentKind.JUDGEMENT]
    asked, judged = model.prompts
    assert "[Math Problem]\n\nSix times seven?\n\n[Solution]\n\nStep 1: Claim 1.\nStep 2: Claim 2." in asked
    behind = asked.partition("Step 3: Claim 3.")[2]
    assert "Examine every step" in behind, "so the released models were trained: what is asked stands behind"
    assert asked.endswith("<|assistant|>\nLet's verify step by step:")
    assert judged == f"{asked}{CHAIN}\n</think>\n{QUESTION}"


def test_1_twelve_steps_have_twelve_verdicts():
    text = "".join(f"\nStep {n}: Fine. The step is \\boxed{{correct}}" for n in range(1, 12))
    votes = read_chain(f"{text}\nStep 12: No. \\boxed{{incorrect}}", 12, StopReason.JUDGED)
    assert [vote.score for vote in votes] == [1.0] * 11 + [0.0]


async def test_2_a_thinking_tag_in_the_chain():
    report = await verify(thinker(f"<think>{CHAIN}"), ThinkPRM())
    assert scores(report) == [1.0, 0.0]


async def test_3_and_4_no_answer_to_the_question_is_no_score():
    report = await verify(says(Rule(when=r"correct\?$", text="maybe"), Rule(text=CHAIN)), ThinkPRM())
    assert report.score is None
    assert report.whole.votes[0].parse is ParseStatus.NO_VERDICT_TOKEN
    assert report.first_error == 1


async def test_5_rounds():
    model = thinker(f"{CHAIN}\n</think>")
    report = await verify(model, ThinkPRM(rounds=4))
    assert report.usage.model_calls == 5
    for trigger, prompt in zip(TRIGGERS, model.prompts[1:4], strict=True):
        assert prompt.endswith(f"\n\n{trigger}")
        assert "</think>" not in prompt
    with pytest.raises(ValueError, match="expected 1 to 4"):
        ThinkPRM(rounds=5)


async def test_5_a_later_round_may_change_its_mind():
    def answer(prompt: str) -> Rule:
        if prompt.endswith(QUESTION):
            return Rule(yes=0.9)
        if prompt.endswith(TRIGGERS[0]):
            return Rule(text=".\nStep 2: It is 8 after all, as it says. The step is \\boxed{correct}")
        return Rule(text=CHAIN)

    report = await verify(ScriptedModel(answer), ThinkPRM(rounds=2))
    assert scores(report) == [1.0, 1.0]
    said = [segment.text for segment in report.steps[1].segments if segment.kind is SegmentKind.JUDGEMENT]
    assert said == ["incorrect", "correct"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("**Step 1:** ok \\boxed{correct}\n### Step 2: bad \\boxed{incorrect}", ["ok", "ok"]),
        ("ok \\boxed{correct} and bad \\boxed{incorrect}", ["ok", "ok"]),
        ("", ["empty", "empty"]),
        ("Step 1: it holds.\nStep 2: \\boxed{correct}", ["missing", "ok"]),
        ("Step 1: it is \\boxed{fine}\nStep 2: \\boxed{correct}", ["unknown_word", "ok"]),
        ("Step 1: \\boxed{correct}\nStep 7: \\boxed{incorrect}", ["ok", "missing"]),
        ("step 1. \\boxed{ Incorrect }", ["ok", "not_asked"]),
    ],
)
def test_chains_of_every_shape(text: str, expected: list[str]):
    assert [vote.parse.value for vote in read_chain(text, 2, StopReason.JUDGED)] == expected


@pytest.mark.parametrize(
    ("last", "score"),
    [
        ("it holds. \\boxed{correct}\n\nOverall, the reasoning is \\boxed{incorrect}", 1.0),
        ("it holds. \\boxed{correct} So the solution is \\boxed{incorrect}.", 1.0),
        ("it holds. \\boxed{correct} Wait. The solution is odd. It is \\boxed{incorrect}", 0.0),
        ("Therefore the solution is \\boxed{incorrect}", 0.0),
    ],
)
def test_a_verdict_on_the_solution_is_none_on_its_last_step(last: str, score: float):
    votes = read_chain(f"Step 1: \\boxed{{correct}}\nStep 2: {last}", 2, StopReason.JUDGED)
    assert [vote.score for vote in votes] == [1.0, score]


def test_a_number_of_thousands_of_digits():
    """A model that repeats itself; Python refuses to read such a number."""
    text = "Step " + "1" * 5000 + ": \\boxed{correct}\nStep 1: \\boxed{correct}"
    assert read_chain(text, 1, StopReason.JUDGED)[0].score is not None


def test_a_chain_that_was_cut_off():
    votes = read_chain("Step 1: \\boxed{correct}\nStep 2: on and on", 2, StopReason.TOKEN_BUDGET)
    assert [vote.parse for vote in votes] == [ParseStatus.OK, ParseStatus.TRUNCATED]


def full_at(pattern: str, text: str) -> ScriptedModel:
    """A model whose context is full once a prompt is like this."""
    model = thinker(text)
    complete = model.complete

    async def completing(prompt: str, **options):
        if re.search(pattern, prompt):
            raise ContextFullError("full")
        return await complete(prompt, **options)

    model.complete = completing
    return model


async def test_a_context_that_is_full_in_a_later_round_costs_no_verdict():
    report = await verify(full_at(TRIGGERS[0], CHAIN), ThinkPRM(rounds=2))
    assert (scores(report), report.score) == ([1.0, 0.0], pytest.approx(0.2))


async def test_a_solution_that_was_not_judged_as_a_whole_has_no_score():
    report = await verify(full_at(r"correct\?$", CHAIN), ThinkPRM())
    assert (scores(report), report.score) == ([1.0, 0.0], None)
    assert report.whole is not None
    assert report.whole.votes[0].stop_reason is StopReason.CONTEXT_FULL


async def test_a_long_chain_is_ended_and_judged():
    report = await verify(thinker("word " * 1000), ThinkPRM(), budget=Budget(chain_tokens=50))
    assert report.usage.completion_tokens == 51
    assert report.score == pytest.approx(0.2)
    assert {step.parse for step in report.steps} == {ParseStatus.TRUNCATED}


@pytest.mark.parametrize(("wanted", "most"), [(None, 8192), (9000, 9000)])
async def test_a_text_has_an_end_where_the_budget_names_none(wanted: int | None, most: int):
    long = "word " * 10_000
    report = await verify(thinker(long), ThinkPRM(), budget=Budget(chain_tokens=wanted))
    assert report.usage.completion_tokens == most + 1
    judge = says(Rule(when=r"\$\\boxed\{$", text="-1}"), Rule(text=long))
    report = await verify(judge, Judge(), budget=Budget(chain_tokens=wanted))
    assert most < report.usage.completion_tokens < most + 9


# StepWiser


async def test_stepwiser_judges_each_chunk_by_itself():
    text = "1. Analysis: the goal is \\boxed{42}.\n2. Final Judgment: \\boxed{Negative}. And more."
    model = says(Rule(when=r"Final Judgment: \\boxed\{$", yes=0.0), Rule(text=text))
    model._answer = by_word(model._answer, {"Positive": 0.1, "Negative": 0.4})
    report = await verify(model, StepWiser())
    assert scores(report) == pytest.approx([0.2, 0.2])
    assert report.steps[0].segments[0].text == "1. Analysis: the goal is \\boxed{42}."
    assert [step.stop_reason for step in report.steps] == [StopReason.JUDGED] * 2
    second = model.prompts[2]
    assert "Historical Reasoning Path:\nClaim 1.\n\nNew Reasoning Chunk:\nClaim 2." in second
    assert "Analysis: the goal" not in second
    assert model.prompts[1].endswith("\n2. Final Judgment: \\boxed{")


async def test_stepwiser_reads_a_text_of_blanks():
    """In which each of them could be where the judgement begins."""
    model = says(Rule(when=r"boxed\{$", yes=1.0), Rule(text="So." + " \n" * 30_000 + "1. Final"))
    report = await verify(model, StepWiser(), steps=1)
    assert report.steps[0].segments[0].text.startswith("So.")


@pytest.mark.parametrize(
    ("text", "tokens", "reason"),
    [
        ("It is right, \\boxed{42}.", 2048, StopReason.END_OF_TEXT),
        ("on and on " * 100, 20, StopReason.TOKEN_BUDGET),
        ("", 2048, StopReason.END_OF_TEXT),
    ],
)
async def test_9_a_judgement_that_was_not_written_is_asked_for(text: str, tokens: int, reason: StopReason):
    model = says(Rule(when=r"\n\nFinal Judgment: \\boxed\{$|\nFinal Judgment: \\boxed\{$", yes=0.0), Rule(text=text))
    model._answer = by_word(model._answer, {"Positive": 0.3, "Negative": 0.1})
    budget = Budget(step_tokens=tokens, analysis_tokens=10)
    report = await verify(model, StepWiser(), steps=1, budget=budget)
    assert scores(report) == pytest.approx([0.75])
    assert report.steps[0].stop_reason is reason


def by_word(answer: Callable[[str], Rule], words: dict[str, float]) -> Callable[[str], Rule]:
    """The same script, but a judgement is between these words."""

    def wrapped(prompt: str) -> Rule:
        rule = answer(prompt)
        return rule if rule.yes is None else Rule(choice=words)

    return wrapped


# Judge


@pytest.mark.parametrize(
    ("text", "expected", "parse"),
    [
        ("Paragraph 1 is wrong: $\\boxed{1}$.", [1.0, 0.0, None], ParseStatus.OK),
        ("I first thought \\boxed{0}, but no: \\boxed{-1}", [1.0, 1.0, 1.0], ParseStatus.OK),
        ("\\boxed{paragraph_2}", [1.0, 1.0, 0.0], ParseStatus.OK),
        ("\\boxed{7}", [None] * 3, ParseStatus.OUT_OF_RANGE),
        ("\\boxed{-2}", [None] * 3, ParseStatus.OUT_OF_RANGE),
        ("\\boxed{the second}", [None] * 3, ParseStatus.UNKNOWN_WORD),
        ("They have \\boxed{1} apples. So: \\boxed{\\text{2}}.", [1.0, 1.0, 0.0], ParseStatus.OK),
        ("\\boxed{\\textbf{-1}}", [1.0, 1.0, 1.0], ParseStatus.OK),
        ("\\boxed{**2**}", [1.0, 1.0, 0.0], ParseStatus.OK),
        ("\\boxed{2.}", [1.0, 1.0, 0.0], ParseStatus.OK),
        ("\\boxed{1.5}", [None] * 3, ParseStatus.UNKNOWN_WORD),
        ("\\boxed{<paragraph_2>}", [1.0, 1.0, 0.0], ParseStatus.OK),
    ],
)
async def test_6_judge(text: str, expected: list[float | None], parse: ParseStatus):
    model = says(Rule(text=text))
    report = await verify(model, Judge(), steps=3)
    assert scores(report) == expected
    assert report.whole.votes[0].parse is parse
    assert report.unscored == (0 if parse is ParseStatus.OK else 3)
    assert "<paragraph_2>\nClaim 3.\n</paragraph_2>" in model.prompts[0]


async def test_a_judge_that_names_nothing_is_asked_for_the_index():
    model = says(Rule(when=r"\$\\boxed\{$", text="1}$"), Rule(text="It is hard to say."))
    report = await verify(model, Judge(), steps=2)
    assert report.first_error == 1
    assert report.steps[1].stop_reason is StopReason.END_OF_TEXT


async def test_a_box_in_a_text_that_was_cut_off_is_no_verdict():
    model = says(
        Rule(when=r"\$\\boxed\{$", text="-1}"),
        Rule(text="Paragraph 0 says that \\boxed{1} is the answer. Let me check whether this holds in every case"),
    )
    report = await verify(model, Judge(), budget=Budget(chain_tokens=9))
    assert (report.first_error, scores(report)) == (-1, [1.0, 1.0])
    assert {step.stop_reason for step in report.steps} == {StopReason.TOKEN_BUDGET}
    assert len(model.prompts) == 2


async def test_an_index_that_is_asked_for_may_be_dressed_up():
    model = says(Rule(when=r"\$\\boxed\{$", text="\\text{1}}"), Rule(text="Five: \\boxed{0} or so, let me see"))
    report = await verify(model, Judge(), budget=Budget(chain_tokens=4))
    assert report.first_error == 1


async def test_the_majority_of_judges():
    answers = iter(["\\boxed{1}", "\\boxed{-1}", "\\boxed{1}", "\\boxed{9}", "\\boxed{0}"])
    model = ScriptedModel(lambda _: Rule(text=next(answers)))
    async with AsyncVerifier(model, None, style=Judge()) as verifier:
        report = await verifier.verify("p", ["a", "b", "c"], votes=5)
    assert report.first_error == 1
    assert scores(report) == pytest.approx([0.75, 0.25, None])
    assert report.votes == 5


# Direct and discriminative


async def test_direct_says_yes_or_no_at_once():
    model = says(Rule(yes=0.3))
    report = await verify(model, Direct())
    assert scores(report) == pytest.approx([0.3, 0.3])
    assert report.usage.completion_tokens == 2
    assert model.prompts[0].endswith("<|assistant|>\n<output>\n**Judgement**: $\\boxed{")


async def test_7_rlhflow():
    model = says(Rule(choice={"+": 0.1, "-": 0.3, " the": 0.6}))
    report = await verify(model, Discriminative(PRMFormat.RLHFLOW))
    assert scores(report) == pytest.approx([0.25, 0.25])
    assert model.prompts[1] == (
        "<|user|>\nSix times seven? Claim 1.\n<|assistant|>\n+\n<|user|>\nClaim 2.\n<|assistant|>\n"
    )


async def test_math_shepherd():
    model = says(Rule(choice={"+": 0.9, "-": 0.1}))
    async with AsyncVerifier(model, None, style=Discriminative(PRMFormat.MATH_SHEPHERD)) as verifier:
        report = await verifier.verify("Six times seven?", ["It is 42.", "Step 2: So 42."])
    assert scores(report) == pytest.approx([0.9, 0.9])
    assert model.prompts[1] == "Six times seven? Step 1: It is 42. ки\nStep 2: So 42. ки"


async def test_a_head_is_read_at_every_separator():
    model = says(Rule())

    async def rewards(text: str, marker: str) -> list[float]:
        assert text.endswith("Claim 1.<extra_0>Claim 2.<extra_0>")
        return [0.8, 0.3]

    model.step_rewards = rewards
    report = await verify(model, Discriminative(PRMFormat.QWEN))
    assert scores(report) == [0.8, 0.3]
    assert report.first_error == 1


async def test_a_language_model_has_no_head():
    with pytest.raises(Exception, match="without a reward head"):
        await verify(says(Rule()), Discriminative(PRMFormat.QWEN))


# What a step's judgement sees of the earlier ones


async def test_a_rationale_that_speaks_of_the_output_is_kept_whole():
    model = says(Rule(when=r"boxed\{$", yes=0.9), Rule(text="As in <output>\n it is said.</analyze>\n"))
    await verify(model, GenPRM(verify=False, history=History.RATIONALES))
    assert "it is said.</analyze>" in model.prompts[-1].partition("Claim 2.")[0]


@pytest.mark.parametrize("history", History)
async def test_history(history: History):
    model = says(Rule(when=r"boxed\{$", yes=0.1), Rule(text="Because.</analyze>\n"))
    await verify(model, GenPRM(verify=False, history=history), steps=3)
    last = model.prompts[-1]
    assert last.count("Because.") == {History.FULL: 3, History.RATIONALES: 3, History.NONE: 1}[history]
    assert last.count("{No}") == {History.FULL: 2, History.RATIONALES: 0, History.NONE: 0}[history]
    assert all(f"Claim {n}." in last for n in (1, 2, 3))
    assert "Paragraph 3" in last
    if history is History.NONE:
        assert "Question: Six times seven?\n\nClaim 1.\n\nClaim 2.\n\nClaim 3.\n<|assistant|>" in last


# Verdict words that are cut up, and backends that return less than was asked for


class CutUp(ScriptedModel):
    """A model whose tokenizer knows no word."""

    def is_token(self, word: str) -> bool:
        return len(word.strip()) == 1

    async def score(self, prompt: str, continuations: Sequence[str]) -> list[float]:
        return [math.log({"Yes": 0.06, "No": 0.02}[text]) for text in continuations]


async def test_10_words_of_several_tokens_are_scored_whole():
    report = await verify(CutUp([Rule()]), Direct())
    assert scores(report) == pytest.approx([0.75, 0.75])


async def test_10_a_backend_that_cannot_score_says_so():
    model = says(Rule())
    model.is_token = lambda word: False
    with pytest.raises(Exception, match="the probability of a given text cannot be had"):
        await verify(model, Direct())


@pytest.mark.parametrize(
    ("completion", "parse"),
    [
        (Completion(text="Yes", finish_reason=FinishReason.LENGTH, completion_tokens=1), ParseStatus.NO_LOGPROBS),
        (Completion(text="", finish_reason=FinishReason.STOP), ParseStatus.EMPTY),
    ],
)
async def test_no_logprobs_and_empty_completions(completion: Completion, parse: ParseStatus):
    model = says(Rule())

    async def complete(prompt: str, **_: object) -> list[Completion]:
        return [completion]

    model.complete = complete
    report = await verify(model, Direct())
    assert [step.parse for step in report.steps] == [parse, parse]
    assert (report.unscored, report.score) == (2, None)


# What a model was trained for


@pytest.mark.parametrize(
    ("model", "style", "known_format"),
    [
        ("GenPRM/GenPRM-1.5B", "genprm", None),
        ("GenPRM/GenPRM-7B", "genprm", None),
        ("/models/genprm-32b/", "genprm", None),
        ("launch/ThinkPRM-1.5B", "thinkprm", None),
        ("launch/ThinkPRM-14B", "thinkprm", None),
        ("somebody/StepWiser-7B", "stepwiser", None),
        ("Qwen/Qwen2.5-Math-PRM-7B", "discriminative", PRMFormat.QWEN),
        ("Qwen/Qwen2.5-Math-PRM-72B", "discriminative", PRMFormat.QWEN),
        ("Qwen/Qwen2.5-Math-7B-PRM800K", "discriminative", PRMFormat.QWEN),
        ("peiyi9979/math-shepherd-mistral-7b-prm", "discriminative", PRMFormat.MATH_SHEPHERD),
        ("RLHFlow/Llama3.1-8B-PRM-Mistral-Data", "discriminative", PRMFormat.RLHFLOW),
        ("RLHFlow/Llama3.1-8B-PRM-Deepseek-Data", "discriminative", PRMFormat.RLHFLOW),
    ],
)
def test_released_models_are_known(model: str, style: str, known_format: PRMFormat | None):
    assert trained_style(model) == style
    assert prm_format(model) is known_format
    assert style_warning(model, style) is None
    for other in STYLES.keys() - {style, "judge"}:
        said = f"warning: {model} was trained for the style {style}; in the style {other} its verdicts mean little"
        assert style_warning(model, other) == said
    assert style_warning(model, "judge") is None, "a judge is asked in plain words"


@pytest.mark.parametrize("model", ["Qwen/Qwen3-8B", "Qwen/Qwen2.5-Math-7B-Instruct", "my-genprm", "PRM-8B"])
def test_a_general_model_is_warned_of_styles_that_need_training(model: str):
    assert trained_style(model) is None
    assert prm_format(model) is None
    assert style_warning(model, "judge") is None
    for style in STYLES.keys() - {"judge"}:
        said = f"warning: {model} is not known to be trained for the style {style}; a general model takes judge"
        assert style_warning(model, style) == said


def test_solutions_know_their_generator():
    assert Solution(id="a", problem="p", steps=("s",), generator="Qwen2-7B").generator == "Qwen2-7B"
