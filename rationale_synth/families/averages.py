"""Families of averages and ages."""

from __future__ import annotations

from rationale_synth.families.records import CASE, OPERAND, OPERATION, PEOPLE, SIGN, Family, FamilyStep, Wrong

# fmt: off
AVERAGES = (
    Family(
        "raise-the-average",
        (
            "After {n} tests {who} has {m} points on average. How many points are needed in each of the next {k} "
            "tests, the same in each, for an average of {g} over all of them?",
            "The first {n} parcels of {who} weigh {m} kg on average. {k} more parcels of equal weight bring the "
            "average of all to {g} kg. How many kg does each of these weigh?",
        ),
        {"who": PEOPLE, "n": range(3, 16), "k": range(2, 7), "m": range(50, 90), "g": range(52, 99)},
        (
            FamilyStep("So far the sum is {work} = {s}.", "s", "n * m", (
                Wrong(OPERATION, "n + m"), Wrong(OPERAND, "n * g"), Wrong(OPERAND, "k * m"),
            )),
            FamilyStep("It has to become {work} = {t}.", "t", "(n + k) * g", (
                Wrong(CASE, "n * g"), Wrong(CASE, "(n + 1) * g"), Wrong(OPERAND, "(n + k) * m"),
            )),
            FamilyStep("{work} = {d} are missing.", "d", "t - s", (Wrong(OPERAND, "t - m"), Wrong(SIGN, "t + s"))),
            FamilyStep("In each of the {k} this is {work} = {e}.", "e", "d / k", (
                Wrong(OPERAND, "d / n"), Wrong(OPERAND, "d / (n + k)"), Wrong(OPERATION, "d - k"),
            ), places=1),
        ),
        holds="m < g and (n + k) * g - n * m <= 100 * k",
    ),
    Family(
        "weighted-average",
        (
            "In one class {a} pupils have {u} points on average, in another {b} pupils have {v} points on average. "
            "What is the average of all of them?",
            "{who} mixes {a} kg of nuts at {u} euros a kilogram with {b} kg of raisins at {v} euros a kilogram. What "
            "does a kilogram of the mixture cost, in euros?",
        ),
        {"who": PEOPLE, "a": range(4, 37), "b": range(4, 37), "u": range(4, 30), "v": range(4, 30)},
        (
            FamilyStep("The first ones make {work} = {p}.", "p", "a * u", (
                Wrong(OPERATION, "a + u"), Wrong(OPERAND, "a * v"), Wrong(OPERAND, "b * u"),
            )),
            FamilyStep("The second ones make {work} = {q}.", "q", "b * v", (
                Wrong(OPERATION, "b + v"), Wrong(OPERAND, "b * u"), Wrong(OPERAND, "a * v"),
            )),
            FamilyStep("Together this is {work} = {s}.", "s", "p + q", (Wrong(CASE, "p"), Wrong(SIGN, "abs(p - q)"))),
            FamilyStep("There are {work} = {n} in all.", "n", "a + b", (Wrong(OPERAND, "u + v"), Wrong(CASE, "b"))),
            FamilyStep("So the average is {work} = {m}.", "m", "s / n", (
                Wrong(OPERATION, "(u + v) / 2"), Wrong(OPERATION, "s / 2"), Wrong(OPERAND, "p / n"),
            ), places=2),
        ),
        holds="a != b and u != v",
    ),
    Family(
        "ages",
        (
            "{who} is {k} times as old as {other}. In {t} years their ages will add up to {s}. How old will {who} be "
            "in {f} years?",
            "{who} has lived {k} times as many years as {other}. {t} years from now they will be {s} years old "
            "together. What will be the age of {who} after {f} years?",
        ),
        {"who": PEOPLE[:6], "other": PEOPLE[6:], "k": range(2, 8), "t": range(2, 13), "f": range(14, 30),
         "y": range(3, 20)},
        (
            FamilyStep("Today their ages add up to {work} = {n}.", "n", "s - 2 * t", (
                Wrong(CASE, "s - t"), Wrong(SIGN, "s + 2 * t"), Wrong(CASE, "s"), Wrong(OPERAND, "s - k * t"),
            )),
            FamilyStep("{who} has {k} parts of this and {other} one, which makes {work} = {p} parts.", "p", "k + 1", (
                Wrong(CASE, "k", "As {who} has {k} times as much, there are {p} parts."), Wrong(SIGN, "k - 1"),
            )),
            FamilyStep("So {other} is {work} = {y0} years old.", "y0", "n / p", (
                Wrong(OPERATION, "n - p"), Wrong(OPERAND, "n / 2"), Wrong(OPERAND, "s / p"),
            ), places=1),
            FamilyStep("And {who} is {work} = {x0}.", "x0", "k * y0", (
                Wrong(OPERATION, "k + y0"), Wrong(OPERAND, "p * y0"),
            ), places=1),
            FamilyStep("In {f} years it will be {work} = {m}.", "m", "x0 + f", (
                Wrong(OPERAND, "x0 + t"), Wrong(OPERAND, "y0 + f"), Wrong(CASE, "x0 + f - t"),
                Wrong(CASE, "x0 + t + f"),
            ), places=1),
        ),
        given={"s": "(k + 1) * y + 2 * t"},
        holds="k * y < 80",
    ),
)
# fmt: on
