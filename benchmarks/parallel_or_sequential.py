"""More votes, or one vote thought over again? By difficulty and by length, at what cost in tokens.

    python -m benchmarks.parallel_or_sequential ROWS.jsonl... --base-url URL --model NAME [--tokenizer T] [--limit N]

The style `thinkprm`, on labelled rows: 1, 2 and 4 chains (the first error that most of them name), and one chain that
is made to go on 1 and 3 times more. Each file is a difficulty, as ProcessBench's subsets are; short solutions are those
of at most the median number of steps. F1 counts unscored rows as wrong; the share of rows whose first error was
answered at all stands beside it, since with a model that does not follow the format it says more than F1. The AUC is
that of the solution's score, which every chain ends with: the chance that a solution without an error has a higher one
than a solution with an error. Standard error says what a way has come to as soon as it is done. The last line is JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, median
from typing import NamedTuple

from genprm.budget import Budget
from genprm.evaluation import Outcome, auc, f1_score, outcome
from genprm.models.base import ModelBackend
from genprm.options import ModelOptions
from genprm.records import Solution, Verification
from genprm.rows import read_solutions
from genprm.styles import ThinkPRM
from genprm.verifier import AsyncVerifier
from genprm.votes import VotePlan


class Way(NamedTuple):
    """How a chain's budget is multiplied."""

    name: str
    votes: int
    rounds: int


class Found(NamedTuple):
    """One row verified in one way."""

    outcome: Outcome
    whole: float | None
    """The solution's score, P(Yes)."""


WAYS = (
    Way("one chain", 1, 1),
    Way("2 votes", 2, 1),
    Way("2 rounds", 1, 2),
    Way("4 votes", 4, 1),
    Way("4 rounds", 1, 4),
)


async def verify(model: ModelBackend, way: Way, solutions: Sequence[Solution], tokens: int) -> list[Found]:
    # A chain's budget is for all its rounds: together they get what as many chains have.
    budget = Budget(chain_tokens=tokens * way.rounds)
    verifier = AsyncVerifier(
        model, None, style=ThinkPRM(rounds=way.rounds), budget=budget, votes=VotePlan.fixed(way.votes)
    )
    rows = dict([entry async for entry in verifier.verify_many(solutions)])
    ordered = [rows[index] for index in range(len(solutions))]
    return [
        Found(outcome(row), row.whole.score if isinstance(row, Verification) and row.whole else None) for row in ordered
    ]


class Figures(NamedTuple):
    """Of one way on one group of rows."""

    f1: float | None
    auc: float | None
    answered: float
    tokens: float


def figures(found: Sequence[Found]) -> Figures:
    outcomes = [one.outcome for one in found]
    right, wrong = [
        [one.whole for one in found if one.whole is not None and (one.outcome.label == -1) is correct]
        for correct in (True, False)
    ]
    f1, area = f1_score(outcomes), auc(right, wrong)
    return Figures(
        None if f1 is None else round(f1, 1),
        None if area is None else round(area, 2),
        round(mean(one.predicted is not None for one in outcomes), 2),
        round(mean(one.tokens for one in outcomes)),
    )


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("files", nargs="+")
    parser.add_argument("--base-url")
    parser.add_argument("--model")
    parser.add_argument("--adapter")
    parser.add_argument("--tokenizer")
    parser.add_argument("--limit", type=int, default=100)
    parser.add_argument("--chain-tokens", type=int, default=4096)
    options = parser.parse_args()
    wanted = ModelOptions(
        model=options.model, adapter=options.adapter, base_url=options.base_url, tokenizer=options.tokenizer
    )
    by_file = {Path(file).stem: read_solutions(file, options.limit) for file in options.files}
    middle = median(len(solution.steps) for solutions in by_file.values() for solution in solutions)
    model = await wanted.make_model()
    groups: dict[str, dict[str, list[Found]]] = {}
    rows = [(name, solution) for name, solutions in by_file.items() for solution in solutions]
    for way in WAYS:
        found = await verify(model, way, [solution for _, solution in rows], options.chain_tokens)
        print(f"{way.name}: {figures(found)}", file=sys.stderr, flush=True)
        for (name, solution), one in zip(rows, found, strict=True):
            length = "short" if len(solution.steps) <= middle else "long"
            for group in (name, length):
                groups.setdefault(group, {}).setdefault(way.name, []).append(one)
    await model.close()
    for group, ways in groups.items():
        print(f"{group} ({len(ways[WAYS[0].name])} rows)")
        for name, found in ways.items():
            f1, auc, answered, tokens = figures(found)
            print(f"  {name:<10} F1 {f1}, AUC {auc}, {answered:.0%} answered, {tokens:.0f} tokens")
    table = {group: {name: figures(found)._asdict() for name, found in ways.items()} for group, ways in groups.items()}
    print(json.dumps({"model": model.name, "median_steps": middle, "groups": table}))


asyncio.run(main())
