"""Families of algebra: brackets, equations, series, rates."""

from __future__ import annotations

from rationale_synth.families.records import (
    ANY,
    CASE,
    GOODS,
    OPERAND,
    OPERATION,
    PEOPLE,
    SIGN,
    UNIT,
    Family,
    FamilyStep,
    Wrong,
)

# fmt: off
ALGEBRA = (
    Family(
        "expand-brackets",
        (
            "Simplify {a}(x - {b}) - {c}(x - {d}) and find its value for x = {v}.",
            "Let f(x) = {a}(x - {b}) - {c}(x - {d}). Bring it into the form px + q and work out f({v}).",
        ),
        {"a": range(5, 13), "b": range(2, 10), "c": range(2, 9), "d": range(2, 10), "v": range(3, 15)},
        (
            FamilyStep("The first part is {a}(x - {b}) = {a:x} {m:+}.", "m", "-a * b", (
                Wrong(CASE, "-b"), Wrong(SIGN, "a * b"), Wrong(OPERATION, "-(a + b)"),
            ), check=("x = v", "a * (x - b)", "a * x + m"), sane=ANY),
            FamilyStep("The second part is -{c}(x - {d}) = -{c:x} {n:+}.", "n", "c * d", (
                Wrong(SIGN, "-c * d"), Wrong(CASE, "d"), Wrong(CASE, "-d"),
            ), check=("x = v", "-c * (x - d)", "-c * x + n"), sane=ANY),
            FamilyStep("Together this is {p:x} {q:+}.|Adding both gives {p:x} {q:+}.", "q", "m + n", (
                Wrong(SIGN, "m - n"), Wrong(CASE, "m"), Wrong(SIGN, "n - m"),
            ), check=("x = v", "a * x + m - c * x + n", "p * x + q"), sane=ANY),
            FamilyStep("For x = {v} we get {work} = {t}.", "t", "p * v + q", (
                Wrong(OPERATION, "p + v + q"), Wrong(SIGN, "p * v - q"), Wrong(OPERATION, "p * (v + q)"),
            ), sane=ANY),
        ),
        given={"p": "a - c"},
        holds="p > 1",
    ),
    Family(
        "linear-equation",
        (
            "Solve {a}(x - {b}) = {c}x + {d}.",
            "{who} thinks of a number, subtracts {b} and multiplies the result by {a}. The outcome is the same as {c} "
            "times the number plus {d}. What is the number?",
        ),
        {"who": PEOPLE, "a": range(4, 15), "b": range(2, 10), "c": range(2, 9), "r": range(3, 25), "v": range(2, 13)},
        (
            FamilyStep("With x for what we look for, {a}(x - {b}) = {c:x} + {d}."),
            FamilyStep("Expanding the left side gives {a:x} - {m} = {c:x} + {d}.", "m", "a * b", (
                Wrong(CASE, "b"), Wrong(OPERATION, "a + b"),
            ), check=("x = v", "a * (x - b)", "a * x - m")),
            FamilyStep("Subtracting {c:x} on both sides gives {k:x} - {m} = {d}.", "k", "a - c", (
                Wrong(SIGN, "a + c"), Wrong(CASE, "a"),
            ), check=("x = v", "a * x - m - c * x", "k * x - m")),
            FamilyStep("So {k:x} = {s}.|Bringing {m} to the other side, {k:x} = {s}.", "s", "d + m", (
                Wrong(SIGN, "d - m"), Wrong(SIGN, "m - d"), Wrong(OPERAND, "d + b"), Wrong(CASE, "d"),
            ), sane=ANY),
            FamilyStep("Then x = {work} = {x0}.", "x0", "s / k", (
                Wrong(SIGN, "s - k"), Wrong(OPERAND, "d / k"), Wrong(OPERAND, "s / a"), Wrong(OPERATION, "s * k"),
            ), check=("x = x0", "a * (x - b)", "c * x + d"), sane=ANY, places=2),
        ),
        given={"d": "a * (r - b) - c * r"},
        holds="d > 1 and a > c + 1 and v != r",
    ),
    Family(
        "vieta",
        (
            "Let u and v be the solutions of x^2 {b:+x} {c:+} = 0. What is u^2 + v^2 + u + v?",
            "The equation x^2 {b:+x} {c:+} = 0 has two real solutions. Add the sum of their squares and their sum.",
        ),
        {"b": [*range(-15, -2), *range(3, 16)], "c": [*range(-20, 0), *range(2, 31)]},
        (
            FamilyStep("By Vieta the sum of the solutions is {s}.", "s", "-b", (
                Wrong(SIGN, "b"), Wrong(OPERAND, "c"),
            ), sane=ANY),
            FamilyStep("Their product is {p}.", "p", "c", (Wrong(SIGN, "-c"), Wrong(OPERAND, "-b")), sane=ANY),
            FamilyStep("The sum of the squares is {work} = {q}.", "q", "s ** 2 - 2 * p", (
                Wrong(CASE, "s ** 2"), Wrong(SIGN, "s ** 2 + 2 * p"), Wrong(OPERAND, "s ** 2 - p"),
                Wrong(OPERATION, "2 * s - 2 * p"),
            ), sane=ANY),
            FamilyStep("With the sum itself this makes {work} = {t}.", "t", "q + s", (
                Wrong(SIGN, "q - s"), Wrong(OPERAND, "q + p"), Wrong(CASE, "q"),
            ), sane=ANY),
        ),
        holds="b ** 2 > 4 * c",
    ),
    Family(
        "system",
        (
            "Two numbers x and y satisfy {a}x + {b}y = {c} and x - y = {d}. What is x * y?",
            "A {one} costs {d} dollars more than a {two}. {a} of the first and {b} of the second cost {c} dollars. "
            "What do you get when you multiply the two prices?",
        ),
        {"one": ("book", "ball", "mug"), "two": ("pen", "card", "ribbon"), "a": range(2, 10), "b": range(2, 10),
         "d": range(2, 12), "q": range(2, 20), "v": range(3, 12)},
        (
            FamilyStep("With x for the first and y for the second, x = y + {d}."),
            FamilyStep("Put into {a}x + {b}y = {c} this gives {k}y + {m} = {c}.", "m", "a * d", (
                Wrong(CASE, "d"), Wrong(OPERAND, "b * d"), Wrong(OPERATION, "a + d"),
            ), check=("y = v", "a * (y + d) + b * y", "k * y + m")),
            FamilyStep("So {k}y = {s}.", "s", "c - m", (Wrong(SIGN, "c + m"), Wrong(OPERAND, "c - d"))),
            FamilyStep("Then y = {work} = {y0}.", "y0", "s / k", (
                Wrong(OPERAND, "s / a"), Wrong(OPERAND, "c / k"), Wrong(OPERATION, "s - k"),
            ), check=("y = y0", "k * y", "s"), places=2),
            FamilyStep("And x = {work} = {x0}.", "x0", "y0 + d", (
                Wrong(SIGN, "y0 - d"), Wrong(OPERATION, "y0 * d"),
            ), check=("x = x0", "x - y0", "d"), places=2),
            FamilyStep("The product is {work} = {n}.", "n", "x0 * y0", (
                Wrong(OPERATION, "x0 + y0"), Wrong(OPERAND, "x0 * d"),
            ), places=2),
        ),
        given={"c": "a * (q + d) + b * q", "k": "a + b"},
    ),
    Family(
        "heads-and-legs",
        (
            "On a farm there are {n} geese and goats, with {l} legs altogether. How many more goats than geese, or "
            "more geese than goats, are there?",
            "{who} sees {n} motorbikes and cars in a yard and counts {l} wheels, two on each motorbike and four on "
            "each car. By how much do the numbers of motorbikes and cars differ?",
        ),
        {"who": PEOPLE, "n": range(12, 90), "g": range(3, 80)},
        (
            FamilyStep("With two each there would be {work} = {t}.", "t", "2 * n", (
                Wrong(OPERAND, "n"), Wrong(OPERATION, "n + 2"),
            )),
            FamilyStep("That leaves {work} = {e}.", "e", "l - t", (Wrong(OPERAND, "l - n"),)),
            FamilyStep("Each of those with four has two more, so there are {work} = {f} of them.", "f", "e / 2", (
                Wrong(OPERAND, "e / 4"), Wrong(OPERATION, "e - 2"),
            )),
            FamilyStep("There are {work} = {w} of the others.", "w", "n - f", (
                Wrong(OPERAND, "l / 2 - f"), Wrong(OPERAND, "n - e"),
            )),
            FamilyStep("The difference is {work} = {m}.", "m", "abs(f - w)", (
                Wrong(SIGN, "f + w"), Wrong(OPERAND, "n - min(f, w)"),
            )),
        ),
        given={"l": "2 * n + 2 * g"},
        holds="g < n - 2 and n != 2 * g",
    ),
    Family(
        "polynomial",
        (
            "Let f(x) = {a}x^3 - {b}x^2 + {c}x - {d}. What is f({v})?",
            "Work out {a}x^3 - {b}x^2 + {c}x - {d} for x = {v}.",
        ),
        {"a": range(2, 8), "b": range(2, 10), "c": range(2, 12), "d": range(1, 20), "v": (-5, -4, -3, -2, 2, 3, 4, 5)},
        (
            FamilyStep("The first term is {work} = {p}.", "p", "a * v ** 3", (
                Wrong(SIGN, "-(a * v ** 3)"), Wrong(OPERATION, "a * v * 3"), Wrong(CASE, "a * v ** 2"),
                Wrong(OPERATION, "(a * v) ** 3"),
            ), sane=ANY),
            FamilyStep("{work} = {q} is to be subtracted.", "q", "b * v ** 2", (
                Wrong(SIGN, "-(b * v ** 2)"), Wrong(OPERATION, "b * v * 2"), Wrong(OPERATION, "(b * v) ** 2"),
            ), sane=ANY),
            FamilyStep("{work} = {r} is to be added.", "r", "c * v", (
                Wrong(SIGN, "-(c * v)"), Wrong(OPERATION, "c + v"), Wrong(OPERAND, "d * v"),
            ), sane=ANY),
            FamilyStep("In all we get {work} = {t}.", "t", "p - q + r - d", (
                Wrong(SIGN, "p + q + r - d"), Wrong(SIGN, "p - q + r + d"), Wrong(CASE, "p - q + r"),
                Wrong(CASE, "p - q - d"),
            ), sane=ANY),
        ),
    ),
    Family(
        "arithmetic-series",
        (
            "The first row of a hall has {a} seats, and every row has {d} seats more than the one before it. There "
            "are {n} rows. How many seats does the hall have?",
            "{who} saves {a} dollars in the first week and each week {d} dollars more than in the week before. How "
            "much is saved in {n} weeks?",
            "What is the sum of the first {n} terms of the arithmetic sequence that begins with {a} and grows by {d} "
            "from term to term?",
        ),
        {"who": PEOPLE, "a": range(5, 40), "d": range(2, 12), "n": range(6, 31)},
        (
            FamilyStep("The last one is {work} = {l}.|The last term is {work} = {l}.", "l", "a + (n - 1) * d", (
                Wrong(CASE, "a + n * d"), Wrong(CASE, "(n - 1) * d"), Wrong(OPERATION, "a + (n - 1) + d"),
                Wrong(SIGN, "a + (n + 1) * d"), Wrong(OPERATION, "a * d"),
            )),
            FamilyStep("First and last together are {work} = {s}.", "s", "a + l", (
                Wrong(SIGN, "l - a"), Wrong(OPERAND, "d + l"),
            )),
            FamilyStep("So the sum is {work} = {t}.", "t", "n * s / 2", (
                Wrong(OPERATION, "n * s"), Wrong(CASE, "(n - 1) * s / 2"), Wrong(OPERAND, "n * l / 2"),
            )),
        ),
    ),
    Family(
        "geometric-series",
        (
            "{who} tells a secret to {a} people on the first day. Every day {r} times as many people hear it as on "
            "the day before. How many people have heard it after {n} days?",
            "A geometric sequence begins with {a}, and each term is {r} times the one before. What is the sum of its "
            "first {n} terms?",
        ),
        {"who": PEOPLE, "a": range(2, 30), "r": range(2, 6), "n": range(4, 8)},
        (
            FamilyStep("We need {work} = {p}.|First, {work} = {p}.", "p", "r ** n", (
                Wrong(OPERATION, "r * n"), Wrong(CASE, "r ** (n - 1)"), Wrong(OPERAND, "n ** r"),
            )),
            FamilyStep("The sum of the powers below it is {work} = {q}.", "q", "(p - 1) / (r - 1)", (
                Wrong(CASE, "p / r"), Wrong(SIGN, "(p + 1) / (r + 1)"), Wrong(OPERATION, "p - 1"),
            )),
            FamilyStep("Times the first term this makes {work} = {t}.", "t", "a * q", (
                Wrong(OPERATION, "a + q"), Wrong(OPERAND, "a * p"), Wrong(OPERAND, "r * q"),
            )),
        ),
        holds="r ** n < 5000 and a != r",
    ),
    Family(
        "percent-chain",
        (
            "A {good} costs {p} dollars. The price is raised by {a} percent and later reduced by {b} percent. What "
            "does it cost then?",
            "{who} offers a {good} for {p} euros, puts the price up by {a}%, and finally takes {b}% off. What is the "
            "final price in euros?",
        ),
        {"who": PEOPLE, "good": GOODS, "p": range(40, 620, 20), "a": range(5, 65, 5), "b": range(5, 55, 5)},
        (
            FamilyStep("The increase is {work} = {i}.", "i", "p * a / 100", (
                Wrong(OPERAND, "p * b / 100"), Wrong(UNIT, "p * a / 10"), Wrong(UNIT, "a"),
            ), places=2),
            FamilyStep("The raised price is {work} = {q}.", "q", "p + i", (
                Wrong(SIGN, "p - i"), Wrong(OPERAND, "p + a"),
            ), places=2),
            FamilyStep("The reduction is {work} = {r}.", "r", "q * b / 100", (
                Wrong(OPERAND, "p * b / 100"), Wrong(OPERAND, "i * b / 100"), Wrong(OPERAND, "q * a / 100"),
            ), places=2),
            FamilyStep("So the final price is {work} = {t}.", "t", "q - r", (
                Wrong(SIGN, "q + r"), Wrong(OPERAND, "p - r"), Wrong(OPERAND, "q - b"),
            ), places=2),
        ),
        holds="a != b",
    ),
    Family(
        "more-workers",
        (
            "{w} painters need {d} days for a bridge. How many days earlier are they done if there are {v} painters?",
            "Hay lasts {w} horses for {d} days. By how many days is that shorter if {v} horses eat from it?",
            "With {w} pumps a pool is empty after {d} hours. How many hours are saved with {v} such pumps?",
        ),
        {"w": range(2, 20), "d": range(6, 60), "v": range(3, 40)},
        (
            FamilyStep("It is the same work either way."),
            FamilyStep("One alone would take {work} = {t}.", "t", "w * d", (
                Wrong(OPERATION, "w + d"), Wrong(OPERATION, "d / w"),
            ), places=1),
            FamilyStep("Now it takes {work} = {e}.", "e", "t / v", (
                Wrong(OPERATION, "d * v / w", "More of them change the time in proportion: {work} = {e}."),
                Wrong(OPERAND, "t / (v - w)"), Wrong(OPERAND, "t / (v + w)"), Wrong(OPERATION, "t - v"),
            ), places=1, sane="0 < value != d"),
            FamilyStep("The difference is {work} = {m}.", "m", "d - e", (
                Wrong(SIGN, "d + e"), Wrong(OPERAND, "t - e"),
            ), places=1, sane=ANY),
        ),
        holds="v > w + 1",
    ),
    Family(
        "average-speed",
        (
            "{who} drives for {a} minutes at {v} km/h and then for {b} minutes at {u} km/h. What is the average speed "
            "in km/h?",
            "A train runs {a} minutes at {v} km/h. After that it runs {b} minutes at {u} km/h. How many kilometres "
            "per hour does it make on average?",
        ),
        {"who": PEOPLE, "a": range(10, 125, 5), "b": range(10, 125, 5), "v": range(12, 121, 2), "u": range(12, 121, 2)},
        (
            FamilyStep("The first part is {work} = {p} km long.", "p", "v * a / 60", (
                Wrong(UNIT, "v * a"), Wrong(UNIT, "v * a / 100"), Wrong(OPERAND, "u * a / 60"),
                Wrong(OPERATION, "v / (a / 60)"),
            ), places=2),
            FamilyStep("The second part is {work} = {q} km long.", "q", "u * b / 60", (
                Wrong(UNIT, "u * b"), Wrong(OPERAND, "v * b / 60"), Wrong(UNIT, "u * b / 100"),
            ), places=2),
            FamilyStep("The whole way is {work} = {s} km.", "s", "p + q", (
                Wrong(CASE, "q"), Wrong(OPERATION, "(p + q) / 2"),
            ), places=2),
            FamilyStep("It takes {work} = {t} hours.", "t", "(a + b) / 60", (
                Wrong(UNIT, "(a + b) / 100"), Wrong(CASE, "b / 60"),
            ), places=2),
            FamilyStep("So the average speed is {work} = {m} km/h.", "m", "s / t", (
                Wrong(OPERATION, "(v + u) / 2"), Wrong(OPERATION, "s * t"), Wrong(OPERATION, "s / 2"),
            ), places=2),
        ),
        holds="v != u and a != b",
    ),
    Family(
        "two-pipes",
        (
            "One pipe alone fills a basin of {n} litres in {a} hours, another one alone in {b} hours. How many hours "
            "do both together need?",
            "An old machine alone prints {n} cards in {a} hours, a new one alone prints them in {b} hours. How long "
            "do they take together, in hours?",
        ),
        {"n": range(120, 2400, 60), "a": range(2, 25), "b": range(2, 25)},
        (
            FamilyStep("The first does {work} = {p} in an hour.", "p", "n / a", (Wrong(OPERAND, "n / b"),), places=1),
            FamilyStep("The second does {work} = {q} in an hour.", "q", "n / b", (
                Wrong(OPERAND, "n / (a + b)"),
            ), places=1),
            FamilyStep("Both together do {work} = {r}.", "r", "p + q", (
                Wrong(OPERATION, "(p + q) / 2"), Wrong(SIGN, "abs(p - q)"), Wrong(CASE, "p"),
            ), places=1),
            FamilyStep("So they need {work} = {t} hours.", "t", "n / r", (
                Wrong(OPERATION, "(a + b) / 2"), Wrong(OPERATION, "a + b"), Wrong(OPERAND, "n / p"),
            ), places=2),
        ),
        holds="a != b",
    ),
    Family(
        "absolute-value",
        (
            "Which numbers x satisfy |{a}x - {b}| = {c}? Add them up.",
            "{who} looks for every x for which {a}x and {b} differ by exactly {c}. What is the sum of these x?",
        ),
        {"who": PEOPLE, "a": (2, 4, 5, 8, 10), "b": range(1, 30), "c": range(1, 40)},
        (
            FamilyStep("There are two cases: {a}x - {b} = {c}, and {a}x - {b} = -{c}."),
            FamilyStep("In the first one {a}x = {work} = {p}.", "p", "b + c", (
                Wrong(SIGN, "b - c"), Wrong(CASE, "c"),
            ), sane=ANY),
            FamilyStep("That gives x = {work} = {y}.", "y", "p / a", (
                Wrong(OPERATION, "p - a"), Wrong(OPERATION, "p * a"),
            ), sane=ANY, places=2),
            FamilyStep("In the second one {a}x = {work} = {q}.", "q", "b - c", (
                Wrong(SIGN, "c - b"), Wrong(SIGN, "b + c"),
            ), sane=ANY),
            FamilyStep("That gives x = {work} = {z}.", "z", "q / a", (Wrong(OPERATION, "q - a"),), sane=ANY, places=2),
            FamilyStep("The sum is {work} = {t}.", "t", "y + z", (
                Wrong(CASE, "y", "The first one is the only solution: {t}."), Wrong(SIGN, "y - z"),
            ), sane=ANY, places=2),
        ),
        holds="b != c",
    ),
    Family(
        "league",
        (
            "In a league every team plays once against every other one, which makes {g} games. {k} more teams join. "
            "How many games are there then?",
            "{who} draws some points and joins each to each, with {g} lines. How many lines are there with {k} more "
            "points?",
        ),
        {"who": PEOPLE, "r": range(5, 25), "k": range(2, 8)},
        (
            FamilyStep("For n of them that is n(n - 1)/2."),
            FamilyStep("So n(n - 1) = {work} = {p}.", "p", "2 * g", (
                Wrong(OPERATION, "g ** 2"), Wrong(OPERAND, "2 * g * k"),
            )),
            FamilyStep("Then n is {m}.", "m", "(1 + math.isqrt(1 + 4 * p)) // 2", (
                Wrong(OPERATION, "p // 2"), Wrong(CASE, "math.isqrt(p)"),
            ), check=("n = m", "n * (n - 1)", "p")),
            FamilyStep("With the new ones there are {work} = {l}.", "l", "m + k", (
                Wrong(SIGN, "m - k"), Wrong(OPERATION, "m * k"),
            )),
            FamilyStep("That makes {work} = {t}.", "t", "l * (l - 1) / 2", (
                Wrong(OPERATION, "l * (l - 1)"), Wrong(CASE, "l - 1"), Wrong(SIGN, "l * (l + 1) / 2"),
                Wrong(OPERAND, "k * (k - 1) / 2"),
            )),
        ),
        given={"g": "r * (r - 1) / 2"},
    ),
)
# fmt: on
