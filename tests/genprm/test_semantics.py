"""The loop's semantics, numbered. Breaking one of these changes what a verifier says: decide it, do not "fix" a test.

 1. A step's turn is: analysis, code, output, judgement; the fixed strings are GenPRM's to the letter.
 2. The first user turn is ``Question: {problem}``, a blank line and step 1; each later one is just the next step.
 3. The assistant's earlier turns, with their outputs, stay in the context of the later ones.
 4. What code printed is spliced in right behind it, in the reference's frame, and the model goes on from there.
 5. The namespace persists over the steps of one chain.
 6. Two votes never share a namespace; neither do two solutions.
 7. Only a closed code block runs; one that the token budget cut off does not.
 8. After ``runs`` executions the judgement is forced; all that was argued and printed stays in its context.
 9. After ``step_tokens`` tokens the judgement is forced; the analysis alone cannot use them up.
10. A model that ends its turn early is made to judge.
11. The score is P(Yes) / (P(Yes) + P(No)) at the judgement token; what is missing from the likeliest counts as 0.
12. The word in the transcript is the verdict of the score: never a sampled one that disagrees.
13. Without Yes or No among the likeliest tokens a step is unscored; it is never 0.5 and enters no mean.
14. A step is wrong when the mean of its scored votes is under 0.5 (exactly 0.5 is right).
15. The first error is the first wrong step; steps after it are verified all the same.
16. A full context, or wall time that is up, leaves the remaining steps unscored, with that stop reason each.
17. An error, a timeout or a dead kernel of the guest is shown to the model; the chain goes on with a fresh kernel.
18. A failure of the sandbox is never shown to the model: the chain is begun anew, and fails as a whole in the end.
19. Every step has exactly one stop reason; those without a score are the last three.
20. The same seed draws the same, whatever else is in flight; another vote draws differently.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from genprm import AsyncVerifier, Budget, Sampling, Solution, StopReason, Verdict, VerificationError
from genprm.chain import Chain
from genprm.errors import ContextFullError
from genprm.models.scripted import Rule, ScriptedModel
from genprm.records import ParseStatus, Segment, SegmentKind, StepVote
from genprm.styles import Direct, GenPRM
from genprm.styles.execution import OutputFormat
from sandbox import RunStatus, Sandbox, SandboxLostError, SandboxUnavailableError

ANALYSIS_OPEN = "step by step: "
CODE_OPEN = "```python\n"
JUDGE_OPEN = "boxed{"


def script(
    analysis: str = "Fine.</analyze>\n",
    code: str | Callable[[str], str] = "print(42)\n```\n",
    after: str = "It holds.\n</verify>\n<output>\n",
    yes: float | Callable[[str], Rule] = 0.9,
) -> ScriptedModel:
    """A model that says the same at every step, unless a part is a function of the prompt."""

    def answer(prompt: str) -> Rule:
        if prompt.endswith(ANALYSIS_OPEN):
            return Rule(text=analysis)
        if prompt.endswith(CODE_OPEN):
            return Rule(text=code(prompt) if callable(code) else code)
        if prompt.endswith(JUDGE_OPEN):
            return yes(prompt) if callable(yes) else Rule(yes=yes)
        return Rule(text=after)

    return ScriptedModel(answer)


class Shared:
    """The shared local sandbox, whose closing is left to its owner."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.session = sandbox.session
        self.capacity = sandbox.capacity

    async def close(self) -> None:
        pass


async def verify(model: ScriptedModel, sandbox: Sandbox, steps: int = 1, votes: int = 1, **options):
    async with AsyncVerifier(model, Shared(sandbox), **options) as verifier:
        return await verifier.verify("What is 6 * 7?", [f"Step {n}." for n in range(1, steps + 1)], votes=votes)


def judged_prompts(model: ScriptedModel) -> list[str]:
    return [prompt for prompt in model.prompts if prompt.endswith(JUDGE_OPEN)]


