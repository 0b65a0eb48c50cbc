"""LLM as a judge, as ProcessBench asks it (arXiv 2412.06559, section 3): which paragraph is the first wrong one?

One text over the whole solution, whose steps are tagged ``<paragraph_0>`` ...; at its end a boxed index, -1 for none.
The index is a word, no probability: a step's score is 1 or 0, and the share of chains where several are drawn.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Sequence

from genprm.aggregate import Aggregate
from genprm.answers import last_boxed
from genprm.chain import Chain
from genprm.models.base import FinishReason, Message
from genprm.records import NO_ERROR, ParseStatus, Segment, SegmentKind, Solution, StepVote, StopReason
from genprm.styles.base import Style

INDEX_TOKENS = 6
FORCED = "\n\nIndex of the first wrong paragraph (-1 if there is none): $\\boxed{"
_DRESS = re.compile(r"\\(?:text|textbf|mathbf|mathrm)\b|[{}<>*$]|\.\s*$")
"""What an index is dressed in."""
_INDEX = re.compile(r"\s*(?:paragraph[_ ]?)?(-?\d{1,6})\s*", re.IGNORECASE)
_ASK = (
    "Below are a math problem and a solution to it, cut into paragraphs that are tagged and numbered from 0.\n\n"
    "[Math Problem]\n\n{problem}\n\n[Solution]\n\n{tagged}\n\n"
    "Go through the paragraphs and examine each one critically. At the first one with an error, answer with its index; "
    "if there is no error, answer with -1. Put the index, and nothing else, into \\boxed{{}} at the end."
)


def asked(problem: str, steps: Sequence[str]) -> str:
    """What the judge is asked about a solution."""
    tagged = "\n\n".join(
        f"<paragraph_{index}>\n{step}\n</paragraph_{index}>" for index, step in enumerate(steps)
    )  # fmt: skip
    return _ASK.format(problem=problem, tagged=tagged)


class Judge(Style):
    """A general model that names the first wrong step."""

    name = "judge"
    aggregate = Aggregate.MAJORITY
    stepwise = False
    judges_whole = True

    async def verify(self, chain: Chain, solution: Solution, first: int = 0) -> AsyncGenerator[StepVote, None]:
        messages: list[Message] = [{"role": "user", "content": asked(solution.problem, solution.steps)}]
        prompt = chain.render(messages, "")
        written = await chain.write(prompt, (), chain.text_tokens)
        text, stop_reason = written.text, StopReason.JUDGED
        cut = written.finish_reason is FinishReason.LENGTH
        said = text
        if cut or last_boxed(text) is None:  # a box on the way is no verdict
            stop_reason = StopReason.TOKEN_BUDGET if cut else StopReason.END_OF_TEXT
            forced = await chain.write(prompt + text + FORCED, ["}"], INDEX_TOKENS)
            said = FORCED + forced.text + "}" * (1 + forced.text.count("{"))
            text += said
        index, parse = read_index(said, len(solution.steps))
        for vote in _step_votes(index, parse, stop_reason, len(solution.steps)):
            yield vote
        segments = (
            Segment(kind=SegmentKind.ANALYSIS, text=text.strip()),
            Segment(kind=SegmentKind.JUDGEMENT, text="?" if index is None else str(index)),
        )
        score = None if index is None else float(index == NO_ERROR)
        yield StepVote(score=score, segments=segments, stop_reason=stop_reason, parse=parse)


def read_index(text: str, steps: int) -> tuple[int | None, ParseStatus]:
    """The index in the last box of a text, -1 for "no error"."""
    boxed = last_boxed(text)
    if boxed is None:
        return None, ParseStatus.MISSING if text.strip() else ParseStatus.EMPTY
    found = _INDEX.fullmatch(_DRESS.sub("", boxed.replace("\\_", "_")))
    if not found:
        return None, ParseStatus.UNKNOWN_WORD
    index = int(found[1])
    if not NO_ERROR <= index < steps:
        return None, ParseStatus.OUT_OF_RANGE
    return index, ParseStatus.OK


def _step_votes(index: int | None, parse: ParseStatus, stop_reason: StopReason, steps: int) -> list[StepVote]:
    if index is None:
        return [StepVote(score=None, stop_reason=stop_reason, parse=parse)] * steps
    right = StepVote(score=1.0, stop_reason=stop_reason)
    if index == NO_ERROR:
        return [right] * steps
    wrong = StepVote(score=0.0, stop_reason=stop_reason)
    rest = StepVote(score=None, stop_reason=StopReason.AFTER_ERROR, parse=ParseStatus.NOT_ASKED)
    return [*[right] * index, wrong, *[rest] * (steps - index - 1)]
