"""Families of everyday life: units of speed, ways towards each other, change, full bags."""

from __future__ import annotations

from rationale_synth.families.records import CASE, OPERAND, OPERATION, PEOPLE, SIGN, UNIT, Family, FamilyStep, Wrong

# fmt: off
EVERYDAY = (
    Family(
        "metres-a-second",
        (
            "A {thing} moves at {v} km/h all the time. How many metres is that in {s} seconds?",
            "{who} passes a tunnel at {v} km/h and needs {s} seconds for it. How many metres long is the tunnel?",
        ),
        {"who": PEOPLE, "thing": ("tram", "barge", "ski lift", "horse", "drone"), "v": range(9, 127, 9),
         "s": range(20, 210, 10)},
        (
            FamilyStep("{v} km are {work} = {m} m.", "m", "v * 1000", (Wrong(UNIT, "v * 100"), Wrong(UNIT, "v * 10"))),
            FamilyStep("An hour has {work} = {h} seconds.", "h", "60 * 60", (
                Wrong(UNIT, "60 * 100"), Wrong(UNIT, "24 * 60"), Wrong(OPERATION, "60 + 60"),
            )),
            FamilyStep("So it makes {work} = {p} m in a second.", "p", "m / h", (
                Wrong(UNIT, "m / 60"), Wrong(UNIT, "m / 100"),
            ), places=2),
            FamilyStep("In {s} seconds that is {work} = {t} m.", "t", "p * s", (
                Wrong(OPERATION, "p + s"), Wrong(OPERATION, "s / p"), Wrong(OPERAND, "v * s"),
            ), places=2),
        ),
    ),
    Family(
        "towards-each-other",
        (
            "Two {things} start at the same time from places {d} km apart. They come towards each other, the first "
            "with {v} km/h, the second with {u} km/h. How far has the first one gone when they meet?",
            "{who} and a friend live {d} km apart. They set off at noon to meet on the way: {who} makes {v} km an "
            "hour, the friend {u} km an hour. How many kilometres has {who} covered when they meet?",
        ),
        {"who": PEOPLE, "things": ("ships", "buses", "hikers", "cyclists"), "v": range(4, 90, 2), "u": range(4, 90, 2),
         "h": range(2, 8)},
        (
            FamilyStep("Together they come {work} = {c} km closer in an hour.", "c", "v + u", (
                Wrong(SIGN, "abs(v - u)"), Wrong(OPERATION, "(v + u) / 2"), Wrong(CASE, "u"),
            )),
            FamilyStep("So they meet after {work} = {t} hours.", "t", "d / c", (
                Wrong(OPERAND, "d / v"), Wrong(OPERATION, "d - c"), Wrong(OPERAND, "d / u"),
            ), places=2),
            FamilyStep("By then the first one has gone {work} = {w} km.", "w", "v * t", (
                Wrong(OPERAND, "u * t"), Wrong(OPERATION, "v + t"), Wrong(OPERATION, "d / 2"),
            ), places=2),
        ),
        given={"d": "(v + u) * h"},
        holds="v != u",
    ),
    Family(
        "change",
        (
            "{who} takes {a} {things} for {p} dollars each and {b} {others} for {q} dollars each, has a coupon worth "
            "{g} dollars, and pays with {n} notes of {k} dollars. How many dollars come back?",
            "A {one} costs {p} dollars, a {two} {q} dollars. {who} needs {a} of the first and {b} of the second, gets "
            "{g} dollars off the bill and hands over {n} notes of {k} dollars. How much is the change?",
        ),
        {"who": PEOPLE, "things": ("tulips", "notebooks", "candles"), "others": ("vases", "pens", "bowls"),
         "one": ("brush", "tile", "plank"), "two": ("hinge", "hook", "bucket"), "a": range(2, 13), "b": range(2, 13),
         "p": range(2, 16), "q": range(2, 16), "g": (5, 10, 15, 20), "n": range(2, 7), "k": (20, 50, 100)},
        (
            FamilyStep("The first ones cost {work} = {x} dollars.", "x", "a * p", (
                Wrong(OPERATION, "a + p"), Wrong(OPERAND, "a * q"), Wrong(OPERAND, "b * p"),
            )),
            FamilyStep("The others cost {work} = {y} dollars.", "y", "b * q", (
                Wrong(OPERAND, "b * p"), Wrong(OPERAND, "a * q"), Wrong(OPERATION, "b + q"),
            )),
            FamilyStep("All of it costs {work} = {z} dollars.|That is {work} = {z} dollars.", "z", "x + y", (
                Wrong(CASE, "x"), Wrong(CASE, "y"),
            )),
            FamilyStep("What is to be paid is {work} = {w} dollars.", "w", "z - g", (
                Wrong(SIGN, "z + g"), Wrong(OPERAND, "x - g"),
            )),
            FamilyStep("The notes are worth {work} = {m} dollars.", "m", "n * k", (Wrong(OPERATION, "n + k"),)),
            FamilyStep("So {work} = {c} dollars come back.", "c", "m - w", (
                Wrong(OPERAND, "m - z"), Wrong(SIGN, "m + w"), Wrong(OPERAND, "m - g"),
            )),
        ),
        holds="n * k > a * p + b * q + 5 and a * p + b * q > g + 5 and p != q and a != b",
    ),
    Family(
        "full-bags",
        (
            "{who} picks {a} baskets of {b} {fruits} each, fills bags of {c}, and sells only the full bags, for {p} "
            "dollars each. How many dollars do they bring?",
            "A farm has {a} crates with {b} {fruits} in each. They are sold in nets of {c}, at {p} dollars a net; what "
            "does not fill a net is eaten. How much money comes in?",
        ),
        {"who": PEOPLE, "fruits": ("apples", "pears", "lemons", "onions"), "a": range(4, 60), "b": range(6, 40),
         "c": range(5, 15), "p": range(2, 10)},
        (
            FamilyStep("There are {work} = {n} {fruits}.", "n", "a * b", (
                Wrong(OPERATION, "a + b"), Wrong(OPERAND, "a * c"),
            )),
            FamilyStep("They fill {work} = {f}.", "f", "n // c", (
                Wrong(CASE, "n // c + 1"), Wrong(OPERAND, "n // b"), Wrong(OPERAND, "n // a"),
            )),
            FamilyStep("That brings {work} = {t} dollars.", "t", "f * p", (
                Wrong(OPERAND, "f * c"), Wrong(OPERAND, "a * p"), Wrong(OPERATION, "f + p"),
            )),
        ),
        holds="a * b % c and a != b and b != c",
    ),
)
# fmt: on