async def test_1_and_2_and_4_the_turn_to_the_letter(local_sandbox: Sandbox):
    model = script()
    report = await verify(model, local_sandbox)
    system = "You are a math teacher. Your task is to review and critique the paragraphs in solution step by step."
    assert judged_prompts(model) == [
        f"<|system|>\n{system}\n<|user|>\nQuestion: What is 6 * 7?\n\nStep 1.\n<|assistant|>\n"
        "<analyze>\nLet's analyze the Paragraph 1 step by step: Fine.</analyze>\n"
        "<verify>\nLet's use python code to find any potential error:\n```python\nprint(42)\n```\n"
        "[Code Output]\n\n```\n42\n```\nIt holds.\n</verify>\n"
        "<output>\n**Judgement**: $\\boxed{"
    ]
    kinds = [segment.kind for segment in report.steps[0].segments]
    assert kinds == [
        SegmentKind.ANALYSIS, SegmentKind.CODE, SegmentKind.OUTPUT, SegmentKind.ANALYSIS, SegmentKind.JUDGEMENT,
    ]  # fmt: skip
    assert [segment.text for segment in report.steps[0].segments] == ["Fine.", "print(42)", "42", "It holds.", "Yes"]


async def test_2_and_3_later_turns(local_sandbox: Sandbox):
    model = script()
    await verify(model, local_sandbox, steps=2)
    first, second = judged_prompts(model)
    assert second.startswith(first + "Yes}$\n</output>\n")
    asked = second.removeprefix(first).split("<|user|>\n")[1]
    assert asked.startswith("Step 2.\n<|assistant|>\n<analyze>\nLet's analyze the Paragraph 2 step by step: ")


async def test_5_namespace_persists_over_steps(local_sandbox: Sandbox):
    model = script(code=lambda prompt: "x = 5\n```\n" if "Paragraph 2" not in prompt else "print(x)\n```\n")
    report = await verify(model, local_sandbox, steps=2)
    assert report.steps[1].segments[2].text == "5"


async def test_6_votes_and_solutions_never_share_a_namespace(local_sandbox: Sandbox):
    model = script(code="try: print('shared', x)\nexcept NameError: print('fresh')\nx = 1\n```\n")
    async with AsyncVerifier(model, Shared(local_sandbox)) as verifier:
        solutions = [Solution(id=str(n), problem="p", steps=("s",)) for n in range(3)]
        rows = [row async for _, row in verifier.verify_many(solutions, votes=4)]
    outputs = [vote.segments[2].text for row in rows for vote in row.steps[0].votes]
    assert outputs == ["fresh"] * 12


async def test_7_unfinished_code_does_not_run(local_sandbox: Sandbox):
    model = script(code="print(1) # and so on and on without an end " * 10)
    report = await verify(model, local_sandbox, budget=Budget(step_tokens=20, analysis_tokens=10))
    assert report.usage.code_runs == 0
    assert report.steps[0].stop_reason is StopReason.TOKEN_BUDGET
    assert report.steps[0].segments[1].kind is SegmentKind.CODE
    assert "\n```\n</verify>\n<output>\n" in judged_prompts(model)[0]


async def test_8_run_budget(local_sandbox: Sandbox):
    model = script(after="Once more:\n```python\nprint('more')\n```\n")
    report = await verify(model, local_sandbox, budget=Budget(runs=3))
    assert report.usage.code_runs == 3
    assert report.steps[0].stop_reason is StopReason.RUN_BUDGET
    [prompt] = judged_prompts(model)
    assert prompt.count("[Code Output]") == 3
    assert prompt.endswith("```\nmore\n```\n</verify>\n<output>\n**Judgement**: $\\boxed{")


async def test_8_no_runs_at_all(local_sandbox: Sandbox):
    report = await verify(script(), local_sandbox, budget=Budget(runs=0))
    assert report.usage.code_runs == 0
    assert report.steps[0].score == pytest.approx(0.9)
    assert report.steps[0].stop_reason is StopReason.RUN_BUDGET


async def test_9_token_budget(local_sandbox: Sandbox):
    model = script(analysis="word " * 1000)
    report = await verify(model, local_sandbox, budget=Budget(step_tokens=50, analysis_tokens=30))
    assert report.usage.code_runs == 1
    assert report.usage.completion_tokens <= 51
    whole = await verify(model, local_sandbox, budget=Budget(step_tokens=30, analysis_tokens=30))
    assert whole.usage.code_runs == 0
    assert whole.steps[0].stop_reason is StopReason.TOKEN_BUDGET
    assert whole.steps[0].score == pytest.approx(0.9)


