"""ProcessBench: how well first errors are found (Zheng et al., arXiv 2412.06559, section 3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import BaseModel, ConfigDict

from genprm.records import NO_ERROR, OutputRow, Verification


class SubsetResult(BaseModel):
    """Figures of one subset. Accuracies and F1 in percent; None where there is no row to measure them on."""

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


class EvaluationResult(BaseModel):
    """All subsets, and the average that the field quotes."""

    model_config = ConfigDict(frozen=True)

    subsets: dict[str, SubsetResult]
    average_f1: float | None
    """Unweighted mean of the subsets' F1; None unless every subset has one."""


def predicted(row: OutputRow) -> int | None:
    """The first error that a row names, -1 for none, None where a missing verdict leaves it open."""
    return row.first_error if isinstance(row, Verification) and row.settled else None


def evaluate_subset(rows: Sequence[OutputRow]) -> SubsetResult:
    """Measure one subset.

    Raises:
        ValueError: a row has no label.
    """
    hits: dict[bool, list[bool]] = {True: [], False: []}
    for row in rows:
        if row.label is None:
            raise ValueError(f"row {row.id} has no label")
        hits[row.label == NO_ERROR].append(predicted(row) == row.label)
    correct, error = _percent(hits[True]), _percent(hits[False])
    f1 = None
    if correct is not None and error is not None:
        f1 = 2 * correct * error / (correct + error) if correct + error else 0.0
    return SubsetResult(
        f1=f1,
        error_accuracy=error,
        correct_accuracy=correct,
        rows=len(rows),
        unscored=sum(predicted(row) is None for row in rows),
        tokens=sum(row.usage.completion_tokens for row in rows if isinstance(row, Verification)),
    )


def evaluate(subsets: Mapping[str, Sequence[OutputRow]]) -> EvaluationResult:
    """Measure every subset and average."""
    results = {name: evaluate_subset(rows) for name, rows in subsets.items()}
    scores = [result.f1 for result in results.values() if result.f1 is not None]
    average = sum(scores) / len(scores) if len(scores) == len(results) and scores else None
    return EvaluationResult(subsets=results, average_f1=average)


def _percent(hits: Sequence[bool]) -> float | None:
    return 100 * sum(hits) / len(hits) if hits else None
