"""Adaptive votes against Maj@8: the same F1, from how many tokens?

    python benchmarks/adaptive_votes.py [--solutions N] [--confidence C]

On verifiers of known accuracy, since no model at hand is good enough for the question: simulated ones, whose F1 with
one vote and with eight are about those that were published for GenPRM-1.5B (57.3, 63.4) and GenPRM-7B (75.2, 80.5), and
a third whose votes disagree much more. Each step has a chance of being called correct of its own, from a beta
distribution that is one for right steps and one for wrong ones; so votes on one step agree more than votes on different
steps. A chain's score is near its verdict. Both sides see the same chains: Maj@8 all eight of a solution in full,
adaptive votes as much of them as `genprm.votes.steps_in_doubt` asks for.

Reported for each verifier: F1 of one vote, of eight, of adaptive votes, and the share of eight chains' tokens that
these took. The last line is JSON; `f1_delta` is the largest difference of the verifiers that are like published ones at
the chosen confidence, and `token_share` the largest share.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence
from typing import NamedTuple

from genprm.aggregate import Aggregate, ChainVotes, combine_chains
from genprm.evaluation import Outcome, f1_score
from genprm.open_chain import UNREACHED
from genprm.records import NO_ERROR, Solution, StepVote, StopReason, Usage
from genprm.votes import VotePlan, steps_in_doubt

MOST = 8
CONFIDENCES = (0.8, 0.9, 0.95, 0.97, 0.99, 1.0)
ERROR_SHARE = 0.6
"""Of ProcessBench's solutions, about as many are wrong."""
STEPS = (4, 10)
TOKENS_PER_STEP = 250


class Strength(NamedTuple):
    """A verifier: how its chance of calling a step correct is distributed, for right and for wrong steps (beta)."""

    right: tuple[float, float]
    wrong: tuple[float, float]
    published: bool


VERIFIERS = {
    "like GenPRM-1.5B": Strength((0.744, 0.056), (0.24, 0.56), published=True),
    "like GenPRM-7B": Strength((0.76, 0.04), (0.08, 0.72), published=True),
    "torn": Strength((6.0, 0.3), (0.7, 1.6), published=False),
}


class Case(NamedTuple):
    """A solution, and what eight chains would say of it."""

    solution: Solution
    votes: list[list[StepVote]]
    tokens: list[list[int]]


def draw_case(number: int, verifier: Strength, draw: random.Random) -> Case:
    steps = draw.randint(*STEPS)
    label = draw.randrange(steps) if draw.random() < ERROR_SHARE else NO_ERROR
    chances = [draw.betavariate(*(verifier.wrong if index == label else verifier.right)) for index in range(steps)]
    votes, tokens = [], []
    for _ in range(MOST):
        sure = [draw.betavariate(8, 1) / 2 for _ in chances]
        said = [draw.random() < chance for chance in chances]
        scores = [0.5 + size if yes else 0.5 - size for size, yes in zip(sure, said, strict=True)]
        votes.append([StepVote(score=score, stop_reason=StopReason.JUDGED) for score in scores])
        tokens.append([draw.randrange(TOKENS_PER_STEP // 2, TOKENS_PER_STEP * 3 // 2) for _ in chances])
    return Case(Solution(id=str(number), problem="p", steps=("s",) * steps, label=label), votes, tokens)


def decide(case: Case, plan: VotePlan) -> Outcome:
    """Draw as the verifier does."""
    steps = len(case.solution.steps)
    reached = [steps] * plan.first

    def said() -> list[ChainVotes]:
        return [
            ChainVotes(
                (*case.votes[chain][:count], *[UNREACHED] * (steps - count)),
                Usage(completion_tokens=sum(case.tokens[chain][:count])),
            )
            for chain, count in enumerate(reached)
        ]

    while doubtful := steps_in_doubt(said(), plan, Aggregate.MEAN):
        behind = next((chain for chain, count in enumerate(reached) if count < doubtful), None)
        if behind is None:
            reached.append(doubtful)
        else:
            reached[behind] = doubtful
    report = combine_chains(case.solution, said(), "simulated", "s")
    label = case.solution.label
    assert label is not None
    return Outcome(label, report.first_error, report.usage.completion_tokens, 0.0, None)


def figures(outcomes: Sequence[Outcome]) -> tuple[float, int]:
    f1 = f1_score(outcomes)
    assert f1 is not None
    return f1, sum(one.tokens for one in outcomes)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--solutions", type=int, default=4000, help="per verifier")
    parser.add_argument("--confidence", type=float, default=VotePlan().confidence)
    options = parser.parse_args()
    deltas: list[float] = []
    shares: list[float] = []
    for name, verifier in VERIFIERS.items():
        draw = random.Random(name)
        cases = [draw_case(number, verifier, draw) for number in range(options.solutions)]
        one, _ = figures([decide(case, VotePlan.fixed(1)) for case in cases])
        eight, all_tokens = figures([decide(case, VotePlan.fixed(MOST)) for case in cases])
        print(f"{name}: F1 {one:.1f} with one vote, {eight:.1f} with {MOST}")
        for confidence in sorted({*CONFIDENCES, options.confidence}):
            f1, tokens = figures([decide(case, VotePlan.adaptive(MOST, confidence)) for case in cases])
            share = tokens / all_tokens
            print(f"  confidence {confidence:g}: F1 {f1:.1f} ({f1 - eight:+.2f}), {share:.3f} of the tokens")
            if confidence == options.confidence and verifier.published:
                deltas.append(f1 - eight)
                shares.append(share)
    largest = max(deltas, key=abs)
    print(json.dumps({
        "f1_delta": round(largest, 2), "token_share": round(max(shares), 3),
        "confidence": options.confidence, "votes": MOST, "solutions": options.solutions,
    }))  # fmt: skip


main()