async def test_10_early_end_is_made_to_judge(local_sandbox: Sandbox):
    report = await verify(script(after="That is all."), local_sandbox)
    assert report.steps[0].stop_reason is StopReason.END_OF_TEXT
    assert report.steps[0].score == pytest.approx(0.9)


async def test_10_a_block_closed_at_the_end_of_the_text_runs(local_sandbox: Sandbox):
    model = script(code="print(7)\n```")
    report = await verify(model, local_sandbox)
    assert [segment.text for segment in report.steps[0].segments][1:3] == ["print(7)", "7"]
    assert "```python\nprint(7)\n```\n[Code Output]" in judged_prompts(model)[0]


@pytest.mark.parametrize(
    ("top", "score"),
    [
        ({"Yes": -0.5, "No": -1.5}, 0.7310585786300049),
        ({"Yes": -0.5, "Maybe": -1.0}, 1.0),
        ({"No": -3.0, "1": -0.1}, 0.0),
        ({" yes": -1.0, "YES": -1.0, "no": -1.0, "maybe": -0.1}, 2 / 3),
        ({"Yeah": -0.1, "7": -0.2}, None),
    ],
)
async def test_11_and_13_score(local_sandbox: Sandbox, top: dict[str, float], score: float | None):
    model = script()
    told = model._completion

    def with_top(prompt, rule, stop, max_tokens):
        completion = told(prompt, rule, stop, max_tokens)
        if rule.yes is None:
            return completion
        return completion.model_copy(update={"tokens": (completion.tokens[0].model_copy(update={"top": top}),)})

    model._completion = with_top
    report = await verify(model, local_sandbox, steps=2)
    if score is None:
        assert report.steps[0].score is None
        assert report.steps[0].verdict is None
        assert report.steps[0].parse is ParseStatus.NO_VERDICT_TOKEN
        assert (report.unscored, report.score, report.first_error, report.settled) == (2, None, -1, False)
    else:
        assert report.steps[0].score == pytest.approx(score)
        assert report.unscored == 0


@pytest.mark.parametrize(("yes", "word"), [(0.9, "Yes"), (0.1, "No"), (0.5, "Yes")])
async def test_12_word_agrees_with_score(local_sandbox: Sandbox, yes: float, word: str):
    model = script(yes=yes)
    report = await verify(model, local_sandbox, steps=2)
    assert report.steps[0].segments[-1].text == word
    assert f"\\boxed{{{word}}}$" in judged_prompts(model)[1]


async def test_13_unscored_votes_enter_no_mean(local_sandbox: Sandbox):
    rules = iter([Rule(yes=0.9), Rule(text="perhaps"), Rule(yes=0.7)])
    report = await verify(script(yes=lambda _: next(rules)), local_sandbox, votes=3)
    step = report.steps[0]
    assert step.score == pytest.approx(0.8)
    assert sorted(vote.score is None for vote in step.votes) == [False, False, True]
    assert report.unscored == 0


@pytest.mark.parametrize(
    ("scores", "verdict"),
    [((0.4, 0.6), Verdict.CORRECT), ((0.4, 0.59), Verdict.INCORRECT), ((0.0, 1.0, 0.2), Verdict.INCORRECT)],
)
async def test_14_mean_of_votes(local_sandbox: Sandbox, scores: tuple[float, ...], verdict: Verdict):
    rules = iter([Rule(yes=score) for score in scores])
    report = await verify(script(yes=lambda _: next(rules)), local_sandbox, votes=len(scores))
    assert report.steps[0].verdict is verdict
    assert report.steps[0].score == pytest.approx(sum(scores) / len(scores))


