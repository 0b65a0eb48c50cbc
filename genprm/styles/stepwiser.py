"""StepWiser's style (arXiv 2508.19229, section 3.3): each chunk judged by itself, after an analysis.

The judge sees the problem, the chunks before and the new chunk; no earlier rationale. It writes an analysis and then
``Final Judgment: \\boxed{Positive}`` or ``\\boxed{Negative}``; P(Positive) is read where that word has to stand.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Sequence

from genprm.chain import Chain
from genprm.models.base import FinishReason, Message
from genprm.records import Segment, SegmentKind, Solution, StepVote, StopReason, Verdict
from genprm.styles.base import Style

JUDGEMENT = "Final Judgment: \\boxed{"
POSITIVE, NEGATIVE = "Positive", "Negative"
_WORDS = {Verdict.CORRECT: POSITIVE, Verdict.INCORRECT: NEGATIVE}
_SAID = re.compile(r"\\boxed\{\s*(?:\\text\{\s*)?(?=(?:positive|negative)\b)", re.IGNORECASE)
_JUDGING = re.compile(
    r"(?<!\s)\s*+\d*+\.?+\s*+\**+Final Judge?ment:?+\**+:?+\s*+\$?\\boxed\{.*$", re.DOTALL | re.IGNORECASE
)
_ASK = (
    "You validate mathematical reasoning, one chunk at a time. First reason, then decide whether the new chunk holds "
    "an explicit error; a chunk that computes nothing can be fine.\n"
    "1. Analysis: what the chunk is for; whether its logic, method and numbers agree with the problem and with what "
    "came before; what is wrong with it, if anything is.\n"
    f"2. {JUDGEMENT}{POSITIVE}}} if the chunk is right, {JUDGEMENT}{NEGATIVE}}} if it is wrong."
)


def asked(problem: str, before: Sequence[str], chunk: str) -> str:
    """What the judge is asked about a chunk."""
    path = "\n\n".join(before) or "(nothing yet)"
    return (
        f"{_ASK}\n\nMathematical Problem:\n{problem}\n\nHistorical Reasoning Path:\n{path}"
        f"\n\nNew Reasoning Chunk:\n{chunk}"
    )


class StepWiser(Style):
    """A judge of single chunks. The solution's steps are its chunks."""

    name = "stepwiser"
    independent = True

    async def verify(self, chain: Chain, solution: Solution, first: int = 0) -> AsyncGenerator[StepVote, None]:
        for index, chunk in enumerate(solution.steps[first:], first):
            question = asked(solution.problem, solution.steps[:index], chunk)
            messages: list[Message] = [{"role": "user", "content": question}]
            yield await self._judge(chain, chain.render(messages, ""))

    async def _judge(self, chain: Chain, prompt: str) -> StepVote:
        left = min(chain.budget.step_tokens, chain.tokens_left)
        text, stop_reason = "", StopReason.TOKEN_BUDGET
        if left > 0:
            written = await chain.write(prompt, (), left)
            text = written.text
            if written.finish_reason is not FinishReason.LENGTH:
                stop_reason = StopReason.END_OF_TEXT
        said = list(_SAID.finditer(text))
        if said:
            text, stop_reason = text[: said[-1].end()], StopReason.JUDGED
        else:
            text = f"{text.rstrip()}\n\n{JUDGEMENT}".lstrip("\n")
        score, parse = await chain.choose(prompt + text, POSITIVE, NEGATIVE)
        word = "?" if score is None else _WORDS[Verdict.of(score)]
        analysis = _JUDGING.sub("", text).strip()
        segments = [Segment(kind=SegmentKind.ANALYSIS, text=analysis)] if analysis else []
        segments.append(Segment(kind=SegmentKind.JUDGEMENT, text=word))
        return StepVote(score=score, segments=tuple(segments), stop_reason=stop_reason, parse=parse)
