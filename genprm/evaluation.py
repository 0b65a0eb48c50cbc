"""ProcessBench: how well first errors are found (Zheng et al., arXiv 2412.06559, section 3)."""

from __future__ import annotations

import random
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from genprm.records import NO_ERROR, OutputRow, Verification

RESAMPLES = 1000
POSITIONS = ((0, 0), (1, 1), (2, 2), (3, 4), (5, 9), (10, None))
"""First and last step index of each group of errors that is reported by itself."""
Interval = tuple[float, float]


class Outcome(NamedTuple):
    """What is kept of a row to measure it."""

    label: int
    predicted: int | None
    """The first error it names, -1 for none, None where a missing verdict leaves it open."""
    tokens: int
    seconds: float
    generator: str | None

    @property
    def hit(self) -> bool:
        return self.predicted == self.label


class SliceResult(BaseModel):
    """Figures of some rows. Accuracies and F1 in percent; None where there is no row to measure them on."""

    model_config = ConfigDict(frozen=True)

    f1: float | None
    """Harmonic mean of the two accuracies."""
    error_accuracy: float | None
    """Share of the wrong solutions whose first wrong step is named exactly."""
    correct_accuracy: float | None
    """Share of the right solutions of which "no error" is said."""
    rows: int
    unscored: int
    """Rows without a settled answer, failed ones among them. Each counts as wrong."""
    tokens: int
    """Tokens that the model wrote."""


class SubsetResult(SliceResult):
    """Figures of one subset."""

    f1_interval: Interval | None
    """From the 2.5th to the 97.5th percentile of a bootstrap over rows."""
    median_seconds: float | None
    """Wall time from a row's first model call to its last."""
    generators: dict[str, SliceResult]
    """By who wrote the solution; empty where the rows do not say."""
    positions: dict[str, SliceResult]
    """Of the wrong solutions, by the index of their first wrong step."""


class EvaluationResult(BaseModel):
    """All subsets, and the average that the field quotes."""

    model_config = ConfigDict(frozen=True)

    subsets: dict[str, SubsetResult]
    average_f1: float | None
    """Unweighted mean of the subsets' F1; None unless every subset has one."""
    average_f1_interval: Interval | None


def predicted(row: OutputRow) -> int | None:
    """The first error that a row names, -1 for none, None where a missing verdict leaves it open."""
    return row.first_error if isinstance(row, Verification) and row.settled else None


def outcome(row: OutputRow) -> Outcome:
    """What is measured of a row.

    Raises:
        ValueError: it has no label.
    """
    if row.label is None:
        raise ValueError(f"row {row.id} has no label")
    usage = row.usage if isinstance(row, Verification) else None
    return Outcome(
        label=row.label,
        predicted=predicted(row),
        tokens=usage.completion_tokens if usage else 0,
        seconds=usage.seconds if usage else 0.0,
        generator=row.generator,
    )


def f1_score(outcomes: Sequence[Outcome]) -> float | None:
    """ProcessBench's F1, in percent; None unless there are both right and wrong solutions."""
    return _f1(*_accuracies(Counter((one.label == NO_ERROR, one.hit) for one in outcomes)))


def auc(right: Sequence[float], wrong: Sequence[float]) -> float | None:
    """The chance that one of ``right`` is greater than one of ``wrong``, equals counting half; None without both."""
    if not (right and wrong):
        return None
    ordered = sorted(wrong)
    below = sum((bisect_left(ordered, high) + bisect_right(ordered, high)) / 2 for high in right)
    return below / (len(right) * len(wrong))


def solution_auc(rows: Iterable[OutputRow]) -> float | None:
    """The chance that a solution without an error has a higher score than one with an error; unscored ones aside."""
    scores: dict[bool, list[float]] = {True: [], False: []}
    for row in rows:
        if isinstance(row, Verification) and row.score is not None:
            scores[row.label == NO_ERROR].append(row.score)
    return auc(scores[True], scores[False])


def evaluate_slice(outcomes: Sequence[Outcome]) -> SliceResult:
    """Measure some rows."""
    error, correct = _accuracies(Counter((one.label == NO_ERROR, one.hit) for one in outcomes))
    return SliceResult(
        f1=_f1(error, correct),
        error_accuracy=error,
        correct_accuracy=correct,
        rows=len(outcomes),
        unscored=sum(one.predicted is None for one in outcomes),
        tokens=sum(one.tokens for one in outcomes),
    )


def evaluate_subset(outcomes: Sequence[Outcome]) -> SubsetResult:
    """Measure one subset, and its parts."""
    generators = sorted({one.generator for one in outcomes if one.generator is not None})
    positions = {
        _range(first, last): [o for o in outcomes if o.label >= first and (last is None or o.label <= last)]
        for first, last in POSITIONS
    }
    resampled = _resample([outcomes], lambda results: results[0])
    return SubsetResult(
        **evaluate_slice(outcomes).model_dump(),
        f1_interval=resampled,
        median_seconds=median(times) if (times := [one.seconds for one in outcomes if one.seconds]) else None,
        generators={name: evaluate_slice([o for o in outcomes if o.generator == name]) for name in generators},
        positions={name: evaluate_slice(part) for name, part in positions.items() if part},
    )


def evaluate(subsets: Mapping[str, Sequence[Outcome]]) -> EvaluationResult:
    """Measure every subset and average."""
    results = {name: evaluate_subset(outcomes) for name, outcomes in subsets.items()}
    scores = [result.f1 for result in results.values() if result.f1 is not None]
    whole = bool(scores) and len(scores) == len(results)
    return EvaluationResult(
        subsets=results,
        average_f1=sum(scores) / len(scores) if whole else None,
        average_f1_interval=_resample(list(subsets.values()), lambda f1s: sum(f1s) / len(f1s)) if whole else None,
    )


def percentiles(values: Sequence[float]) -> Interval:
    """The 2.5th and the 97.5th percentile."""
    ordered = sorted(values)
    last = len(ordered) - 1
    return ordered[round(0.025 * last)], ordered[round(0.975 * last)]


def _resample(subsets: Sequence[Sequence[Outcome]], combine: Callable[[Sequence[float]], float]) -> Interval | None:
    """Bootstrap over the rows of each subset. Of a row only its kind and whether it was hit matter."""
    draw = random.Random(0)
    kinds = [Counter((one.label == NO_ERROR, one.hit) for one in outcomes) for outcomes in subsets]
    values: list[float] = []
    for _ in range(RESAMPLES):
        drawn = [
            Counter(draw.choices(list(kind), weights=list(kind.values()), k=kind.total())) for kind in kinds if kind
        ]
        f1s = [_f1(*_accuracies(kind)) for kind in drawn]
        if all(f1 is not None for f1 in f1s) and f1s:
            values.append(combine([f1 for f1 in f1s if f1 is not None]))
    return percentiles(values) if len(values) > RESAMPLES // 2 else None


def _accuracies(kinds: Counter[tuple[bool, bool]]) -> tuple[float | None, float | None]:
    """Error accuracy and correct accuracy, from how many rows there are of each kind, hit or not."""
    shares = []
    for correct in (False, True):
        total = kinds[correct, True] + kinds[correct, False]
        shares.append(100 * kinds[correct, True] / total if total else None)
    return shares[0], shares[1]


def _f1(error: float | None, correct: float | None) -> float | None:
    if error is None or correct is None:
        return None
    return 2 * correct * error / (correct + error) if correct + error else 0.0


def _range(first: int, last: int | None) -> str:
    if last is None:
        return f"{first}+"
    return str(first) if first == last else f"{first}-{last}"
