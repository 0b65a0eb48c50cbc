"""From the votes of several chains to one verification. What is unscored enters no mean."""

from __future__ import annotations

from collections.abc import Sequence

from genprm.records import NO_ERROR, Solution, StepVerification, StepVote, Usage, Verdict, Verification


def combine_votes(index: int, votes: Sequence[StepVote]) -> StepVerification:
    """One step, from all chains' votes on it: the mean of their scores (GenPRM, eq. 7).

    Args:
        index: the step's index, from 0.
        votes: at least one; those without a score do not count.
    """
    scores = [vote.score for vote in votes if vote.score is not None]
    score = sum(scores) / len(scores) if scores else None
    verdict = None if score is None else Verdict.of(score)
    shown = next((vote for vote in votes if vote.verdict is verdict), votes[0])
    return StepVerification(
        index=index,
        score=score,
        verdict=verdict,
        segments=shown.segments,
        stop_reason=shown.stop_reason,
        votes=tuple(votes) if len(votes) > 1 else (),
    )


def combine_chains(
    solution: Solution, chains: Sequence[Sequence[StepVote]], usage: Usage, model: str, style: str
) -> Verification:
    """A solution's verification, from one list of step votes per chain (each as long as the solution)."""
    steps = [combine_votes(index, votes) for index, votes in enumerate(zip(*chains, strict=True))]
    first_error = next((step.index for step in steps if step.verdict is Verdict.INCORRECT), NO_ERROR)
    scores = [step.score for step in steps if step.score is not None]
    return Verification(
        id=solution.id,
        problem=solution.problem,
        solution=solution.steps,
        label=solution.label,
        first_error=first_error,
        score=min(scores) if len(scores) == len(steps) else None,
        steps=tuple(steps),
        unscored=len(steps) - len(scores),
        usage=usage,
        model=model,
        style=style,
    )
