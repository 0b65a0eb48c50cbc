"""GenPRM's loop as a paper's script writes it: one solution, one step, one request at a time. Our own rewriting.

What it does at each point is what the reference code does. Two of its faults are left out (a namespace that votes
share, 0.5 where there is no verdict), and its code runs in the same sandbox as ours, so that only the loop is compared.
The judgement is forced as the reference forces it past its limits; what closes it is generated, not known.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

from genprm.models.base import Completion, FinishReason, Message, ModelBackend, Sampling
from genprm.records import Solution
from sandbox import RunResult, RunStatus, Sandbox, Session

JUDGEMENT_TOKENS = 8
"""For ``Yes}$`` and the closing tag."""
SYSTEM = "You are a math teacher. Your task is to review and critique the paragraphs in solution step by step."


class ReferenceStep(NamedTuple):
    """One step's turn."""

    transcript: str
    score: float | None


class Limits(NamedTuple):
    """Of one step. The defaults are the reference's."""

    tokens: int = 2048
    analysis_tokens: int = 2048
    runs: int = 3


async def reference_verify(
    model: ModelBackend,
    sandbox: Sandbox,
    solution: Solution,
    *,
    sampling: Sampling,
    examples: Sequence[Message] = (),
    limits: Limits = Limits(),  # noqa: B008 - immutable
) -> list[ReferenceStep]:
    """Verify one solution, step after step."""
    chat: list[Message] = [{"role": "system", "content": SYSTEM}, *examples]
    found = []
    session = await sandbox.session()
    try:
        for number, step in enumerate(solution.steps, 1):
            chat.append({"role": "user", "content": f"Question: {solution.problem}\n\n{step}" if number == 1 else step})
            done = await _step(model, session, chat, number, sampling, limits)
            chat.append({"role": "assistant", "content": done.transcript})
            found.append(done)
    finally:
        await session.close()
    return found


async def _step(
    model: ModelBackend, session: Session, chat: list[Message], number: int, sampling: Sampling, limits: Limits
) -> ReferenceStep:
    left = limits.tokens

    async def write(text: str, stop: list[str], most: int, logprobs: int = 0) -> Completion:
        nonlocal left
        [done] = await model.complete(
            model.render(chat, text), stop=stop, max_tokens=min(left, most), logprobs=logprobs, sampling=sampling
        )
        left -= done.completion_tokens
        return done

    turn = f"<analyze>\nLet's analyze the Paragraph {number} step by step: "
    turn += (await write(turn, ["</analyze>\n"], limits.analysis_tokens)).text + "</analyze>\n"
    if left > 0:
        block = "```python\n"  # what it has written since the last output
        turn += f"<verify>\nLet's use python code to find any potential error:\n{block}"
        for _ in range(limits.runs):
            if left <= 0:
                break
            done = await write(turn, ["\n```\n", "<output>\n"], left)
            turn += done.text
            block += done.text
            is_open = block.count("```") % 2 == 1
            if done.finish_reason is FinishReason.LENGTH or not is_open:
                turn += "\n```\n" if is_open else ""
                break
            code = block.rpartition("```python\n")[2].strip()
            turn += f"\n```\n[Code Output]\n\n```\n{_shown(await session.run(code))}\n```\n"
            block = ""
        if not turn.endswith("</verify>\n"):
            turn = turn.rstrip("\n") + "\n</verify>\n"
    turn += "<output>\n**Judgement**: $\\boxed{"
    left = JUDGEMENT_TOKENS
    done = await write(turn, ["</output>\n"], JUDGEMENT_TOKENS, logprobs=20)
    mass = {"yes": 0.0, "no": 0.0}
    for text, logprob in done.tokens[0].top.items():
        if text.strip().lower() in mass:
            mass[text.strip().lower()] += math.exp(logprob)
    total = sum(mass.values())
    score = mass["yes"] / total if total else None
    word = "?" if score is None else "Yes" if score >= 0.5 else "No"
    return ReferenceStep(f"{turn}{word}}}$\n</output>\n", score)


def _shown(run: RunResult) -> str:
    if run.status is RunStatus.TIMEOUT:
        return "Code execute time out: Code execution timed out"
    if run.error is not None:
        value = re.sub(r"<cell \d+>", "<string>", run.error.value)
        return f"Code execute Error: {run.error.name}: {value}"
    return run.stdout.strip()
