"""The same equations in other notations."""

from __future__ import annotations

import random
import re

import pytest

from rationale_synth.notation import notated, quantities, separated

_NAME = re.compile(r"(?<=\. )[A-Z][A-Za-z ]*(?= = )|(?<=\\text\{)[A-Z][A-Za-z ]*(?=\})|(?<=\()[a-z]+(?= = )")
"""What an equation calls its result."""
PRICES = "A pen costs $3 and a book $4. He buys 4 pens, and pays half of it, 0.5, at once."


def found(text: str, problem: str = "", draws: int = 600) -> set[str]:
    """What a step may become."""
    return {_NAME.sub("NAME", notated(text, quantities(problem), random.Random(seed))) for seed in range(draws)}


@pytest.mark.parametrize(
    ("text", "problem", "expected"),
    [
        ("He has 3 + 4 = 7 bags.", "", {
            "He has 3 bags + 4 bags = 7 bags.", "He has 7 (NAME = 3 + 4 = 7) bags.", r"He has \(3 + 4 = 7\) bags.",
        }),
        ("He fills 3 * 4 = 12 bags.", "There are 3 boxes.", {
            "He fills 3 boxes × 4 = 12 bags.", r"He fills 12: \[ \text{NAME} = 3 \times 4 = 12 \] bags.",
        }),
        ("He pays 3 + 12 = 15.", PRICES, {"He pays $3 + $12 = $15.", "He pays $3 + $12 = $15.00."}),
        ("He pays 4 * 3 = 12.", "He buys 4 pens for $3 each.", {"He pays 4 * $3 = $12.00.", "He pays 4 × 3 = 12."}),
        ("He pays 7 / 2 = 3.5.", "They share $7.", {
            "He pays $7 / 2 = $3.5.", r"He pays \(\frac{\$7}{2} = \$3.50\).", r"He pays 3.5 \[ \frac{7}{2} = 3.5 \].",
        }),
        ("He fills 16 * 3 / 4 = 12.", "", {
            "He fills 16 × 3/4 = 12.", r"He fills \(16 \times \frac{3}{4} = 12\).", "He fills 16 * (3/4) = 12.",
            "He fills 16 * 3 / 4 = 48 / 4 = 12.",
        }),
        ("He is 2 * (9 + 4) = 26 now. He fills 60 * 0.05 = 3 bags.", "There are 60 bags.", {
            "He is 2 * (9 + 4) = 2 * 13 = 26 now. He fills 60 * 0.05 = 3 bags.",
            "He is 2 * (9 + 4) = 26 now. He fills 5% of 60 = 60 * 0.05 = 3 bags.",
            "He is 2 x (9 + 4) = 26 now. He fills 60 x 0.05 = 3 bags.",
            r"He is \(2 \times (9 + 4) = 26\) now. He fills \(60 \text{ bags} \times 0.05 = 3\) bags.",
            "He is 26 now. NAME = 2 × (9 + 4). NAME = 26. He fills 3 bags. NAME = 60 × 0.05. NAME = 3.",
        }),
    ],
)  # fmt: skip
def test_notations(text: str, problem: str, expected: set[str]):
    told = found(text, problem)
    assert expected <= told
    assert text in told


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("He has 3 + 4 = 7 inches.", PRICES),  # what has a unit is no price
        ("He has 5 + 9 = 14.", PRICES),  # nor what comes of no price
        ("He pays (3 + 4) * 2 = 14.", PRICES),
        ("He buys 7 * 7 = 49.", "A pen is $7, and a week has 7 days."),
    ],
)
def test_what_is_not_known_to_be_dollars(text: str, problem: str):
    assert not [told for told in found(text, problem) if "$" in told]


def test_what_comes_of_prices_is_one():
    known = quantities(PRICES)
    notated("He pays 5 * 3 = 15.", known, random.Random(0))
    notated("He has 9 + 4 = 13 bags.", known, random.Random(0))
    assert known.priced == {"3", "15"}  # 4 is a price, and a number of pens


def test_an_equation_is_called_by_what_it_is():
    names = {
        name
        for seed in range(600)
        for name in re.findall(
            r"\b([A-Z]\w+) = 5 - ", notated("He has 5 - 3 = 2.", quantities(""), random.Random(seed))
        )
    }
    assert names == {"Result", "Amount", "Number", "Value", "Difference"}


@pytest.mark.parametrize("text", ["x^2 - 7 + 5 = 0", "gcd(60, 135) = 15", "It is 12.", "n(3 - 1) = 12"])
def test_what_is_no_whole_equation_stays(text: str):
    assert found(text, PRICES, 50) == {text}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1000 + 25000000 = 25001000", "1,000 + 25,000,000 = 25,001,000"),
        ("999, 1000.5, 1,500 and 0.12345 in A1000", "999, 1000.5, 1,500 and 0.12345 in A1000"),
        ("It is 1000.", "It is 1,000."),
        ("In 2017 there were 2117.", "In 2017 there were 2,117."),
    ],
)
def test_thousands_separators(text: str, expected: str):
    assert separated(text) == expected
