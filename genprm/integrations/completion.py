"""What a policy wrote, as a solution. Whatever it is, it must not end somebody's training."""

from __future__ import annotations

from genprm.records import Solution, as_text
from genprm.solving import paragraphs


def as_solution(id: str, problem: str, written: str) -> Solution | None:
    """A solution whose steps end at empty lines; None where nothing was written.

    Raises:
        pydantic.ValidationError: the problem is empty.
    """
    text = as_text(written)
    return Solution(id=id, problem=as_text(problem), steps=paragraphs(text)) if text.strip() else None