async def test_15_first_error_and_the_steps_after_it(local_sandbox: Sandbox):
    scores = iter([0.9, 0.2, 0.8, 0.1])
    report = await verify(script(yes=lambda _: Rule(yes=next(scores))), local_sandbox, steps=4)
    assert report.first_error == 1
    assert [step.score for step in report.steps] == pytest.approx([0.9, 0.2, 0.8, 0.1])
    assert report.score == pytest.approx(0.1)


async def test_16_full_context(local_sandbox: Sandbox):
    model = script()
    complete = model.complete

    async def limited(prompt, **options):
        if len(prompt) > 900:
            raise ContextFullError("full")
        return await complete(prompt, **options)

    model.complete = limited
    report = await verify(model, local_sandbox, steps=4)
    reasons = [step.stop_reason for step in report.steps]
    assert reasons[0] is StopReason.JUDGED
    assert reasons[-1] is StopReason.CONTEXT_FULL
    assert report.unscored == reasons.count(StopReason.CONTEXT_FULL) > 0


async def test_16_what_was_argued_is_judged_where_the_context_is_full(local_sandbox: Sandbox):
    model = script()
    complete = model.complete

    async def limited(prompt, **options):
        if not prompt.endswith((ANALYSIS_OPEN, JUDGE_OPEN)):  # for which room is kept
            raise ContextFullError("full")
        return await complete(prompt, **options)

    model.complete = limited
    report = await verify(model, local_sandbox)
    assert (report.steps[0].score, report.steps[0].stop_reason) == (pytest.approx(0.9), StopReason.TOKEN_BUDGET)
    report = await verify(model, local_sandbox, style=GenPRM(analyze=False))
    assert (report.steps[0].score, report.steps[0].stop_reason) == (None, StopReason.CONTEXT_FULL)


async def test_16_wall_time(local_sandbox: Sandbox):
    model = script(yes=lambda prompt: Rule(yes=0.9, seconds=30 if "Paragraph 2" in prompt else 0))
    report = await asyncio.wait_for(verify(model, local_sandbox, steps=3, budget=Budget(wall_seconds=2)), 20)
    reasons = [step.stop_reason for step in report.steps]
    assert reasons == [StopReason.JUDGED, StopReason.WALL_TIME, StopReason.WALL_TIME]


@pytest.mark.parametrize(
    ("code", "shown"),
    [
        ("print('a')\n1 / 0", "Code execute Error: ZeroDivisionError: division by zero"),
        ("def f(:", "Code execute Error: SyntaxError: invalid syntax (<string>, line 1)"),
        ("while True: pass", "Code execute time out: Code execution timed out"),
        ("import os\nos._exit(1)", "Code execute Error: KernelDied: the kernel exited with status 1"),
        ("import sys\nsys.exit(2)", "Code execute Error: SystemExit: 2"),
        ("6 * 7", ""),
        ("print('  42  ')\nprint()", "42"),
    ],
)
async def test_17_reference_strings_and_a_fresh_kernel(local_sandbox: Sandbox, code: str, shown: str):
    model = script(code=lambda prompt: f"{code}\n```\n" if "Paragraph 2" not in prompt else "print('on')\n```\n")
    report = await verify(model, local_sandbox, steps=2, budget=Budget(run_seconds=1))
    assert report.steps[0].segments[2].text == shown
    assert f"[Code Output]\n\n```\n{shown}\n```\n" in judged_prompts(model)[0]
    assert report.steps[1].segments[2].text == "on"


async def test_17_full_format(local_sandbox: Sandbox):
    model = script(code="print('a')\nx = 5\nx\n```\n")
    report = await verify(model, local_sandbox, style=GenPRM(output_format=OutputFormat.FULL))
    assert report.steps[0].segments[2].text == "a\n5"
    failing = script(code="print('a')\n1 / 0\n```\n")
    report = await verify(failing, local_sandbox, style=GenPRM(output_format=OutputFormat.FULL))
    assert report.steps[0].segments[2].text.startswith("a\n  File")
    assert report.steps[0].segments[2].text.endswith("ZeroDivisionError: division by zero")


async def test_a_block_that_is_not_python_is_no_code(local_sandbox: Sandbox):
    report = await verify(script(after="A table:\n```text\n1 2 3\n```\n"), local_sandbox, budget=Budget(runs=2))
    assert report.usage.code_runs == 1
    assert report.steps[0].segments[-2].text == "Code format error: No code found."


