"""ProcessBench's measure, on rows counted by hand."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genprm.aggregate import ChainVotes, combine_chains
from genprm.calibration import Point, calibration, fit_temperature, points, scaled
from genprm.comparison import compare, mcnemar
from genprm.errors import ConfigError
from genprm.evaluation import Outcome, evaluate, evaluate_subset, outcome
from genprm.records import FailedRow, OutputRow, ParseStatus, Solution, StepVote, StopReason, Usage

PARSE = {True: ParseStatus.OK, False: ParseStatus.EMPTY}


def row(label: int, *scores: float | None, generator: str | None = None) -> OutputRow:
    solution = Solution(id="a", problem="p", steps=("s",) * len(scores), label=label, generator=generator)
    votes = [StepVote(score=score, stop_reason=StopReason.JUDGED, parse=PARSE[score is not None]) for score in scores]
    return combine_chains(solution, [ChainVotes(tuple(votes), Usage(completion_tokens=10))], "m", "genprm")


def outcomes(rows: Sequence[OutputRow]) -> list[Outcome]:
    return [outcome(one) for one in rows]


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
    result = evaluate_subset(outcomes(rows))
    assert result.error_accuracy == pytest.approx(50)
    assert result.correct_accuracy == pytest.approx(200 / 3)
    assert result.f1 == pytest.approx(2 * 50 * (200 / 3) / (50 + 200 / 3))
    assert (result.rows, result.unscored, result.tokens) == (7, 0, 70)


def test_unscored_counts_as_wrong_unless_the_error_comes_first():
    settled = row(1, 0.9, 0.1, None)
    open_before = row(1, None, 0.1)
    open_correct = row(-1, 0.9, None)
    failed = FailedRow(id="a", problem="p", solution=("s",), label=-1, error="why")
    result = evaluate_subset(outcomes([settled, open_before, open_correct, failed]))
    assert (result.error_accuracy, result.correct_accuracy, result.f1) == (50, 0, 0)
    assert result.unscored == 3


def test_always_saying_no_error_scores_zero():
    result = evaluate_subset(outcomes([row(0, 0.9), row(-1, 0.9)]))
    assert (result.error_accuracy, result.correct_accuracy, result.f1) == (0, 100, 0)


def test_a_subset_of_one_kind_has_no_f1_and_no_average():
    result = evaluate({"a": outcomes([row(0, 0.1)]), "b": outcomes([row(0, 0.1), row(-1, 0.9)])})
    assert result.subsets["a"].f1 is None
    assert result.subsets["b"].f1 == 100
    assert result.average_f1 is None


def test_average_is_over_subsets_not_rows():
    result = evaluate({"a": outcomes([row(0, 0.1), row(-1, 0.9)] * 9), "b": outcomes([row(0, 0.9), row(-1, 0.9)])})
    assert result.average_f1 == 50


def test_a_row_without_label_is_refused():
    unlabelled = FailedRow(id="a", problem="p", solution=("s",), error="why")
    with pytest.raises(ValueError, match="no label"):
        evaluate_subset(outcomes([unlabelled]))


def test_generators_positions_and_intervals():
    rows = [
        *[row(0, 0.1, generator="a")] * 10,
        *[row(4, 0.9, 0.9, 0.9, 0.9, 0.9, generator="b")] * 10,
        *[row(-1, 0.9, generator="a")] * 10,
    ]
    result = evaluate_subset(outcomes(rows))
    assert {name: part.rows for name, part in result.generators.items()} == {"a": 20, "b": 10}
    assert result.generators["a"].f1 == 100
    assert {name: part.error_accuracy for name, part in result.positions.items()} == {"0": 100, "3-4": 0}
    low, high = result.f1_interval
    assert low < result.f1 < high
    assert 40 < low < 60 < 70 < high < 85
    assert evaluate({"s": outcomes(rows)}).average_f1_interval == result.f1_interval


def test_calibration_by_hand():
    found = points([row(2, 0.95, 0.85, 0.05, 0.9), row(-1, 0.65, None)])
    assert found == [(0.95, True), (0.85, True), (0.05, False), (0.65, True)]
    result = calibration(found)
    assert result.ece == pytest.approx((0.05 + 0.15 + 0.05 + 0.35) / 4)
    assert result.brier == pytest.approx((0.05**2 + 0.15**2 + 0.05**2 + 0.35**2) / 4)
    assert [each.count for each in result.bins] == [1, 0, 0, 0, 0, 0, 1, 0, 1, 1]
    assert calibration([]).ece is None


def test_a_temperature_takes_back_overconfidence():
    """Scores whose logits were tripled: the fitted temperature is 3, and no verdict changes."""
    draw = random.Random(0)
    honest = [draw.uniform(0.05, 0.95) for _ in range(4000)]
    sharp = [Point(scaled(score, 1 / 3), draw.random() < score) for score in honest]
    temperature = fit_temperature(sharp)
    assert temperature == pytest.approx(3, rel=0.1)
    cooled = [Point(scaled(point.score, temperature), point.right) for point in sharp]
    assert calibration(cooled).ece < 0.03 < calibration(sharp).ece
    assert all((a.score < 0.5) == (b.score < 0.5) for a, b in zip(sharp, cooled, strict=True))
    with pytest.raises(ConfigError, match="cannot be fitted"):
        fit_temperature([Point(0.9, True)])


def test_comparison():
    base = [outcome(row(0, 0.9))] * 12 + [outcome(row(-1, 0.9))] * 12
    better = [outcome(row(0, 0.1))] * 9 + base[9:]
    result = compare({"a": named(base), "b": named(better), "c": named(base)})
    change = result.differences["b"]
    assert (change.gained, change.lost, change.p_value) == (9, 0, 2 / 2**9)
    assert change.f1 == pytest.approx(2 * 75 * 100 / 175)
    assert change.f1_interval[0] > 50
    assert result.differences["c"].p_value == 1
    assert result.rows == 24


def test_comparison_looks_at_common_rows_only():
    result = compare({"a": named([outcome(row(0, 0.1))] * 3), "b": named([outcome(row(0, 0.1))] * 2)})
    assert result.rows == 2


@settings(deadline=None)
@given(st.integers(0, 40), st.integers(0, 40))
def test_mcnemar_is_scipys(gained: int, lost: int):
    from scipy.stats import binomtest

    expected = binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    assert mcnemar(gained, lost) == pytest.approx(expected)


def named(found: Sequence[Outcome]) -> dict[str, Outcome]:
    return {str(index): one for index, one in enumerate(found)}
