"""A strong model criticises a whole solution in one conversation, with code that runs while it writes.

GenPRM, section 4.2: the model sees the problem and all steps, writes a section for each with an analysis and a check
in Python, reads what its code printed, thinks again where the two disagree, and in the end boxes the number of the
first wrong paragraph (from 1), or -1. Past its budget of runs or tokens the box is forced.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

from genprm.chain import Chain
from genprm.models.base import FinishReason, Message
from genprm.records import NO_ERROR, Record, Segment, SegmentKind
from genprm.styles.execution import OutputFormat, format_output
from genprm.styles.genprm import CODE_END, CODE_OUTPUT, FENCE
from rationale_synth.consensus import Reason
from sandbox import RunResult

SYSTEM = "You check solutions of math problems, paragraph by paragraph, with Python as your tool."
ASK = """Check the solution below. For every paragraph, in order, write a section of this form:

### Paragraph 1
<analyze>
what the paragraph claims, and whether it follows from the problem and the paragraphs before it
</analyze>
<verify>
```python
# works out the claim anew from the problem's own numbers, and prints what it finds
```
</verify>

What your code prints is shown to you right after it. If it contradicts your analysis, find out which of them is wrong \
before you close the section. Stop after the first wrong paragraph. At the end write the number of the first wrong \
paragraph in a box, as in \\boxed{2}, or \\boxed{-1} if there is none.

Problem: {problem}

{paragraphs}"""
FORCED = "\n\nThe number of the first wrong paragraph is \\boxed{"
BOX_TOKENS = 6
MARK = "[Code Output]"
_SECTION = re.compile(r"(?m)^### Paragraph (\d{1,4})\b[^\n]*$")
_PART = re.compile(r"<(analyze|verify)>\s*(.*?)\s*</\1>", re.DOTALL)
_BOX = re.compile(r"\\boxed\{\s*(-?\d{1,4})\s*\}")
_PYTHON = re.compile(r"(?m)^[ \t]*" + re.escape(FENCE) + r"python[ \t]*\n")
_ANY_PYTHON = re.compile(r"(?m)^[ \t]*" + re.escape(FENCE) + r"py(?:thon)?3?[ \t]*$")
_FENCE_LINE = re.compile(r"(?m)^[ \t]*" + re.escape(FENCE) + r"[^`\n]*$")
_OPEN = re.compile(r"<(?:analyze|verify)>")


class Output(Record):
    """Where in a critique the sandbox's output stands, and what it was."""

    start: int
    end: int
    shown: str
    run: RunResult


class Critique(Record):
    """What the model wrote, with the outputs spliced in."""

    text: str
    outputs: tuple[Output, ...] = ()


class Judgement(Record):
    """A critique that could be read."""

    first_error: int
    rationales: tuple[tuple[Segment, ...], ...]
    """Of each step up to the first error."""


def critique_messages(problem: str, steps: Sequence[str]) -> list[Message]:
    """What the model is asked."""
    paragraphs = "\n".join(f"<paragraph_{n}>\n{step}\n</paragraph_{n}>" for n, step in enumerate(steps, 1))
    asked = ASK.replace("{problem}", problem).replace("{paragraphs}", paragraphs)
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": asked}]


async def write_critique(chain: Chain, problem: str, steps: Sequence[str]) -> Critique:
    """Let the model criticise a solution; its code runs as it is written.

    Raises:
        WallTimeError: the chain's time is up.
        ModelError: the model failed, or its context is full.
        SandboxError: the sandbox failed.
    """
    messages = critique_messages(problem, steps)
    budget = chain.budget
    text, left, outputs = "", budget.step_tokens * len(steps), list[Output]()
    while left > 0:
        written = await chain.write(chain.render(messages, text), [CODE_END], left)
        left -= written.completion_tokens
        text += written.text
        if written.finish_reason is FinishReason.LENGTH or not written.text:
            break
        block = _open_block(text[outputs[-1].end if outputs else 0 :])
        if block is None and (written.finish_reason is FinishReason.END or not _is_in_part(text)):
            break
        text += CODE_END
        opened = _PYTHON.match(block) if block else None  # else the line opened a block, of no language
        if block is None or opened is None:
            continue
        if len(outputs) >= budget.runs * len(steps):
            break
        run = await chain.run(block[opened.end() :].strip())
        shown = format_output(run, OutputFormat.REFERENCE, budget.output_chars)
        spliced = CODE_OUTPUT.format(output=shown)
        outputs.append(Output(start=len(text), end=len(text) + len(spliced), shown=shown, run=run))
        text += spliced
    if not _boxes(text[outputs[-1].end if outputs else 0 :]):
        text = text.rstrip("\n") + FORCED
        text += (await chain.write(chain.render(messages, text), ["}"], BOX_TOKENS)).text + "}"
    return Critique(text=text, outputs=tuple(outputs))


