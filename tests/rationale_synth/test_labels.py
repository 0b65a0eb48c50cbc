"""Every labelling rule against its formula, its edges and its laws."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from rationale_synth.labels import Rule, RuleName, first_error, label_steps, soft_labels

VALUES = st.lists(st.integers(0, 16).map(lambda n: n / 16), min_size=2, max_size=12)
RULES = st.sampled_from(list(RuleName)).map(lambda name: Rule(name=name))


def labels(name: str, *values: float | None, threshold: float | None = None) -> list[int]:
    return [int(label) for label in label_steps(Rule(name=RuleName(name), threshold=threshold), values)]


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("hard", (0.5, 0.1, 0.0, 0.4), [1, 0, 0]),
        ("abs-q", (0.5, 0.1, 0.0, 0.4), [1, 0, 1]),
        ("rpe", (0.5, 0.4, 0.3, 0.3), [1, 0, 1]),  # 0.8 is enough, 0.75 is not
        ("rpe", (0.5, 0.0, 0.3, 0.3), [0, 0, 0]),  # behind a 0 all is 0
        ("rpe", (0.0, 0.25, 0.25), [1, 1]),  # progress from nothing, and no step has been made before q[0]
        ("rpe", (0.0, 0.0), [0]),
        ("rpe-difference", (1.0, 0.7, 0.3, 0.3), [1, 0, 1]),
        ("rpe-difference", (0.2, 0.0, 0.0), [0, 0]),  # though 0 - 0.2 is above -0.3
        ("rel-ratio", (0.5, 0.4, 0.28, 0.28), [1, 0, 1]),  # more than 0.7 of it
        ("rel-ratio", (0.5, 0.0, 0.0, 0.25), [0, 0, 1]),
    ],
)
def test_by_hand(name: str, values: tuple[float, ...], expected: list[int]):
    assert labels(name, *values) == expected


@pytest.mark.parametrize(
    ("alpha", "previous", "least"),
    [
        (0.4, 1, 1),
        (0.4, 2, 2),
        (0.4, 4, 2),
        (0.4, 6, 3),
        (0.4, 16, 3),
        (0.8, 1, 1),
        (0.8, 2, 2),
        (0.8, 4, 3),
        (0.8, 6, 4),
        (0.8, 10, 4),
        (0.8, 12, 5),
        (0.8, 16, 5),
    ],
)
def test_rel_effective_at_16_rollouts(alpha: float, previous: int, least: int):
    """The fewest right ones of 16 that make a step right, worked out from the formula by hand."""
    right = [n for n in range(17) if labels("rel-effective", previous / 16, n / 16, threshold=alpha) == [1]]
    assert right == list(range(least, 17))


def test_a_step_behind_a_zero_may_be_missing():
    assert labels("rpe", 0.5, 0.0, None, None) == [0, 0, 0]
    assert soft_labels((0.5, 0.25, 0.0, None, 0.5)) == (0.25, 0.0, 0.0, 0.0)
    with pytest.raises(ValueError, match="the value after 2 steps is missing, which abs-q needs"):
        labels("abs-q", 0.5, 0.0, None)


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_values_out_of_range_are_refused(value: float):
    with pytest.raises(ValueError, match="not both between 0 and 1"):
        labels("rpe", 0.5, value)


@pytest.mark.parametrize(("name", "threshold"), [("hard", 0.5), ("rpe", -1.0), ("rpe", float("nan"))])
def test_thresholds_that_mean_nothing_are_refused(name: str, threshold: float):
    with pytest.raises(ValidationError):
        Rule(name=RuleName(name), threshold=threshold)


@given(RULES, VALUES)
def test_one_label_per_step_and_the_first_error_is_the_first_wrong_one(rule: Rule, values: list[float]):
    found = label_steps(rule, values)
    assert len(found) == len(values) - 1
    error = first_error(found)
    assert all(found) if error == -1 else not found[error] and all(found[:error])


@given(RULES, VALUES)
def test_zero_is_wrong_and_absorbs_where_the_rule_says_so(rule: Rule, values: list[float]):
    found = label_steps(rule, values)
    for index, value in enumerate(values[1:]):
        if value == 0:
            assert not found[index]
            assert not rule.absorbing or not any(found[index:])


@given(RULES, st.integers(0, 16), st.integers(0, 16), st.integers(0, 16))
def test_a_better_value_is_never_a_worse_label(rule: Rule, before: int, one: int, other: int):
    low, high = sorted((one, other))
    assert rule.is_right(before / 16, low / 16) <= rule.is_right(before / 16, high / 16)


@given(st.integers(1, 64), st.integers(0, 64), st.integers(1, 64))
def test_ratios_do_not_depend_on_how_fractions_round(k: int, before: int, scale: int):
    before = min(before, k)
    exact = 5 * before * 4 >= 4 * before * 5  # the ratio 4 : 5 is exactly the threshold
    assert Rule().is_right(5 * before / (5 * k * scale), 4 * before / (5 * k * scale)) is (exact and before > 0)
