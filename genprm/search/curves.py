"""Accuracy against tokens: what a search would have answered, had each problem been stopped at so many."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from genprm.evaluation import Interval, percentiles
from genprm.plotting import picture
from genprm.search.records import SearchOutput, SearchResult

RESAMPLES = 1000
POINTS = 24
"""Budgets at which a curve is given."""


class Told(NamedTuple):
    """What is kept of a row to measure it."""

    spent: tuple[int, ...]
    """Tokens of policy and verifier, at each point of its trace."""
    right: tuple[bool, ...]
    policy: int
    verifier: int
    failed: bool

    def right_within(self, tokens: float) -> bool:
        """Whether the last answer for at most so many tokens is right. No answer is not."""
        return next(
            (right for spent, right in zip(self.spent[::-1], self.right[::-1], strict=True) if spent <= tokens), False
        )


class SearchFigures(BaseModel):
    """Figures of one search. Accuracies in percent; a problem that failed counts as wrong."""

    model_config = ConfigDict(frozen=True)

    problems: int
    failed: int
    accuracy: float
    interval: Interval
    """Bootstrap over problems."""
    policy_tokens: float
    """Mean per problem."""
    verifier_tokens: float
    curve: tuple[tuple[int, float], ...]
    """Most tokens per problem, of policy and verifier together, and the accuracy within them."""


def told(row: SearchOutput) -> Told:
    """What is measured of a row."""
    if not isinstance(row, SearchResult):
        return Told((), (), 0, 0, failed=True)
    points = sorted(row.trace, key=lambda point: point.spent.total)
    return Told(
        tuple(point.spent.total for point in points), tuple(bool(point.correct) for point in points),
        row.spent.policy, row.spent.verifier, failed=False,
    )  # fmt: skip


def search_figures(rows: Sequence[Told]) -> SearchFigures:
    """Measure a search.

    Args:
        rows: at least one.
    """
    right = [row.right_within(float("inf")) for row in rows]
    draw = random.Random(0)
    means = [100 * sum(draw.choices(right, k=len(right))) / len(right) for _ in range(RESAMPLES)]
    ends = [spent for row in rows for spent in row.spent]
    return SearchFigures(
        problems=len(rows),
        failed=sum(row.failed for row in rows),
        accuracy=100 * sum(right) / len(rows),
        interval=percentiles(means),
        policy_tokens=sum(row.policy for row in rows) / len(rows),
        verifier_tokens=sum(row.verifier for row in rows) / len(rows),
        curve=tuple(
            (budget, 100 * sum(row.right_within(budget) for row in rows) / len(rows)) for budget in _budgets(ends)
        ),
    )


def _budgets(ends: Sequence[int]) -> list[int]:
    """From the cheapest answer to the dearest, evenly on a logarithmic scale."""
    if not ends:
        return []
    low, high = max(1, min(ends)), max(1, *ends)
    ratio = (high / low) ** (1 / (POINTS - 1))
    return sorted({min(high, round(low * ratio**point)) for point in range(POINTS)} | {high})


def plot_curves(results: Mapping[str, SearchFigures], path: Path) -> None:
    """Draw the curves of several searches over the same problems.

    Raises:
        ConfigError: matplotlib is not installed.
        OutputError: the picture cannot be written.
    """
    with picture(path, 6, 4) as axes:
        for name, figures in results.items():
            if not figures.curve:
                continue  # no problem has an answer
            axes.step(*zip(*figures.curve, strict=True), where="post", label=name)
        axes.set(xlabel="tokens per problem, policy and verifier", ylabel="right answers, %", xscale="log")
        axes.grid(alpha=0.3)
        axes.legend()
