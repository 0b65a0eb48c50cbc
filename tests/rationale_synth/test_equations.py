"""Equations of numbers in other people's solutions, as claims."""

from __future__ import annotations

import pytest

from genprm.records import NO_ERROR, Solution
from rationale_synth.equations import checked, python, value


@pytest.mark.parametrize(
    ("latex", "expected"),
    [
        ("3 * 4", "3 * 4"),
        ("2(3) + 1", "2 * 3 + 1"),
        (r"\sqrt{13^2 - 5^2}", "math.sqrt(13 ** 2 - 5 ** 2)"),
        (r"\frac{1}{2} \cdot 3", "1 / 2 * 3"),
        (r"\dfrac{20^{2}}{\frac{1}{4}}", "20 ** 2 / (1 / 4)"),
        (r"\binom{7}{2} \times 5!", "math.comb(7, 2) * math.factorial(5)"),
        (r"2\sqrt{9}", "2 * math.sqrt(9)"),
        ("3s + 12", None),
        (r"\sin 30", None),
        ("9^9^9", None),
        ("1 / 0", None),
        ("(2", None),
        ("5 = 5", None),
        ("__import__('os')", None),
    ],
)
def test_a_side_in_python(latex: str, expected: str | None):
    assert python(latex) == expected


def test_what_is_too_much_is_not_worked_out():
    for expression in ("10 ** 99", "math.factorial(99)", "math.sqrt(-1)", "(0 - 2) ** 0.5", "x", "(" * 999):
        with pytest.raises(ValueError, match=r"no |too large|comes to nothing"):
            value(expression)


def solution(*steps: str, label: int = NO_ERROR) -> Solution:
    return Solution(id="i", problem="It has 7 women and 5 men. How many ways?", steps=steps, label=label)


def claims(*steps: str, label: int = NO_ERROR) -> list[list[tuple[str, str]]]:
    found = checked(solution(*steps, label=label))
    assert found is not None
    assert len(found.checks) == len(found.steps)
    return [[(check.work, check.claim) for check in checks] for checks in found.checks]


def test_claims_of_a_step():
    found = claims(
        "We look at $n$, where $n < 9$.",
        r"So $\frac{7}{5 \cdot 2} = \frac{14}{20} = 0.7$, and 7 * 5 = 35 ways, for $x = 7 + 5 = 12.$",
        "That is all.",
        "Really.",
    )
    assert found == [[], [("7 / (5 * 2)", "0.7"), ("7 + 5", "12"), ("7 * 5", "35")], []], "and one step more"
    [check, *_] = checked(solution("7 + 5 = 12")).checks[0]  # type: ignore[union-attr]
    assert check.sources == ("It has 7 women and 5 men.",)


def test_a_solution_ends_where_its_claims_and_its_labels_part():
    assert claims("7 + 5 = 12", "12 / 7 = 1.71", "12 * 2 = 24") == [[("7 + 5", "12")]], "rounded, and right"
    assert claims("7 + 5 = 12", "So it is 13.", label=1) == [[("7 + 5", "12")]], "wrong, which no equation shows"
    found = checked(solution("7 + 5 = 12", "12 * 2 = 25", "Good.", label=1))
    assert found is not None
    assert (found.label, len(found.checks), len(found.steps)) == (1, 2, 3)
    assert checked(solution("It is 7.", "Why not?")) is None
    assert checked(solution("7 + 5 = 13")) is None
