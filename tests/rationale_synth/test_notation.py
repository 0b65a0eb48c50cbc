"""The same equations in other notations."""

from __future__ import annotations

import random
import re

import pytest

from rationale_synth.notation import notated, separated

_NAME = re.compile(r"(?<=\. )[A-Z][A-Za-z ]*(?= = )|(?<=\\text\{)[A-Z][A-Za-z ]*(?=\})")
"""What an equation calls its result."""


@pytest.mark.parametrize(
    ("text", "money", "expected"),
    [
        ("He has 3 + 4 = 7 bags.", "", {
            "He has 3 bags + 4 bags = 7 bags.", "He has 7 (total = 3 + 4 = 7) bags.", r"He has \(3 + 4 = 7\) bags.",
        }),
        ("He fills 3 * 4 = 12 bags.", "", {
            "He fills 3 bags × 4 = 12 bags.", r"He fills 12: \[ \text{NAME} = 3 \times 4 = 12 \] bags.",
        }),
        ("He pays 3 + 4 = 7.", "$", {"He pays $3 + $4 = $7.", "He pays $3 + $4 = $7.00."}),
        ("He pays 3 * 0.5 = 1.5.", "$", {"He pays 3 * $0.5 = $1.50.", "He pays 3 × 0.5 = 1.5."}),
        ("He pays 7 / 2 * 3 = 10.5.", "$", {
            "He pays $7 / 2 * 3 = $10.5.", r"He pays 10.5 \[ \frac{7}{2} \times 3 = 10.5 \].",
        }),
        ("He fills 16 * 3 / 4 = 12.", "", {
            "He fills 16 × 3/4 = 12.", r"He fills \(16 \times \frac{3}{4} = 12\).", "He fills 16 * (3/4) = 12.",
            "He fills 16 * 3 / 4 = 48 / 4 = 12.",
        }),
        ("He is 2 * (9 + 4) = 26 now. He fills 60 * 0.05 = 3 bags.", "", {
            "He is 2 * (9 + 4) = 2 * 13 = 26 now. He fills 60 * 0.05 = 3 bags.",
            "He is 2 * (9 + 4) = 26 now. He fills 5% of 60 = 60 * 0.05 = 3 bags.",
            "He is 2 x (9 + 4) = 26 now. He fills 60 x 0.05 = 3 bags.",
            r"He is \(2 \times (9 + 4) = 26\) now. He fills \(60 \text{ bags} \times 0.05 = 3\) bags.",
            "He is 26 now. NAME = 2 × (9 + 4). NAME = 26. He fills 3 bags. NAME = 60 × 0.05. NAME = 3.",
        }),
        ("He pays (3 + 4) * 2 = 14.", "$", {"He pays (3 + 4) * 2 = $14."}),
    ],
)  # fmt: skip
def test_notations(text: str, money: str, expected: set[str]):
    found = {_NAME.sub("NAME", notated(text, money, random.Random(seed))) for seed in range(400)}
    assert expected <= found
    assert text in found


@pytest.mark.parametrize("text", ["x^2 - 7 + 5 = 0", "gcd(60, 135) = 15", "It is 12.", "n(3 - 1) = 12"])
def test_what_is_no_whole_equation_stays(text: str):
    assert {notated(text, "$", random.Random(seed)) for seed in range(50)} == {text}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1000 + 25000000 = 25001000", "1,000 + 25,000,000 = 25,001,000"),
        ("999, 1000.5, 1,500 and 0.12345 in A1000", "999, 1000.5, 1,500 and 0.12345 in A1000"),
        ("It is 1000.", "It is 1,000."),
    ],
)
def test_thousands_separators(text: str, expected: str):
    assert separated(text) == expected
