"""ThinkPRM's style (arXiv 2504.16828, section 3): one long chain, a boxed verdict per step, then Yes or No.

The conversation is one user turn with the problem and the numbered steps; the assistant's turn begins with
``Let's verify step by step:``. When the chain is over, ``Is the solution correct?`` is written for the model and
P(Yes) read there: that is the solution's score. The steps' verdicts are words in the text: 1 or 0.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Sequence
from typing import NamedTuple

from genprm.aggregate import Aggregate
from genprm.chain import Chain, WallTimeError
from genprm.errors import ContextFullError
from genprm.models.base import FinishReason, Message
from genprm.records import ParseStatus, Segment, SegmentKind, Solution, StepVote, StopReason, Verdict
from genprm.styles.base import NUMBERED, Style

START = "Let's verify step by step:"
QUESTION = "Is the solution correct?"
THOUGHT_END = "</think>"
TRIGGERS = ("Let me double check", "Let's verify again", "Did I miss something?")
"""What the second, third and fourth round begin with; one phrase again and again would be copied by the model."""
MAX_ROUNDS = 1 + len(TRIGGERS)
_BEFORE = "Here is a math problem and a solution to it, one step per line."
_BEHIND = (
    "Examine every step and decide whether it is correct. If the solution is not finished, judge only the steps that "
    "are there."
)
HEADING = re.compile(r"^[ \t>*#]*Step[ \t]+(\d{1,4})[ \t]*[*]*[:.][*]*", re.MULTILINE | re.IGNORECASE)
VERDICT = re.compile(r"\\boxed\{\s*(?:\\text\{\s*)?(correct|incorrect)\s*\}?\s*\}", re.IGNORECASE)
_ON_ALL = re.compile(
    r"(?i)(?:\boverall\b|\bin (?:conclusion|summary)\b"
    r"|\b(?:the|this) (?:(?:whole|entire|full|given|proposed) )?solution (?:as a whole )?is\b)[^.\n]*\Z"
)
"""A sentence that ends in a verdict on the solution, not on a step."""
_BOXED = re.compile(r"\\boxed\{")
_CORRECT = {"correct": True, "incorrect": False}


def asked(problem: str, steps: Sequence[str]) -> str:
    """What the verifier is asked about a solution."""
    lines = "\n".join(f"Step {number}: {NUMBERED.sub('', step).strip()}" for number, step in enumerate(steps, 1))
    return f"{_BEFORE}\n\n[Math Problem]\n\n{problem}\n\n[Solution]\n\n{lines}\n\n{_BEHIND}"


class ThinkPRM(Style):
    """One chain over all steps.

    Args:
        rounds: times that the model is made to go on after it has come to an end (sequential scaling), the first
            included; 1 to `MAX_ROUNDS`.
    """

    name = "thinkprm"
    aggregate = Aggregate.MAJORITY
    stepwise = False
    judges_whole = True

    def __init__(self, *, rounds: int = 1) -> None:
        if not 1 <= rounds <= MAX_ROUNDS:
            raise ValueError(f"rounds is {rounds}: expected 1 to {MAX_ROUNDS}")
        self._rounds = rounds

    async def verify(self, chain: Chain, solution: Solution, first: int = 0) -> AsyncGenerator[StepVote, None]:
        messages: list[Message] = [{"role": "user", "content": asked(solution.problem, solution.steps)}]
        header = chain.render(messages, "")
        prompt = header + ("" if header.endswith("\n") else "\n") + START
        text, stop_reason = "", StopReason.JUDGED
        for begin in ("", *TRIGGERS[: self._rounds - 1]):
            left = chain.text_tokens
            if left <= 0:
                stop_reason = StopReason.TOKEN_BUDGET
                break
            further = f"{text}\n\n{begin}" if begin else ""
            try:
                written = await chain.write(prompt + further, [THOUGHT_END, QUESTION], left)
            except (ContextFullError, WallTimeError):
                if not begin:
                    raise
                break  # what the rounds before have said stays
            text = (further + written.text).rstrip()
            cut = written.finish_reason is FinishReason.LENGTH
            stop_reason = StopReason.TOKEN_BUDGET if cut else StopReason.JUDGED
        for vote in read_chain(text, len(solution.steps), stop_reason):
            yield vote
        asking = f"{prompt}{text}\n{THOUGHT_END}\n{QUESTION}"
        score, parse = await chain.choose(asking, " Yes", " No")
        word = "?" if score is None else {Verdict.CORRECT: "Yes", Verdict.INCORRECT: "No"}[Verdict.of(score)]
        judgement = Segment(kind=SegmentKind.JUDGEMENT, text=word)
        yield StepVote(score=score, segments=(judgement,), stop_reason=stop_reason, parse=parse)


class _Section(NamedTuple):
    text: str
    correct: bool | None


def read_chain(text: str, steps: int, stop_reason: StopReason) -> list[StepVote]:
    """The verdict of each of ``steps`` steps, in a chain however it is laid out.

    A step's section begins with its number; without any such heading, the verdicts are the steps' in their order. Of
    several sections on one step, or several verdicts in one section, the last counts: the model thought again; but not
    one on the solution as a whole. Steps behind the first wrong one need no verdict. Boxed numbers are mathematics, no
    verdicts.
    """
    sections = _sections(text)
    votes: list[StepVote] = []
    failed = False
    for number in range(1, steps + 1):
        seen = sections.get(number, [])
        verdict = next((section.correct for section in reversed(seen) if section.correct is not None), None)
        segments: list[Segment] = []
        for section in seen:
            segments.append(Segment(kind=SegmentKind.ANALYSIS, text=section.text))
            if section.correct is not None:
                word = "correct" if section.correct else "incorrect"
                segments.append(Segment(kind=SegmentKind.JUDGEMENT, text=word))
        if verdict is not None:
            votes.append(StepVote(score=float(verdict), segments=tuple(segments), stop_reason=stop_reason))
            failed = failed or not verdict
            continue
        if failed:
            reason, parse = StopReason.AFTER_ERROR, ParseStatus.NOT_ASKED
        else:
            reason, parse = stop_reason, _why_not(text, seen, stop_reason)
        votes.append(StepVote(score=None, segments=tuple(segments), stop_reason=reason, parse=parse))
    return votes


def _why_not(text: str, seen: Sequence[_Section], stop_reason: StopReason) -> ParseStatus:
    if not text.strip():
        return ParseStatus.EMPTY
    if any(_BOXED.search(section.text) for section in seen):
        return ParseStatus.UNKNOWN_WORD
    return ParseStatus.TRUNCATED if stop_reason is StopReason.TOKEN_BUDGET else ParseStatus.MISSING


def _sections(text: str) -> dict[int, list[_Section]]:
    headings = list(HEADING.finditer(text))
    sections: dict[int, list[_Section]] = {}
    if not headings:
        begin = 0
        for number, verdict in enumerate(VERDICT.finditer(text), 1):
            section = _Section(text[begin : verdict.start()].strip(), _CORRECT[verdict[1].lower()])
            sections[number] = [section]
            begin = verdict.end()
        return sections
    ends = [heading.start() for heading in headings[1:]] + [len(text)]
    for heading, end in zip(headings, ends, strict=True):
        body = text[heading.end() : end]
        verdicts = list(VERDICT.finditer(body))
        while len(verdicts) > 1 and _ON_ALL.search(body, verdicts[-2].end(), verdicts[-1].start()):
            verdicts.pop()
        correct = _CORRECT[verdicts[-1][1].lower()] if verdicts else None
        sections.setdefault(int(heading[1]), []).append(_Section(body.strip(), correct))
    return sections
