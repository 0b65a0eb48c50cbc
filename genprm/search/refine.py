"""Critique and refine: what the verifier says of wrong steps goes back to the policy (GenPRM)."""

from __future__ import annotations

from genprm.errors import ModelError, ModelUnavailableError, VerificationError
from genprm.models.base import Message
from genprm.records import NO_ERROR, SegmentKind, Verdict, Verification
from genprm.search.base import Path, Search

_FOUND = "A reviewer has gone through your solution and found fault with it."
_AGAIN = "Solve the problem once more, from the start and in the same form. Mend what is wrong; keep what is right."


async def refine(search: Search, *, turns: int) -> None:
    """Write a solution; as long as the verifier finds an error, write it again, up to ``turns`` times."""
    messages: list[Message] = list(search.messages)
    for turn in range(turns + 1):
        try:
            [written] = await search.write(Path(), first=turn, messages=messages)
            judged = await search.judge(written)
        except (ModelError, VerificationError) as error:
            if turn == 0 or isinstance(error, ModelUnavailableError):
                raise
            break  # what was offered before stays
        if judged.score is None and turn > 0:
            break  # nothing is known of it: what was offered before stays
        await search.offer(judged)
        report = judged.report
        if report is None or report.first_error == NO_ERROR:
            break
        # Only the last solution and its critique: the context does not grow with the turns.
        messages = [
            *search.messages,
            {"role": "assistant", "content": judged.text},
            {"role": "user", "content": f"{_FOUND}\n\n{critique(report)}\n\n{_AGAIN}"},
        ]


def critique(report: Verification) -> str:
    """What is wrong with each step that was judged wrong, in the verifier's words."""
    parts = []
    for step in report.steps:
        if step.verdict is Verdict.INCORRECT:
            said = [each.text.strip() for each in step.segments if each.kind is SegmentKind.ANALYSIS]
            argument = "\n".join(said) or "It is wrong."
            parts.append(
                f"Paragraph {step.index + 1}, which begins {_beginning(report.solution[step.index])}:\n{argument}"
            )
    return "\n\n".join(parts)


def _beginning(step: str) -> str:
    line = step.strip().splitlines()[0]
    return repr(line if len(line) <= 60 else line[:60] + "...")
