"""ThinkPRM's chains (arXiv 2504.16828, section 3 and appendix): one long verification, a boxed verdict per step.

The synthesis prompt asks the model to stop after the first wrong step; the prompt of the training record does not.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from genprm.chain import Chain
from genprm.models.base import FinishReason, Message
from genprm.records import NO_ERROR
from genprm.styles.thinkprm import HEADING, QUESTION, START, VERDICT, asked
from genprm.train.record import ChatMessage
from rationale_synth.consensus import Reason
from rationale_synth.transcript import Transcript

_SHAPE = (
    f"Write your answer like this:\n{START}\nStep 1: your critique. The step is \\boxed{{correct}}\n"
    "Step 2: your critique. The step is \\boxed{incorrect}\nStop after the first incorrect step."
)


def chain_messages(problem: str, steps: Sequence[str]) -> list[Message]:
    """What a model is asked for a chain."""
    return [{"role": "user", "content": f"{asked(problem, steps)}\n\n{_SHAPE}"}]


async def write_chain(chain: Chain, problem: str, steps: Sequence[str]) -> str | Reason:
    """Let the model verify a solution in one go; returns what it wrote.

    Raises:
        WallTimeError: the chain's time is up.
        ModelError: the model failed, or its context is full.
    """
    most = chain.budget.step_tokens * len(steps)
    written = await chain.write(chain.render(chain_messages(problem, steps), START), [QUESTION], most)
    if written.finish_reason is FinishReason.LENGTH:
        return Reason.TOO_LONG
    return START + written.text


def read_chain(text: str, steps: int) -> tuple[str, int] | Reason:
    """The chain up to its last verdict, and the first error it names, or why it cannot be read.

    There must be a verdict for every step, or for every step up to the first that it calls wrong.

    Args:
        text: what the model wrote.
        steps: how many there are.
    """
    verdicts = list(VERDICT.finditer(text))
    if not verdicts:
        return Reason.NO_VERDICT
    if (numbers := _numbers(text, verdicts)) and numbers != list(range(1, len(verdicts) + 1)):
        return Reason.MISSING_SECTION if max(numbers) <= steps else Reason.NO_SUCH_STEP
    first = next((place for place, verdict in enumerate(verdicts) if verdict[1].lower() == "incorrect"), NO_ERROR)
    if len(verdicts) > steps:
        return Reason.NO_SUCH_STEP
    if len(verdicts) not in (steps, first + 1):
        return Reason.MISSING_SECTION
    return text[: verdicts[-1].end()].replace("<think>", "").replace("</think>", ""), first


def _numbers(text: str, verdicts: Sequence[re.Match[str]]) -> list[int]:
    """Of the step that each verdict stands under; none where the chain numbers no steps."""
    headings = [(heading.start(), int(heading[1])) for heading in HEADING.finditer(text)]
    if not headings:
        return []
    above = [[number for start, number in headings if start < verdict.start()] for verdict in verdicts]
    return [numbers[-1] if numbers else 0 for numbers in above]


def thinkprm_transcript(problem: str, steps: Sequence[str], chain: str, correct: bool) -> Transcript:
    """The training conversation: the chain as thought, then whether the solution is correct."""
    answer = f"<think>\n{chain}\n</think>\n{QUESTION} {'Yes' if correct else 'No'}"
    return Transcript(
        messages=(
            ChatMessage(role="user", content=asked(problem, steps)),
            ChatMessage(role="assistant", content=answer),
        )
    )
