"""Discriminative PRMs: a number per step and no rationale, in the formats of the released ones."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from enum import Enum

from genprm.chain import Chain
from genprm.errors import ModelError
from genprm.models.base import Message
from genprm.records import Solution, StepVote, StopReason
from genprm.styles.base import NUMBERED, Style

GOOD, BAD = "+", "-"
SHEPHERD_TAG = " ки"
"""Math-Shepherd's step tag (arXiv 2312.08935); what it says of a step is read behind it."""
QWEN_TAG = "<extra_0>"
"""Qwen2.5-Math-PRM's step separator (arXiv 2501.07301); its head is read at it."""
QWEN_SYSTEM = "Please reason step by step, and put your final answer within \\boxed{}."


class PRMFormat(str, Enum):
    """How a discriminative PRM is shown a solution, and where its number is read."""

    RLHFLOW = "rlhflow"
    """One chat turn per step; P(+) against P(-) as the assistant's answer (RLHFlow's PRMs)."""
    MATH_SHEPHERD = "math-shepherd"
    """Plain text with a tag behind each step; P(+) against P(-) after the tag."""
    QWEN = "qwen"
    """One chat turn with a separator token behind each step, and a two-class head at it (Qwen2.5-Math-PRM)."""


class Discriminative(Style):
    """A baseline that does not reason."""

    name = "discriminative"

    def __init__(self, prm_format: PRMFormat = PRMFormat.RLHFLOW) -> None:
        self._format = prm_format
        self.chats = prm_format is not PRMFormat.MATH_SHEPHERD
        self.independent = prm_format is not PRMFormat.QWEN

    async def verify(self, chain: Chain, solution: Solution, first: int = 0) -> AsyncGenerator[StepVote, None]:
        if self._format is PRMFormat.QWEN:
            for reward in await self._rewards(chain, solution):
                yield StepVote(score=reward, stop_reason=StopReason.JUDGED)
            return
        for count in range(first + 1, len(solution.steps) + 1):
            score, parse = await chain.choose(self._prompt(chain, solution, count), GOOD, BAD)
            yield StepVote(score=score, stop_reason=StopReason.JUDGED, parse=parse)

    def _prompt(self, chain: Chain, solution: Solution, count: int) -> str:
        if self._format is PRMFormat.MATH_SHEPHERD:
            lines = [
                (step if NUMBERED.match(step) else f"Step {number}: {step}") + SHEPHERD_TAG
                for number, step in enumerate(solution.steps[:count], 1)
            ]
            return chain.plain(f"{solution.problem} " + "\n".join(lines))
        # Behind each earlier step stands a plus, whatever was read there: so these models were trained to be used.
        return chain.render(answered(solution.problem, solution.steps[:count], [GOOD] * count)[:-1], "")

    async def _rewards(self, chain: Chain, solution: Solution) -> list[float]:
        rewards = await chain.step_rewards(chain.render(*marked(solution.problem, solution.steps)), QWEN_TAG)
        if len(rewards) != len(solution.steps):
            raise ModelError(f"{len(rewards)} rewards for {len(solution.steps)} steps: is {QWEN_TAG} one token?")
        return rewards


def answered(problem: str, steps: Sequence[str], signs: Sequence[str]) -> list[Message]:
    """RLHFlow's conversation: a turn per step, and the sign behind it."""
    messages: list[Message] = []
    for index, (step, sign) in enumerate(zip(steps, signs, strict=True)):
        asked = f"{problem} {step}" if index == 0 else step
        messages += [{"role": "user", "content": asked}, {"role": "assistant", "content": sign}]
    return messages


def marked(problem: str, steps: Sequence[str]) -> tuple[list[Message], str]:
    """Qwen's conversation: the messages, and the answer that begins with all steps, a separator behind each."""
    messages: list[Message] = [
        {"role": "system", "content": QWEN_SYSTEM},
        {"role": "user", "content": problem.replace(QWEN_TAG, "")},
    ]
    return messages, "".join(step.replace(QWEN_TAG, "") + QWEN_TAG for step in steps)
