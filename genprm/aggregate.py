"""From the votes of several chains to one verification. What is unscored enters no mean and no majority."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from genprm.records import (
    NO_ERROR,
    ParseStatus,
    Solution,
    StepVerification,
    StepVote,
    StopReason,
    Usage,
    Verdict,
    Verification,
    WholeVerification,
)


class Aggregate(str, Enum):
    """How the votes of several chains become one verdict."""

    MEAN = "mean"
    """Step by step: wrong where the mean score is under 0.5 (GenPRM, eq. 7)."""
    MAJORITY = "majority"
    """The first error that most chains name (ProcessBench's Maj@N for judges); of equals, the earlier step."""


@dataclass(frozen=True)
class ChainVotes:
    """What one chain says."""

    steps: tuple[StepVote, ...]
    """As many as the solution has steps."""
    usage: Usage
    whole: StepVote | None = None

    @property
    def first_error(self) -> int | None:
        """The first step it calls wrong, -1 for none; None where a missing verdict leaves that open."""
        for index, vote in enumerate(self.steps):
            if vote.verdict is not Verdict.CORRECT and not vote.given:
                return index if vote.verdict is Verdict.INCORRECT else None
        return NO_ERROR


def mean_score(votes: Sequence[StepVote]) -> float | None:
    """The mean of the votes that have a score, None if none has."""
    scores = [vote.score for vote in votes if vote.score is not None]
    return sum(scores) / len(scores) if scores else None


def first_error_by_mean(chains: Sequence[ChainVotes]) -> int:
    """The first step whose mean score is under 0.5, -1 for none."""
    for index in range(len(chains[0].steps)):
        score = mean_score([chain.steps[index] for chain in chains])
        if score is not None and Verdict.of(score) is Verdict.INCORRECT:
            return index
    return NO_ERROR


def first_error_by_majority(chains: Sequence[ChainVotes]) -> int | None:
    """The first error that most chains name, -1 for none; None if no chain comes to an answer."""
    named = Counter(chain.first_error for chain in chains)
    del named[None]
    if not named:
        return None
    steps = len(chains[0].steps)
    # "No error" is the latest place of all: among equals a named step goes first.
    return min(named, key=lambda index: (-named[index], steps if index == NO_ERROR else index))


def combine_votes(index: int, votes: Sequence[StepVote]) -> StepVerification:
    """One step, from all chains' votes on it: the mean of their scores (GenPRM, eq. 7).

    Args:
        index: the step's index, from 0.
        votes: at least one; those without a score do not count.
    """
    score = mean_score(votes)
    verdict = None if score is None else Verdict.of(score)
    ranked = sorted(votes, key=lambda vote: not vote.asked)
    shown = next((vote for vote in ranked if vote.verdict is verdict), votes[0])
    return StepVerification(
        index=index,
        score=score,
        verdict=verdict,
        segments=shown.segments,
        stop_reason=shown.stop_reason,
        parse=shown.parse,
        votes=tuple(votes) if len(votes) > 1 else (),
    )


def combine_chains(
    solution: Solution,
    chains: Sequence[ChainVotes],
    model: str,
    style: str,
    *,
    aggregate: Aggregate = Aggregate.MEAN,
    stop_at_first_error: bool = False,
    side_by_side: int | None = None,
) -> Verification:
    """A solution's verification, from what at least one chain says of it.

    With `Aggregate.MAJORITY` a step's verdict follows from the first error that most chains name, and its score is the
    share of chains, of those that came to an answer, that find no error up to it; where none did, steps are unscored
    unless all agree on them. With ``stop_at_first_error`` the steps behind the first error are left out, also where a
    chain went further before it was known. The first ``side_by_side`` chains, all by default, worked at the same time,
    each of the others after them.
    """
    by_step = [[chain.steps[index] for chain in chains] for index in range(len(solution.steps))]
    if aggregate is Aggregate.MAJORITY:
        steps = _by_majority(by_step, chains)
    else:
        steps = [combine_votes(index, votes) for index, votes in enumerate(by_step)]
    first_error = next((step.index for step in steps if step.verdict is Verdict.INCORRECT), NO_ERROR)
    if stop_at_first_error and first_error != NO_ERROR:
        steps = [*steps[: first_error + 1], *(_not_asked(step.index) for step in steps[first_error + 1 :])]
    whole = _whole(chains)
    asked = [step for step in steps if not _is_left_out(step, first_error)]
    scores = [step.score for step in asked if step.score is not None]
    usage = chains[0].usage
    for index, chain in enumerate(chains[1:], 1):
        was_beside = side_by_side is None or index < side_by_side
        usage = usage + chain.usage if was_beside else usage.then(chain.usage)
    least = min(scores) if len(scores) == len(asked) else None
    return Verification(
        id=solution.id,
        problem=solution.problem,
        solution=solution.steps,
        label=solution.label,
        generator=solution.generator,
        first_error=first_error,
        score=least if whole is None else whole.score,
        steps=tuple(steps),
        whole=whole,
        unscored=len(asked) - len(scores),
        votes=len(chains),
        usage=usage,
        model=model,
        style=style,
    )


def _by_majority(by_step: Sequence[Sequence[StepVote]], chains: Sequence[ChainVotes]) -> list[StepVerification]:
    first = first_error_by_majority(chains)
    if first is None:
        return [_open(combine_votes(index, votes), votes) for index, votes in enumerate(by_step)]
    named = [chain.first_error for chain in chains if chain.first_error is not None]
    steps = []
    for index, votes in enumerate(by_step):
        if votes[0].given:
            steps.append(combine_votes(index, votes))
            continue
        if first != NO_ERROR and index > first:
            steps.append(_not_asked(index, votes))
            continue
        share = sum(other == NO_ERROR or other > index for other in named) / len(named)
        verdict = Verdict.INCORRECT if index == first else Verdict.CORRECT
        shown = next((vote for vote in votes if vote.verdict is verdict), votes[0])
        steps.append(
            StepVerification(
                index=index, score=share, verdict=verdict, segments=shown.segments, stop_reason=shown.stop_reason,
                parse=ParseStatus.OK, votes=tuple(votes) if len(votes) > 1 else (),
            )
        )  # fmt: skip
    return steps


def _open(step: StepVerification, votes: Sequence[StepVote]) -> StepVerification:
    """A step where no chain comes to an answer: it has a verdict only if they all have one, and the same."""
    if votes[0].given or len({vote.verdict for vote in votes}) == 1:
        return step
    missing = next((vote for vote in votes if vote.asked and vote.verdict is None), votes[0])
    unscored = {"score": None, "verdict": None, "stop_reason": missing.stop_reason, "parse": missing.parse}
    return step.model_copy(update={**unscored, "segments": missing.segments})


def _is_left_out(step: StepVerification, first_error: int) -> bool:
    """Whether nobody had to judge this step, and nobody did."""
    if step.asked:
        return False
    return step.stop_reason is StopReason.GIVEN or NO_ERROR < first_error < step.index


def _not_asked(index: int, votes: Sequence[StepVote] = ()) -> StepVerification:
    """A step behind the first error, and what was said of it all the same."""
    return StepVerification(
        index=index, score=None, verdict=None, stop_reason=StopReason.AFTER_ERROR, parse=ParseStatus.NOT_ASKED,
        votes=tuple(votes) if len(votes) > 1 else (),
    )  # fmt: skip


def _whole(chains: Sequence[ChainVotes]) -> WholeVerification | None:
    votes = tuple(chain.whole for chain in chains if chain.whole is not None)
    return WholeVerification(score=mean_score(votes), votes=votes) if votes else None