async def test_opening_a_bare_block_ends_the_argument(local_sandbox: Sandbox):
    """Its first line is the stop string of a closed block: what would follow is made-up output."""
    report = await verify(script(after="[Code Output]\n\n```\n43\n```\n"), local_sandbox)
    assert report.usage.code_runs == 1
    assert report.steps[0].stop_reason is StopReason.END_OF_TEXT
    assert not any("43" in segment.text for segment in report.steps[0].segments)


async def test_long_output_is_cut_in_the_middle(local_sandbox: Sandbox):
    model = script(code="print('a' * 3000 + 'b' * 3000)\n```\n")
    report = await verify(model, local_sandbox, budget=Budget(output_chars=100))
    text = report.steps[0].segments[2].text
    assert text == f"{'a' * 50}\n... 5900 characters cut ...\n{'b' * 50}"
    assert len(report.steps[0].segments[2].run.stdout) == 6001


class Failing:
    """A sandbox that fails a number of times, then works."""

    def __init__(self, sandbox: Sandbox, error: Exception, times: int) -> None:
        self._sandbox, self._error, self.left = sandbox, error, times
        self.capacity = sandbox.capacity

    async def session(self):
        if self.left:
            self.left -= 1
            raise self._error
        return await self._sandbox.session()

    async def close(self) -> None:
        pass


