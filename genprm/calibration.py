"""Do scores mean what they say? ECE, Brier score, reliability, and temperature scaling fitted on other rows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from genprm.errors import ConfigError
from genprm.plotting import picture
from genprm.records import OutputRow, Verification, judged_steps
from genprm.sigmoid import sigmoid

BINS = 10
EDGE = 1e-6
"""Scores nearer to 0 or 1 than this are taken to be this near, so that they have a logit."""


class Point(NamedTuple):
    """One judged step whose truth is known."""

    score: float
    right: bool


class Bin(BaseModel):
    """Steps with about the same score."""

    model_config = ConfigDict(frozen=True)

    low: float
    high: float
    count: int
    mean_score: float | None
    right: float | None
    """Share of them that are right."""


class CalibrationResult(BaseModel):
    """How well scores are calibrated."""

    model_config = ConfigDict(frozen=True)

    steps: int
    ece: float | None
    """Expected calibration error: mean distance between score and share of right steps, over bins of equal width."""
    brier: float | None
    """Mean squared distance between score and truth."""
    bins: tuple[Bin, ...]


def points(rows: Iterable[OutputRow]) -> list[Point]:
    """The steps whose truth a label tells: right ones before the first error, and that. Unscored ones are left out.

    Raises:
        ValueError: a row has no label.
    """
    found: list[Point] = []
    for row in rows:
        if row.label is None:
            raise ValueError(f"row {row.id} has no label")
        if isinstance(row, Verification):
            known = judged_steps(row.steps, row.label)
            found += [Point(step.score, step.index != row.label) for step in known if step.score is not None]
    return found


def calibration(found: Sequence[Point], bins: int = BINS) -> CalibrationResult:
    """Measure."""
    groups: list[list[Point]] = [[] for _ in range(bins)]
    for point in found:
        groups[min(int(point.score * bins), bins - 1)].append(point)
    table = tuple(
        Bin(
            low=index / bins,
            high=(index + 1) / bins,
            count=len(group),
            mean_score=sum(point.score for point in group) / len(group) if group else None,
            right=sum(point.right for point in group) / len(group) if group else None,
        )
        for index, group in enumerate(groups)
    )
    if not found:
        return CalibrationResult(steps=0, ece=None, brier=None, bins=table)
    gaps = [
        each.count * abs(each.mean_score - each.right)
        for each in table
        if each.mean_score is not None and each.right is not None
    ]
    return CalibrationResult(
        steps=len(found),
        ece=sum(gaps) / len(found),
        brier=sum((point.score - point.right) ** 2 for point in found) / len(found),
        bins=table,
    )


def _filled(bins: Sequence[Bin]) -> list[tuple[Bin, float, float]]:
    """The bins that hold steps, each with its mean score and its share of right steps."""
    return [
        (each, each.mean_score, each.right) for each in bins if each.mean_score is not None and each.right is not None
    ]


def scaled(score: float, temperature: float) -> float:
    """The score after its logit is divided by a temperature. 0.5 stays where it is: no verdict changes."""
    score = min(max(score, EDGE), 1 - EDGE)
    return sigmoid(math.log(score / (1 - score)) / temperature)


def fit_temperature(found: Sequence[Point]) -> float:
    """The temperature from 0.01 to 100 under which the truth is likeliest (Guo et al., arXiv 1706.04599).

    Raises:
        ConfigError: there are no right or no wrong steps to fit it on.
    """
    if len({point.right for point in found}) < 2:
        raise ConfigError("a temperature cannot be fitted: the rows hold only right, or only wrong, judged steps")

    def loss(log_temperature: float) -> float:
        temperature = math.exp(log_temperature)
        total = 0.0
        for point in found:
            score = scaled(point.score, temperature)
            total -= math.log(max(score if point.right else 1 - score, 1e-300))
        return total

    low, high = math.log(0.01), math.log(100)
    golden = (math.sqrt(5) - 1) / 2
    for _ in range(60):  # the loss has one minimum in 1/T: golden section finds it
        left, right = high - golden * (high - low), low + golden * (high - low)
        low, high = (low, right) if loss(left) < loss(right) else (left, high)
    return math.exp((low + high) / 2)


def plot_reliability(results: dict[str, CalibrationResult], path: Path) -> None:
    """Draw the reliability diagram of each result.

    Raises:
        ConfigError: matplotlib is not installed.
        OutputError: the picture cannot be written.
    """
    with picture(path, 5, 5) as axes:
        axes.plot([0, 1], [0, 1], color="0.7", linestyle="--")
        for name, result in results.items():
            filled = _filled(result.bins)
            axes.plot([mean for _, mean, _ in filled], [right for _, _, right in filled], marker="o", label=name)
        axes.set(xlabel="score", ylabel="share of right steps", xlim=(0, 1), ylim=(0, 1))
        axes.legend()