def read_critique(critique: Critique, steps: int) -> Judgement | Reason:
    """The judgement in a critique of so many steps, or why there is none."""
    written = _written(critique, 0, len(critique.text))
    if MARK in written:
        return Reason.FORGED_OUTPUT
    boxes = _boxes(written)
    if not boxes:
        return Reason.NO_VERDICT
    number = int(boxes[-1])
    if number != NO_ERROR and not 1 <= number <= steps:
        return Reason.NO_SUCH_STEP
    judged = steps if number == NO_ERROR else number
    sections = _sections(critique.text)
    if [section for section, _, _ in sections[:judged]] != list(range(1, judged + 1)):
        return Reason.MISSING_SECTION
    rationales = []
    for _, start, end in sections[:judged]:
        segments, section = _segments(critique, start, end), _written(critique, start, end)
        if len(_ANY_PYTHON.findall(section)) > sum(start <= output.start < end for output in critique.outputs):
            return Reason.UNRUN_CODE
        if _is_in_part(section) or not any(segment.kind is SegmentKind.ANALYSIS for segment in segments):
            return Reason.MISSING_SECTION
        rationales.append(segments)
    return Judgement(first_error=number if number == NO_ERROR else number - 1, rationales=tuple(rationales))


def _boxes(written: str) -> list[str]:
    """The numbers that are boxed as a verdict: outside of the sections' parts, where an answer may be quoted."""
    free, forced, end = written.partition(FORCED)
    return _BOX.findall(_OPEN.split(_PART.sub("", free))[0] + forced + end)


def _open_block(text: str) -> str | None:
    """The code block that is still open at the end of a text, from its fence on."""
    fences = [*_FENCE_LINE.finditer(text)]
    return text[fences[-1].start() :] if len(fences) % 2 else None


def _is_in_part(text: str) -> bool:
    """Whether a text ends within a section's analysis or check."""
    return _OPEN.search(_PART.sub("", text)) is not None


def _written(critique: Critique, start: int, end: int) -> str:
    """What the model itself wrote between two places, outside of the outputs."""
    parts, at = [], start
    for output in critique.outputs:
        if start <= output.start < end:
            parts.append(critique.text[at : output.start])
            at = output.end
    return "".join([*parts, critique.text[at:end]])


def _sections(text: str) -> list[tuple[int, int, int]]:
    """The number of each section, and from where to where it goes."""
    heads = list(_SECTION.finditer(text))
    ends = [*(head.start() for head in heads), len(text)][1:]
    return [(int(head[1]), head.end(), end) for head, end in zip(heads, ends, strict=True)]


def _segments(critique: Critique, start: int, end: int) -> tuple[Segment, ...]:
    """The parts of a section, in order: argument, code, the sandbox's output."""
    found: list[Segment] = []
    for part in _PART.finditer(critique.text, start, end):
        inside = [output for output in critique.outputs if part.start(2) <= output.start < part.end()]
        bounds = [part.start(2), *(place for output in inside for place in (output.start, output.end)), part.end(2)]
        pairs = list(pairwise(bounds))
        for number, (begin, stop) in enumerate(pairs):
            if number % 2 == 0:
                found += _argument_and_code(critique.text[begin : max(begin, stop)])
            else:
                output = inside[number // 2]
                found.append(Segment(kind=SegmentKind.OUTPUT, text=output.shown, run=output.run))
    return tuple(found)


def _argument_and_code(text: str) -> list[Segment]:
    """Text between two outputs: it may end in a block of code that was run."""
    argument, block = text, ""
    if text.endswith(CODE_END) and (opened := [*_PYTHON.finditer(text)]):
        argument, block = text[: opened[-1].start()], text[opened[-1].end() :].removesuffix(CODE_END)
    kinds = ((SegmentKind.ANALYSIS, argument), (SegmentKind.CODE, block))
    return [Segment(kind=kind, text=part.strip()) for kind, part in kinds if part.strip()]
