"""What a policy wrote, as a solution. Whatever it is, it must not end somebody's training."""

from __future__ import annotations

import logging

from genprm.records import OutputRow, Solution, Verification, as_text
from genprm.solving import paragraphs

_logger = logging.getLogger(__name__)


def as_solution(id: str, problem: str, written: str) -> Solution | None:
    """A solution whose steps end at empty lines; None where nothing was written.

    Raises:
        pydantic.ValidationError: the problem is empty.
    """
    text = as_text(written)
    return Solution(id=id, problem=as_text(problem), steps=paragraphs(text)) if text.strip() else None


def verified(row: OutputRow) -> Verification | None:
    """What came of a solution; None where that failed, which the log then tells of."""
    if isinstance(row, Verification):
        return row
    _logger.warning("%s could not be verified: %s", row.id, row.error)
    return None
