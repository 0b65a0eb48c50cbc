"""How a model is asked to solve a problem, and where a step of what it writes ends: at an empty line."""

from __future__ import annotations

import re
from collections.abc import Sequence

from genprm.answers import GSM8K, last_boxed
from genprm.models.base import Message

ASK = "Put the final answer in \\boxed{} at the end."
SOLVE = f"Solve the problem below. Write a paragraph for each step, with an empty line between them. {ASK}"
EXAMPLE = "A box holds 6 red and 7 blue pens. Ann adds 4 pens. How many pens are in the box?"
SOLVED = ("At first there are 6 + 7 = 13 pens.", "Then there are 13 + 4 = 17 pens.", "The answer is \\boxed{17}.")
STEP_END = "\n\n"
_PARAGRAPH = re.compile(r"(?s).+?(?:\n[ \t\r]*\n\s*|\Z)")


def solving_messages(problem: str, *, example: bool = False) -> list[Message]:
    """What the policy is asked; with an ``example`` for one that would not find into the format by itself."""
    shown: list[Message] = []
    if example:
        shown = [
            {"role": "user", "content": f"{SOLVE}\n\n{EXAMPLE}"},
            {"role": "assistant", "content": STEP_END.join(SOLVED)},
        ]
    return [*shown, {"role": "user", "content": f"{SOLVE}\n\n{problem}"}]


def paragraphs(text: str) -> tuple[str, ...]:
    """Cut a solution behind each empty line; the pieces, joined, are ``text``."""
    return without_blank(_PARAGRAPH.findall(text))


def without_blank(pieces: Sequence[str]) -> tuple[str, ...]:
    """The pieces, each blank one put to its neighbour."""
    kept: list[str] = []
    lead = ""
    for piece in pieces:
        if piece.strip():
            kept.append(lead + piece)
            lead = ""
        elif kept:
            kept[-1] += piece
        else:
            lead += piece
    return tuple(kept)


def is_finished(text: str) -> bool:
    """Whether a solution has come to its final answer."""
    return last_boxed(text) is not None or GSM8K.search(text) is not None
