"""Which verdicts of the labels are learned, where a model's own rationales are (`rationale_synth.turns`)."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable
from typing import NamedTuple

from genprm.records import NO_ERROR, judged_steps
from genprm.styles import genprm as style
from genprm.train.record import ASSISTANT, Masked
from rationale_synth.records import LabelledSolution
from rationale_synth.transcript import Transcript


class Place(NamedTuple):
    """A verdict in the data."""

    id: str
    """Of the solution."""
    step: int


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
