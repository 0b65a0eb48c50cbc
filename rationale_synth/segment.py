"""Where a step ends: how a policy is asked for steps, and how what it wrote is split so that nothing is lost.

The pieces of a split, put together, are the solution to the character: a rollout goes on from exactly what the policy
had written.
"""

from __future__ import annotations

import re
from enum import Enum

from genprm.models.base import Message
from genprm.solving import ASK, EXAMPLE, SOLVED, STEP_END, paragraphs, solving_messages, without_blank

_PROMPTS = {
    "step-forcing": f"Solve the problem below in numbered steps. {ASK}",
    "chunk": f"Solve the problem below, one thought after the other. {ASK}",
}
_CHUNK_PROMPT = (
    "Below is a solution to a problem. Mark its parts: put <chunk> before and </chunk> after each part that serves one "
    "purpose. A part is a whole thought: setting up an equation, one calculation, a conclusion. Start a new part where "
    "the purpose changes. Copy every character of the solution, and write nothing else."
)
_STEP = re.compile(r"(?m)^(?=[#*_ \t]*Step \d+\s*[:.])")
_CHUNK = re.compile(r"<chunk>(.*?)</chunk>(\s*)", re.DOTALL)


class Segmentation(str, Enum):
    """How a solution is cut into steps."""

    BLANK_LINE = "blank-line"
    STEP_FORCING = "step-forcing"
    """The answer is begun with "Step 1:" (GenPRM, section 4.1)."""
    CHUNK = "chunk"
    """The policy marks the parts of what it wrote (StepWiser, section 3.1)."""


def policy_messages(segmentation: Segmentation, problem: str, *, example: bool = False) -> list[Message]:
    """What the policy is asked; with an ``example`` for one that would not find into the format by itself."""
    if segmentation is Segmentation.BLANK_LINE:
        return solving_messages(problem, example=example)
    asked = _PROMPTS[segmentation.value]
    shown: list[Message] = []
    if example:
        solved = [f"Step {n}: {step}" for n, step in enumerate(SOLVED, 1)]
        answer = STEP_END.join(solved if segmentation is Segmentation.STEP_FORCING else SOLVED)
        shown = [{"role": "user", "content": f"{asked}\n\n{EXAMPLE}"}, {"role": "assistant", "content": answer}]
    return [*shown, {"role": "user", "content": f"{asked}\n\n{problem}"}]


def forced_start(segmentation: Segmentation) -> str:
    """What the policy's answer is begun with."""
    return "Step 1:" if segmentation is Segmentation.STEP_FORCING else ""


def chunk_messages(problem: str, solution: str) -> list[Message]:
    """Ask for a solution's chunks."""
    return [{"role": "user", "content": f"{_CHUNK_PROMPT}\n\nProblem: {problem}\n\nSolution:\n{solution}"}]


def split(segmentation: Segmentation, text: str) -> tuple[str, ...]:
    """Cut a solution by what stands in it; the pieces, joined, are ``text``."""
    if segmentation is Segmentation.STEP_FORCING:
        return without_blank(_STEP.split(text))
    return paragraphs(text)


def read_chunks(marked: str, text: str) -> tuple[str, ...] | None:
    """The chunks of ``text`` as a model marked them, or None if what it wrote is not ``text``, all of it, in chunks."""
    marked = marked.strip()
    pieces = [inside + space for inside, space in _CHUNK.findall(marked)]
    joined = "".join(pieces)
    if "".join(_CHUNK.sub("", marked).split()) or joined.strip() != text.strip():
        return None
    if not joined.strip():
        return None
    # What stands around the chunks in the original (blank space) belongs to the first and the last of them.
    lead, tail = text[: len(text) - len(text.lstrip())], text[len(text.rstrip()) :]
    pieces[0] = lead + pieces[0].lstrip()
    pieces[-1] = pieces[-1].rstrip() + tail
    return without_blank(pieces)
