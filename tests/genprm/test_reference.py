"""Ours and the reference's one-at-a-time loop: the same transcripts, and the same scores, step by step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from benchmarks.reference_loop import Limits, reference_verify
from genprm import AsyncVerifier, Budget, Sampling, Solution, Verification
from genprm.models.base import Completion, Message, ModelBackend
from genprm.models.embedded import EMBEDDED
from genprm.models.scripted import Rule, ScriptedModel
from genprm.models.transformers_backend import TransformersModel
from genprm.styles import GenPRM
from genprm.styles.examples import worked_example
from sandbox import Sandbox

GREEDY = Sampling(temperature=0)
SOLUTIONS = [
    Solution(id="a", problem="Ann has 3 bags of 5 nuts. She eats 4 nuts. How many are left?",
             steps=("She has 3 * 5 = 15 nuts.", "She has 15 - 4 = 12 nuts left.", "The answer is 12.")),
    Solution(id="b", problem="What is 2 + 2 * 3?", steps=("2 * 3 is 6.", "2 + 6 is 8.")),
]  # fmt: skip


class Recording(ModelBackend):
    """A model that keeps the last conversation it was asked to go on with."""

    def __init__(self, model: ModelBackend) -> None:
        self.name = model.name
        self.concurrency = model.concurrency
        self.chat: list[Message] = []
        self.prefix = ""
        self._model = model

    async def complete(self, prompt: str, **options: Any) -> list[Completion]:
        return await self._model.complete(prompt, **options)

    def render(self, messages: Sequence[Message], prefix: str) -> str:
        self.chat, self.prefix = list(messages), prefix
        return self._model.render(messages, prefix)

    def is_token(self, word: str) -> bool:
        return self._model.is_token(word)

    async def close(self) -> None:
        await self._model.close()


async def compare(
    model: ModelBackend,
    sandbox: Sandbox,
    limits: Limits,
    solutions: Sequence[Solution] = SOLUTIONS,
    examples: Sequence[Message] = (),
) -> list[Verification]:
    budget = Budget(step_tokens=limits.tokens, analysis_tokens=limits.analysis_tokens, runs=limits.runs)
    recording = Recording(model)
    verifier = AsyncVerifier(recording, sandbox, style=GenPRM(examples=examples), budget=budget, sampling=GREEDY)
    reports = []
    for solution in solutions:
        theirs = await reference_verify(model, sandbox, solution, sampling=GREEDY, examples=examples, limits=limits)
        report = await verifier.verify_solution(solution)
        ours = [turn["content"] for turn in recording.chat[1 + len(examples) :] if turn["role"] == "assistant"]
        ours.append(f"{recording.prefix}{report.steps[-1].segments[-1].text}}}$\n</output>\n")
        assert ours == [step.transcript for step in theirs]
        for step, reference in zip(report.steps, theirs, strict=True):
            assert step.score == (None if reference.score is None else pytest.approx(reference.score, abs=1e-3))
        reports.append(report)
    return reports


CODES = {
    "a value": "print(3 * 5)",
    "an error": "print('lost')\n1 / 0",
    "a syntax error": "print(",
    "nothing": "x = 1",
}


@pytest.mark.parametrize("code", CODES.values(), ids=list(CODES))
@pytest.mark.parametrize(("wanted", "allowed"), [(1, 3), (2, 3), (3, 3), (3, 2)])
async def test_scripted_transcripts(local_sandbox: Sandbox, code: str, wanted: int, allowed: int):
    """Code in every step, run as often as the script wants to, or as the budget allows, and argued about in between."""
    enough = r"(?s)(?:\[Code Output\](?:(?!<analyze>).)*){" + str(wanted) + r"}```\n$"
    script = ScriptedModel([
        Rule(when=r"boxed\{$", choice={"Yes": 0.62, "No": 0.31, " yes": 0.07}),
        Rule(when=r"step by step: $", text="The numbers are to be checked.</analyze>\n"),
        Rule(when=r"```python\n$", text=f"{code}\n```\n"),
        Rule(when=enough, text="\nSo it is.\n</verify>\n<output>\n"),
        Rule(when=r"```\n$", text=f"\nOnce more:\n```python\n{code}\n```\n"),
    ])  # fmt: skip
    reports = await compare(script, local_sandbox, Limits(runs=allowed))
    assert all(report.usage.code_runs == len(report.steps) * min(wanted, allowed) for report in reports)
    assert all(step.score == pytest.approx(0.69) for report in reports for step in report.steps)


@pytest.mark.parametrize("tokens", [1, 7, 12, 40])
async def test_budgets_that_run_out(local_sandbox: Sandbox, tokens: int):
    script = ScriptedModel([
        Rule(when=r"boxed\{$", choice={"Yes": 0.2, "No": 0.7}),
        Rule(when=r"step by step: $", text="one two three four five six.</analyze>\n"),
        Rule(text="a = 1\nb = 2\nprint(a + b)\n```\n"),
    ])  # fmt: skip
    await compare(script, local_sandbox, Limits(tokens=tokens, analysis_tokens=min(tokens, 8), runs=2))


@pytest.mark.model
@pytest.mark.alone
async def test_a_real_model(local_sandbox: Sandbox):
    model = TransformersModel.load(EMBEDDED)
    limits = Limits(tokens=90, analysis_tokens=40, runs=2)
    reports = await compare(model, local_sandbox, limits, SOLUTIONS[1:], worked_example())
    assert sum(report.usage.code_runs for report in reports) >= 2
    assert any(step.score is not None for report in reports for step in report.steps)
    await model.close()