async def test_18_sandbox_failure_begins_anew(local_sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("genprm.open_chain.RETRY_AFTER", (0.01, 0.01))
    model = script()
    async with AsyncVerifier(model, Failing(local_sandbox, SandboxLostError("gone"), 2)) as verifier:
        report = await verifier.verify("p", ["s"])
    assert report.steps[0].segments[2].text == "42"
    assert not any("gone" in prompt for prompt in model.prompts)


async def test_18_a_kernel_lost_between_two_runs_is_no_failure_of_the_code():
    """What the earlier code has left is lost with it: the next code would fail for that."""
    box = Sandbox("local", ready=0)
    async with box, Chain(script(), box, Budget(), Sampling(), "k") as chain:
        await chain.run("x = 1")
        box.servers[0].connection_lost(None)
        with pytest.raises(SandboxLostError, match="lost between two runs"):
            await chain.run("print(x)")
        assert (await chain.run("import os\nos._exit(1)")).status is RunStatus.DIED  # its own fault: it was told
        assert (await chain.run("print(1)")).stdout == "1\n"


class Watcher:
    """Keeps all that it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, int]] = []

    def begun(self, vote: int, style: str) -> None:
        self.told.append((style, vote))

    def written(self, vote: int, step: int, segment: Segment) -> None:
        self.told.append((segment.kind.value, step))

    def judged(self, vote: int, step: int, said: StepVote) -> None:
        self.told.append(("judged", step))


async def test_who_watches_is_told_that_a_chain_begins_anew(local_sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("genprm.open_chain.RETRY_AFTER", (0.01, 0.01))
    watcher = Watcher()
    failing = Failing(local_sandbox, SandboxLostError("gone"), 1)
    async with AsyncVerifier(script(), failing) as verifier:
        found = await verifier.verify_solution(Solution(id="a", problem="P", steps=("s",)), watch=watcher)
    assert found.unscored == 0
    parts = [(segment.kind.value, 0) for segment in found.steps[0].segments]
    assert watcher.told == [("genprm", 0), *parts[:2], ("genprm", 0), *parts, ("judged", 0)]


async def test_a_fault_of_ours_fails_one_solution_only(monkeypatch: pytest.MonkeyPatch):
    """Whatever it is: the others of the run are worth more than a traceback."""

    def answer(prompt: str) -> Rule:
        if "unlucky" in prompt:
            raise ValueError("Exceeds the limit (4300 digits)")
        return Rule(yes=0.9)

    rows = [Solution(id=str(n), problem="unlucky" if n == 1 else "p", steps=("s",)) for n in range(3)]
    async with AsyncVerifier(ScriptedModel(answer), None, style=Direct()) as verifier:
        found = dict([entry async for entry in verifier.verify_many(rows)])
    assert [getattr(found[n], "score", None) for n in range(3)] == [pytest.approx(0.9), None, pytest.approx(0.9)]
    assert found[1].error == "a fault of genprm's own: ValueError: Exceeds the limit (4300 digits)"


async def test_18_sandbox_failure_fails_one_solution_only(local_sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("genprm.open_chain.RETRY_AFTER", (0.01, 0.01))
    failing = Failing(local_sandbox, SandboxLostError("gone"), 3)
    async with AsyncVerifier(script(), failing, in_flight=1) as verifier:
        solutions = [Solution(id=str(n), problem="p", steps=("s",)) for n in range(3)]
        rows = dict([entry async for entry in verifier.verify_many(solutions)])
    assert rows[0].error == "SandboxLostError: gone"
    assert [rows[n].first_error for n in (1, 2)] == [-1, -1]


async def test_18_a_sandbox_that_is_not_there_ends_the_run(local_sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("genprm.open_chain.RETRY_AFTER", (0.01, 0.01))
    async with AsyncVerifier(script(), Failing(local_sandbox, SandboxUnavailableError("no engine"), 99)) as verifier:
        with pytest.raises(SandboxUnavailableError):
            _ = [row async for row in verifier.verify_many([Solution(id="a", problem="p", steps=("s",))])]


def test_19_stop_reasons():
    assert {reason.value for reason in StopReason} == {
        "judged", "token_budget", "run_budget", "end_of_text", "context_full", "wall_time",
        "after_error", "settled", "given",
    }  # fmt: skip


async def test_20_seeds(local_sandbox: Sandbox):
    async def seeds(votes: int, seed: int) -> list[int]:
        model = script()
        found: list[int] = []
        complete = model.complete

        async def watched(prompt, **options):
            found.append(options["sampling"].seed)
            return await complete(prompt, **options)

        model.complete = watched
        await verify(model, local_sandbox, steps=2, votes=votes, sampling=Sampling(seed=seed))
        return found

    first = await seeds(1, 0)
    assert first == await seeds(1, 0)
    assert len(set(first)) == len(first)
    assert set(first) < set(await seeds(3, 0))
    assert not set(first) & set(await seeds(1, 1))


async def test_analysis_only_and_code_only(local_sandbox: Sandbox):
    model = script()
    report = await verify(model, local_sandbox, style=GenPRM(verify=False))
    assert report.usage.code_runs == 0
    assert judged_prompts(model)[0].endswith("Fine.</analyze>\n<output>\n**Judgement**: $\\boxed{")
    model = script()
    await verify(model, local_sandbox, style=GenPRM(analyze=False))
    assert "<analyze>" not in model.prompts[0]


async def test_code_without_execution():
    model = script(code="print(1)\n```\n[Code Output]\n\n```\n1\n```\nSo it holds.\n</verify>\n<output>\n")
    async with AsyncVerifier(model, None) as verifier:
        report = await verifier.verify("p", ["s"])
    assert report.usage.code_runs == 0
    assert report.steps[0].stop_reason is StopReason.JUDGED


async def test_too_many_steps_fail_their_row_only(local_sandbox: Sandbox):
    async with AsyncVerifier(script(), Shared(local_sandbox)) as verifier:
        with pytest.raises(VerificationError, match="10000 steps: at most 512"):
            await verifier.verify("p", ["s"] * 10_000)


async def test_sixty_four_chains_wait_side_by_side(local_sandbox: Sandbox):
    """64 chains whose code sleeps a second each take about as long as one, not 64 seconds."""
    import time

    model = script(code="import time\ntime.sleep(1)\nprint('slept')\n```\n")
    async with AsyncVerifier(model, Shared(local_sandbox), in_flight=64) as verifier:
        started = time.monotonic()
        solutions = [Solution(id=str(n), problem="p", steps=("s",)) for n in range(64)]
        rows = [row async for _, row in verifier.verify_many(solutions)]
        took = time.monotonic() - started
    assert [row.steps[0].segments[2].text for row in rows] == ["slept"] * 64
    assert took < 16
