"""A judged solution as the conversation that a GenPRM is trained on: one turn per step, its format the verifier's.

What the verifier writes for the model, and what the sandbox printed, stands in the turns, but is not the model's: its
places are recorded, so that a trainer can leave them out of the loss. So are those of code that did not run: it is
there to be read, not to be written again.
"""

from __future__ import annotations

from collections.abc import Sequence

from genprm.records import Record, Segment, SegmentKind, Verdict, judged_steps
from genprm.styles import genprm as style
from genprm.train.record import ChatMessage, Masked


class Transcript(Record):
    """A conversation, and what of it is no target."""

    messages: tuple[ChatMessage, ...]
    masked: tuple[Masked, ...] = ()


def genprm_transcript(
    problem: str, steps: Sequence[str], rationales: Sequence[Sequence[Segment]], first_error: int
) -> Transcript:
    """The conversation in which these steps were judged, up to the first error.

    Args:
        problem: the problem.
        steps: the solution's steps.
        rationales: the segments of each step's rationale, without its judgement.
        first_error: the first wrong step, -1 for none.
    """
    messages = [ChatMessage(role="system", content=style.SYSTEM)]
    masked: list[Masked] = []
    judged = zip(judged_steps(steps, first_error), judged_steps(rationales, first_error), strict=True)
    for index, (step, segments) in enumerate(judged):
        asked = f"Question: {problem}\n\n{step}" if index == 0 else step
        messages.append(ChatMessage(role="user", content=asked))
        verdict = Verdict.INCORRECT if index == first_error else Verdict.CORRECT
        content, places = _turn(index + 1, segments, verdict)
        masked += [Masked(message=len(messages), start=start, end=end) for start, end in places]
        messages.append(ChatMessage(role="assistant", content=content))
    return Transcript(messages=tuple(messages), masked=tuple(masked))


def _turn(number: int, segments: Sequence[Segment], verdict: Verdict) -> tuple[str, list[tuple[int, int]]]:
    """The assistant's turn on one step, and what stands in it that the model did not write."""
    analysis, checks = _analysis(segments)
    turn = _Turn()
    turn.given(style.ANALYZE.format(step=number))
    turn.written(analysis + style.ANALYZE_END)
    if checks:
        turn.given(style.VERIFY)
        for place, segment in enumerate(checks):
            if segment.kind is SegmentKind.CODE:
                put = turn.given if _failed(checks[place + 1 :]) else turn.written
                put(style.PYTHON * (place > 0) + segment.text + style.CODE_END)
            elif segment.kind is SegmentKind.OUTPUT:
                turn.given(style.CODE_OUTPUT.format(output=segment.text))
            else:
                turn.written(segment.text + "\n")
        turn.written(style.VERIFY_END + style.OUTPUT_OPEN)  # the model opens it, to say that it has seen enough
    else:
        turn.given(style.OUTPUT_OPEN)
    turn.given(style.JUDGEMENT)
    turn.written(style.WORDS[verdict])
    turn.given(style.JUDGEMENT_END)
    return turn.text, turn.places


def _failed(rest: Sequence[Segment]) -> bool:
    """Whether the code before these segments did not run to its end."""
    return bool(rest) and rest[0].run is not None and rest[0].run.status != "ok"


class _Turn:
    """A turn that is put together."""

    def __init__(self) -> None:
        self.text = ""
        self.places: list[tuple[int, int]] = []

    def written(self, text: str) -> None:
        """By the model."""
        self.text += text

    def given(self, text: str) -> None:
        """For the model."""
        self.places.append((len(self.text), len(self.text) + len(text)))
        self.text += text


def _analysis(segments: Sequence[Segment]) -> tuple[str, Sequence[Segment]]:
    """What was argued before the first code, and the rest."""
    rest = [segment for segment in segments if segment.kind is not SegmentKind.JUDGEMENT]
    first = next((place for place, segment in enumerate(rest) if segment.kind is SegmentKind.CODE), len(rest))
    return "\n".join(segment.text for segment in rest[:first]), rest[first:]
