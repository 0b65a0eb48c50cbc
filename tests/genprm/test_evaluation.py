"""ProcessBench's measure, on rows counted by hand."""

from __future__ import annotations

import pytest

from genprm.aggregate import combine_chains
from genprm.evaluation import evaluate, evaluate_subset
from genprm.records import FailedRow, OutputRow, Solution, StepVote, StopReason, Usage


def row(label: int, *scores: float | None) -> OutputRow:
    solution = Solution(id="a", problem="p", steps=("s",) * len(scores), label=label)
    votes = [StepVote(score=score, stop_reason=StopReason.JUDGED) for score in scores]
    return combine_chains(solution, [votes], Usage(completion_tokens=10), "m", "genprm")


def test_by_hand():
    rows = [
        row(1, 0.9, 0.1, 0.9),  # named exactly
        row(1, 0.1, 0.1, 0.9),  # named too early
        row(0, 0.9, 0.9),  # missed
        row(2, 0.9, 0.9, 0.2),  # named exactly
        row(-1, 0.9, 0.9),  # right
        row(-1, 0.9, 0.4),  # false alarm
        row(-1, 0.6),  # right
    ]
    result = evaluate_subset(rows)
    assert result.error_accuracy == pytest.approx(50)
    assert result.correct_accuracy == pytest.approx(200 / 3)
    assert result.f1 == pytest.approx(2 * 50 * (200 / 3) / (50 + 200 / 3))
    assert (result.rows, result.unscored, result.tokens) == (7, 0, 70)


def test_unscored_counts_as_wrong_unless_the_error_comes_first():
    settled = row(1, 0.9, 0.1, None)
    open_before = row(1, None, 0.1)
    open_correct = row(-1, 0.9, None)
    failed = FailedRow(id="a", problem="p", solution=("s",), label=-1, error="why")
    result = evaluate_subset([settled, open_before, open_correct, failed])
    assert (result.error_accuracy, result.correct_accuracy, result.f1) == (50, 0, 0)
    assert result.unscored == 3


def test_always_saying_no_error_scores_zero():
    result = evaluate_subset([row(0, 0.9), row(-1, 0.9)])
    assert (result.error_accuracy, result.correct_accuracy, result.f1) == (0, 100, 0)


def test_a_subset_of_one_kind_has_no_f1_and_no_average():
    result = evaluate({"a": [row(0, 0.1)], "b": [row(0, 0.1), row(-1, 0.9)]})
    assert result.subsets["a"].f1 is None
    assert result.subsets["b"].f1 == 100
    assert result.average_f1 is None


def test_average_is_over_subsets_not_rows():
    result = evaluate({"a": [row(0, 0.1), row(-1, 0.9)] * 9, "b": [row(0, 0.9), row(-1, 0.9)]})
    assert result.average_f1 == 50


def test_a_row_without_label_is_refused():
    unlabelled = FailedRow(id="a", problem="p", solution=("s",), error="why")
    with pytest.raises(ValueError, match="no label"):
        evaluate_subset([unlabelled])
