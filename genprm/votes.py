"""How many chains a solution gets, and when their decision is settled.

Fixed: N votes, all drawn. Adaptive: one chain first; more only while the first error is open, and only as far as the
last step that is in doubt. The first error counts as settled when all votes that could still be drawn would leave it
where it is with a stated probability, under a beta-binomial model of how often chains agree on one step. With a
confidence of 1 only votes that *cannot* change it are left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from math import comb, exp, lgamma

from pydantic import BaseModel, ConfigDict, Field, model_validator

from genprm.aggregate import Aggregate, ChainVotes, first_error_by_majority, first_error_by_mean
from genprm.records import StepVerification, StepVote, StopReason, Verdict, WholeVerification, judged_steps

MOST, CONFIDENCE = 8, 0.97
"""Of adaptive votes, unless somebody says otherwise: how many at most, and how sure their outcome must be."""
SURE = 0.9
"""How sure a cheap style must be, unless somebody says otherwise."""
PRIOR = 0.3
"""Both parameters of the beta prior: chains mostly agree on a step (under 1), and now and then they do not."""


class VotePlan(BaseModel):
    """How many votes to draw.

    Raises:
        pydantic.ValidationError: a number is out of range, or the plan begins with more than it may draw.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    first: int = Field(default=1, ge=1)
    """Votes drawn at once, at the start."""
    most: int = Field(default=1, ge=1, le=1024)
    """Votes drawn in the end, where the outcome stays open."""
    confidence: float = Field(default=CONFIDENCE, gt=0.5, le=1)
    """Probability with which the first error must be that of all ``most`` votes, for drawing to stop."""

    @model_validator(mode="after")
    def _first_within_most(self) -> VotePlan:
        if self.first > self.most:
            raise ValueError(f"first ({self.first}) is more than most ({self.most})")
        return self

    @property
    def is_adaptive(self) -> bool:
        """Whether the outcome decides how many are drawn."""
        return self.first < self.most

    @classmethod
    def fixed(cls, votes: int) -> VotePlan:
        """Exactly so many."""
        return cls(first=votes, most=votes)

    @classmethod
    def adaptive(cls, most: int = MOST, confidence: float = CONFIDENCE) -> VotePlan:
        """One at first, up to ``most``."""
        return cls(first=1, most=most, confidence=confidence)


def steps_in_doubt(chains: Sequence[ChainVotes], plan: VotePlan, aggregate: Aggregate) -> int:
    """How many leading steps want another vote, for the first error to be settled; 0 if it is.

    Only the steps up to the first error (all of them, if there is none) decide anything. Of these the surest ones are
    left alone, as many as together stay as they are with the plan's confidence; the others are in doubt.

    Args:
        chains: what was said so far; a chain need not have come to every step.
        plan: how many votes a step may get.
        aggregate: how they become one verdict.
    """
    if aggregate is Aggregate.MAJORITY:
        open_votes = plan.most - len(chains)
        settled = open_votes <= 0 or _majority_stays(chains, open_votes) >= plan.confidence
        return 0 if settled else len(chains[0].steps)
    first = first_error_by_mean(chains)
    count = len(judged_steps(chains[0].steps, first))
    stays = [_step_stays([chain.steps[index] for chain in chains], plan.most) for index in range(count)]
    together = 1.0
    doubtful = set(range(count))
    for index in sorted(doubtful, key=lambda index: -stays[index]):
        together *= stays[index]
        if together < plan.confidence:
            break
        doubtful.remove(index)
    return max(doubtful, default=-1) + 1


def _step_stays(votes: Sequence[StepVote], most: int) -> float:
    """Probability that a step's verdict stays as it is, once it has ``most`` votes."""
    came = [vote for vote in votes if vote.stop_reason is not StopReason.SETTLED]
    if votes[0].given or len(came) >= most:
        return 1.0
    return _verdict_stays([vote.score for vote in came], most - len(came))


def _verdict_stays(scores: Sequence[float | None], open_votes: int) -> float:
    """Probability that the mean of these scores and ``open_votes`` further ones is on the same side of 0.5.

    A further vote is taken to have the mean score of its kind, 1 or 0 where there is none of its kind so far.
    """
    known = [score for score in scores if score is not None]
    if not known:
        return 0.0
    good = [score for score in known if Verdict.of(score) is Verdict.CORRECT]
    bad = [score for score in known if Verdict.of(score) is Verdict.INCORRECT]
    now = Verdict.of(sum(known) / len(known))
    if _extremes(known, open_votes) == {now}:
        return 1.0
    high = sum(good) / len(good) if good else 1.0
    low = sum(bad) / len(bad) if bad else 0.0
    total = len(known) + open_votes
    stays = 0.0
    for right in range(open_votes + 1):
        mean = (sum(known) + right * high + (open_votes - right) * low) / total
        if Verdict.of(mean) is now:
            stays += _beta_binomial(right, open_votes, len(good) + PRIOR, len(bad) + PRIOR)
    return min(stays, 1 - 1e-9)  # only what cannot change is certain


def _extremes(known: Sequence[float], open_votes: int) -> set[Verdict]:
    total = len(known) + open_votes
    return {Verdict.of(sum(known) / total), Verdict.of((sum(known) + open_votes) / total)}


def _majority_stays(chains: Sequence[ChainVotes], open_votes: int) -> float:
    """Probability that most chains go on naming the same first error, if all others were to name the second."""
    first = first_error_by_majority(chains)
    if first is None:
        return 0.0
    named = Counter(chain.first_error for chain in chains if chain.first_error is not None)
    count = named.pop(first)
    second = max(named.values(), default=0)
    if count > second + open_votes:
        return 1.0
    stays = 0.0
    for more in range(open_votes + 1):
        if count + more > second + open_votes - more:
            stays += _beta_binomial(more, open_votes, count + PRIOR, sum(named.values()) + PRIOR)
    return min(stays, 1 - 1e-9)


@lru_cache(maxsize=65536)
def _beta_binomial(successes: int, draws: int, alpha: float, beta: float) -> float:
    """Probability of so many successes, where the chance of one is drawn from Beta(alpha, beta)."""
    top = _log_beta(successes + alpha, draws - successes + beta)
    return comb(draws, successes) * exp(top - _log_beta(alpha, beta))


def _log_beta(alpha: float, beta: float) -> float:
    return lgamma(alpha) + lgamma(beta) - lgamma(alpha + beta)


def is_sure(
    steps: Sequence[StepVerification], first_error: int, confidence: float, whole: WholeVerification | None = None
) -> bool:
    """Whether a cheap verdict can be taken: each step up to the first error is scored, and none of them near 0.5.

    Args:
        steps: all of them; those that were given do not count.
        first_error: as the cheap style has it, -1 for none.
        confidence: least probability of each of these verdicts, by its own score.
        whole: its verdict on the solution as a whole, if it has one; that counts like a step's.
    """
    asked = [step.score for step in judged_steps(steps, first_error) if step.stop_reason is not StopReason.GIVEN]
    if whole is not None:
        asked.append(whole.score)
    return all(score is not None and max(score, 1 - score) >= confidence for score in asked)
