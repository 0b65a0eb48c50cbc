"""Which of several answers to believe: best of N, majority, and votes weighted by a verifier (GenPRM, appendix A.1)."""

from __future__ import annotations

import math
import re
from collections.abc import Hashable, Iterable, Sequence
from enum import Enum
from functools import lru_cache
from typing import NamedTuple

from genprm.answers import exact_number, number_with_unit
from genprm.latex import undressed
from genprm.records import Verification

_DEGREES = re.compile(r"\^\{?\\circ\}?")
"""A unit that an answer can be written with or without."""


class Reduce(str, Enum):
    """How the scores of a solution's steps become one."""

    LAST = "last"
    MEAN = "mean"
    MIN = "min"
    PRODUCT = "product"


class Rule(str, Enum):
    """How one of several candidates is chosen."""

    BEST = "best"
    """The one with the highest score (best of N), of those that have an answer."""
    WEIGHTED = "weighted"
    """The answer whose candidates' scores have the highest sum; of them the best candidate."""
    MAJORITY = "majority"
    """The answer that most candidates give; scores only choose among equals."""


class Candidate(NamedTuple):
    """A solution, as far as the choice among several looks at it."""

    answer: str | None
    score: float | None
    """None: nothing is known. Such a candidate is never the best, and weighs nothing."""


def reduce_scores(scores: Sequence[float | None], how: Reduce) -> float | None:
    """One score for a solution; None if a step has none, or there is no step."""
    known = [score for score in scores if score is not None]
    if not known or len(known) < len(scores):
        return None
    if how is Reduce.LAST:
        return known[-1]
    if how is Reduce.MIN:
        return min(known)
    return math.prod(known) if how is Reduce.PRODUCT else sum(known) / len(known)


def verification_score(row: Verification, how: Reduce) -> float | None:
    """One score for a verified solution. Steps that nobody asked about do not count."""
    if row.whole is not None and how is Reduce.LAST:
        return row.whole.score
    return reduce_scores([step.score for step in row.steps if step.asked], how)


@lru_cache(maxsize=1 << 16)
def answer_key(answer: str | None) -> Hashable:
    """What equal answers have in common: the number they are, units aside, or their letters without layout."""
    if answer is None:
        return None
    plain = _DEGREES.sub("", undressed(answer))
    for read in (exact_number, number_with_unit):
        if (number := read(plain)) is not None:
            return number
    return "".join(plain.split()).lstrip("$").rstrip("$.")


def choose(candidates: Sequence[Candidate], rule: Rule) -> int | None:
    """The index of the candidate to believe; of equals the first. None if there is nothing to go by."""
    if rule is Rule.BEST:
        return _best(candidates, range(len(candidates)))
    giving: dict[Hashable, list[int]] = {}
    for index, candidate in enumerate(candidates):
        if candidate.answer is not None and (rule is Rule.MAJORITY or candidate.score is not None):
            giving.setdefault(answer_key(candidate.answer), []).append(index)
    if not giving:
        return None

    def support(indices: Sequence[int]) -> tuple[float, float]:
        weight = math.fsum(candidates[index].score or 0.0 for index in indices)
        return (len(indices) if rule is Rule.MAJORITY else weight), weight

    believed = max(giving.values(), key=support)
    best = _best(candidates, believed)
    return believed[0] if best is None else best


def _best(candidates: Sequence[Candidate], among: Iterable[int]) -> int | None:
    """The highest score; one without an answer, as where a solution was cut off, only where there is no other."""
    scored = [
        (candidates[index].answer is not None, score, -index)
        for index in among
        if (score := candidates[index].score) is not None
    ]
    return -max(scored)[2] if scored else None
