"""A model's own rationales, with the verdicts of the labels: what is a derivation worth that may be wrong?

A verifier that was only shown faultless derivations takes its own ones for faultless, and judges by them alone. Here
it argues and computes as it does in use, and learns which verdict was right after that. Where it came to another one,
its rationale is no target, only the verdict is.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable
from typing import NamedTuple

from genprm.chain import Chain
from genprm.models.base import Message
from genprm.records import NO_ERROR, Verdict, judged_steps
from genprm.styles import genprm as style
from genprm.train.record import ASSISTANT, ChatMessage, Masked
from rationale_synth.consensus import Reason
from rationale_synth.records import LabelledSolution
from rationale_synth.transcript import Transcript


class Place(NamedTuple):
    """A verdict in the data."""

    id: str
    """Of the solution."""
    step: int


async def write_taught(chain: Chain, solution: LabelledSolution) -> tuple[int, Transcript] | Reason:
    """Let the model verify each step up to the first wrong one; whatever it says, go on from the label's verdict.

    Returns:
        The first error that the model named itself, -1 for none, and the conversation; or why there is none.
    """
    messages: list[Message] = [{"role": "system", "content": style.SYSTEM}]
    masked: list[Masked] = []
    judged = NO_ERROR
    for index, step in enumerate(judged_steps(solution.steps, solution.label)):
        messages.append({"role": "user", "content": style.asked_about(solution.problem, step, index)})
        turn = style.Turn(chain, messages, index + 1)
        await turn.analyse()
        await turn.check()
        said = (await turn.judge()).verdict
        if said is None:
            return Reason.NO_VERDICT
        if said is Verdict.INCORRECT and judged == NO_ERROR:
            judged = index
        known = Verdict.INCORRECT if index == solution.label else Verdict.CORRECT
        *argued, _, ending = turn.pieces
        pieces = [(text, own and said is known) for text, own in argued] + [(style.WORDS[known], True), ending]
        place = 0
        for text, is_target in pieces:
            if text and not is_target:
                masked.append(Masked(message=len(messages), start=place, end=place + len(text)))
            place += len(text)
        messages.append({"role": ASSISTANT, "content": "".join(text for text, _ in pieces)})
    return judged, Transcript(messages=tuple(ChatMessage(**each) for each in messages), masked=tuple(masked))


def verdicts_to_mask(solutions: Iterable[LabelledSolution], per_wrong: float) -> set[Place]:
    """The verdicts on right steps that are to be no targets, so that a wrong step has but ``per_wrong`` right ones.

    Most steps are right, and a verifier that learns from all of them hardly ever says No. Each wrong step gets right
    ones of its own place in the solution: else its place would give it away, and no argument would be needed.

    Args:
        solutions: whose conversations are kept.
        per_wrong: right steps for each wrong one.
    """
    right: defaultdict[int, list[Place]] = defaultdict(list)
    wrong: Counter[int] = Counter()
    for solution in solutions:
        if solution.label != NO_ERROR:
            wrong[solution.label] += 1
        for step in range(len(judged_steps(solution.steps, solution.label)) - (solution.label != NO_ERROR)):
            right[step].append(Place(solution.id, step))
    masked = set[Place]()
    for step, places in right.items():
        # By a hash: which ones stay depends neither on their order nor on chance.
        places.sort(key=lambda place: hashlib.sha256(f"{place.step}/{place.id}".encode()).digest())
        masked.update(places[round(per_wrong * wrong[step]) :])
    return masked


def without_verdicts(transcript: Transcript, steps: Collection[int]) -> Transcript:
    """The conversation with the verdicts on some steps masked."""
    places = [place for place, message in enumerate(transcript.messages) if message.role == ASSISTANT]
    masked = list(transcript.masked)
    for step in steps:
        content = transcript.messages[places[step]].content
        opened = content.rindex(style.JUDGEMENT) + len(style.JUDGEMENT)
        masked.append(Masked(message=places[step], start=opened, end=len(content) - len(style.JUDGEMENT_END)))
    masked.sort(key=lambda at: (at.message, at.start))
    return transcript.model_copy(update={"masked": tuple(masked)})
