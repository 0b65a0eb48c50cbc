"""Families of number theory: divisors, remainders, digits."""

from __future__ import annotations

from rationale_synth.families.records import (
    CASE,
    OPERAND,
    OPERATION,
    PEOPLE,
    PRIMES,
    SIGN,
    UNIT,
    Family,
    FamilyStep,
    Wrong,
)

# fmt: off
NUMBER_THEORY = (
    Family(
        "common-departures",
        (
            "Two {lines} leave a square at the same moment. After that one of them leaves every {a} minutes and the "
            "other every {b} minutes. How many more times do they leave together within the next {h} hours?",
            "A red lamp flashes every {a} minutes and a blue lamp every {b} minutes. Both have just flashed together. "
            "How often will they flash together again in the coming {h} hours?",
            "{who} waters the ferns every {a} minutes and the moss every {b} minutes, in a test that starts with "
            "both. The test goes on for {h} hours. How many times after the start are both watered at once?",
        ),
        {"lines": ("trams", "buses", "cable cars"), "who": PEOPLE, "a": range(6, 41), "b": range(6, 41),
         "h": range(5, 25)},
        (
            FamilyStep("The greatest common divisor of {a} and {b} is {g}.|We have gcd({a}, {b}) = {g}.", "g",
                "math.gcd(a, b)", (
                Wrong(CASE, "1", "The numbers {a} and {b} share no factor, so their greatest common divisor is {g}."),
                Wrong(CASE, "math.gcd(a, b) // 2"), Wrong(OPERATION, "abs(a - b)"),
            )),
            FamilyStep("So their least common multiple is {work} = {m}, and it happens every {m} minutes.", "m",
                "a * b / g", (
                Wrong(OPERATION, "a * b"),
                Wrong(OPERAND, "g", "It happens together every gcd({a}, {b}) = {m} minutes."),
                Wrong(OPERATION, "a + b"),
            )),
            FamilyStep("{h} hours are {work} = {t} minutes.", "t", "h * 60", (
                Wrong(UNIT, "h * 100"), Wrong(UNIT, "h * 24"),
            )),
            FamilyStep("In that time it happens {work} = {n} times.", "n", "t // m", (
                Wrong(OPERAND, "t // a"), Wrong(OPERAND, "t // b"), Wrong(CASE, "t // m - 1"),
            )),
        ),
        holds="a != b and math.gcd(a, b) > 1",
    ),
    Family(
        "equal-bags",
        (
            "{who} has {a} {one} and {b} {two} and packs them all into bags. Every bag must hold the same, and there "
            "should be as many bags as possible. How many things are in one bag?",
            "A shop wants to make as many identical packs as it can from {a} {one} and {b} {two}, with nothing left "
            "over. How many pieces does each pack hold?",
        ),
        {"who": PEOPLE, "one": ("pens", "apples", "shells", "stickers"), "two": ("rulers", "plums", "beads", "coins"),
         "f": range(4, 25), "u": range(2, 12), "v": range(2, 12)},
        (
            FamilyStep("The number of bags is the greatest common divisor, gcd({a}, {b}) = {g}.", "g", "math.gcd(a, b)",
                (
                Wrong(CASE, "math.gcd(a, b) // 2"), Wrong(CASE, "math.gcd(a, b) // 3"), Wrong(OPERATION, "abs(a - b)"),
                Wrong(OPERAND, "math.lcm(a, b)", "The number of bags is the least common multiple, {g}."),
            )),
            FamilyStep("Each gets {work} = {p} {one}.", "p", "a / g", (
                Wrong(OPERATION, "a - g"), Wrong(OPERAND, "b / g"),
            ), places=1),
            FamilyStep("And {work} = {q} {two}.|Each also gets {work} = {q} {two}.", "q", "b / g", (
                Wrong(OPERATION, "b - g"), Wrong(OPERAND, "a / g"), Wrong(OPERAND, "b / p"),
            ), places=1),
            FamilyStep("Together these are {work} = {n}.", "n", "p + q", (
                Wrong(OPERATION, "p * q"), Wrong(CASE, "p"), Wrong(OPERAND, "g + q"),
            ), places=1),
        ),
        given={"a": "f * u", "b": "f * v"},
        holds="math.gcd(u, v) == 1",
    ),
    Family(
        "remainder",
        (
            "What is the remainder when {a} * {b} + {c} is divided by {m}?",
            "{who} packs {a} crates of {b} oranges and {c} single oranges into nets of {m}, as many as can be filled. "
            "How many oranges are left over?",
        ),
        {"who": PEOPLE, "a": range(23, 200), "b": range(23, 200), "c": range(10, 100), "m": (7, 8, 9, 11, 12, 13)},
        (
            FamilyStep("{a} mod {m} = {r}.|Divided by {m}, {a} leaves {r}.", "r", "a % m", (
                Wrong(OPERATION, "a // m"), Wrong(OPERAND, "a % 10"), Wrong(SIGN, "-a % m"),
            ), sane="0 < value < m"),
            FamilyStep("{b} mod {m} = {s}.|Divided by {m}, {b} leaves {s}.", "s", "b % m", (
                Wrong(OPERATION, "b // m"), Wrong(OPERAND, "b % 10"), Wrong(SIGN, "-b % m"),
            ), sane="0 < value < m"),
            FamilyStep("So the product leaves {work} = {p}.", "p", "(r * s) % m", (
                Wrong(OPERATION, "(r + s) % m"), Wrong(OPERATION, "(r * s) // m"), Wrong(OPERAND, "(r * s) % 10"),
            ), sane="0 <= value < m"),
            FamilyStep("With the {c} that are added the remainder is {work} = {n}.", "n", "(p + c) % m", (
                Wrong(CASE, "p % m"), Wrong(SIGN, "(p - c) % m"), Wrong(OPERATION, "(p * c) % m"),
            ), sane="0 <= value < m"),
        ),
    ),
    Family(
        "last-digit",
        (
            "What is the last digit of {a}^{n}?",
            "Find the units digit of {a}^{n}.",
            "{who} multiplies {n} factors, each of which is {a}. With which digit does the product end?",
        ),
        {"who": PEOPLE, "a": [a for a in range(12, 100) if a % 10 in (2, 3, 4, 7, 8, 9)], "n": range(11, 200)},
        (
            FamilyStep("Only the last digit of {a} matters, which is {c}.", "c", "a % 10", (
                Wrong(OPERAND, "a // 10"), Wrong(OPERATION, "a % 9"),
            ), sane="1 < value < 10"),
            FamilyStep("The last digits of the powers of {c} repeat every {p} powers.", "p",
                "next(i for i in range(1, 9) if pow(c, i + 1, 10) == c % 10)", (
                Wrong(CASE, "5"), Wrong(CASE, "3"), Wrong(OPERAND, "10"),
            ), sane="1 < value < 11"),
            FamilyStep("The exponent leaves {work} = {r}.", "r", "n % p", (
                Wrong(OPERATION, "n // p"), Wrong(OPERAND, "n % 10"), Wrong(CASE, "n % p + 1"),
            ), sane="0 < value < 20"),
            FamilyStep("So the last digit is that of {c}^{r}, which is {e}.|{c}^{r} ends in {e}.", "e", "c ** r % 10", (
                Wrong(OPERATION, "c * r % 10"), Wrong(CASE, "c ** (r - 1) % 10"), Wrong(OPERAND, "r ** c % 10"),
            ), sane="0 < value < 10"),
        ),
    ),
    Family(
        "divisors",
        (
            "How many divisors does {n} have other than 1 and {n} itself?",
            "{n} chairs are set up in equal rows, with more than one row and more than one chair in a row. In how "
            "many ways can this be done, if rows by chairs and chairs by rows are different ways?",
        ),
        {"p": PRIMES[:3], "q": PRIMES[1:5], "r": PRIMES[2:], "i": range(1, 6), "j": range(1, 4), "k": range(1, 3)},
        (
            FamilyStep("In primes, {n} = {p}^{e} * {q}^{j} * {r}^{k}.", "e", "i", (
                Wrong(CASE, "i - 1"), Wrong(CASE, "i + 2"),
            ), check=("", "p ** e * q ** j * r ** k", "n")),
            FamilyStep("So there are {work} = {t} divisors.", "t", "(e + 1) * (j + 1) * (k + 1)", (
                Wrong(CASE, "e * j * k"), Wrong(OPERATION, "(e + 1) + (j + 1) + (k + 1)"),
                Wrong(CASE, "(e + 1) * (j + 1)"), Wrong(OPERATION, "e + j + k"),
            )),
            FamilyStep("Without 1 and {n} these are {work} = {m}.", "m", "t - 2", (
                Wrong(CASE, "t - 1"), Wrong(SIGN, "t + 2"), Wrong(OPERATION, "t / 2"),
            )),
        ),
        given={"n": "p ** i * q ** j * r ** k"},
        holds="p < q < r and 50 < n < 20000",
    ),
    Family(
        "digit-sum",
        (
            "By how much is {a} * {b} larger than the sum of its own digits?",
            "{who} multiplies {a} by {b} and then subtracts all digits of the product from it. What is the result?",
        ),
        {"who": PEOPLE, "a": range(12, 100), "b": range(12, 100)},
        (
            FamilyStep("The product is {work} = {n}.", "n", "a * b", (
                Wrong(OPERATION, "a + b"), Wrong(CASE, "a * (b - b % 10)"),
            )),
            FamilyStep("Its digits have the sum {work} = {s}.", "s", "sum(int(i) for i in str(n))", (
                Wrong(CASE, "sum(int(i) for i in str(n)[1:])"), Wrong(CASE, "sum(int(i) for i in str(n)[:-1])"),
                Wrong(OPERAND, "sum(int(i) for i in str(a)) + sum(int(i) for i in str(b))"),
            )),
            FamilyStep("The difference is {work} = {m}.|This leaves {work} = {m}.", "m", "n - s", (
                Wrong(SIGN, "n + s"), Wrong(OPERAND, "n - a"),
            )),
        ),
    ),
    Family(
        "zeros-of-factorial",
        (
            "How many zeros are there at the end of {n}!?",
            "{who} multiplies all whole numbers from 1 to {n}. In how many zeros does the product end?",
            "What is the largest k for which 10^k divides {n}! (the product of 1, 2, 3 and so on up to {n})?",
        ),
        {"who": PEOPLE, "n": range(126, 625)},
        (
            FamilyStep("Among the factors there are more twos than fives, so we count the fives."),
            FamilyStep("{work} = {f} numbers up to {n} are multiples of 5.", "f", "n // 5", (
                Wrong(OPERAND, "n // 10"), Wrong(OPERAND, "n // 2"), Wrong(CASE, "n // 5 - 1"),
            )),
            FamilyStep("{work} = {s} of them have a second five.", "s", "n // 25", (
                Wrong(OPERAND, "n // 10"), Wrong(OPERAND, "n // 50"), Wrong(OPERATION, "f - 5"),
            )),
            FamilyStep("{work} = {t} of them have a third one.", "t", "n // 125", (
                Wrong(OPERAND, "n // 75"), Wrong(OPERAND, "n // 100"),
            )),
            FamilyStep("Together these are {work} = {z}.", "z", "f + s + t", (
                Wrong(CASE, "f"), Wrong(CASE, "f + s"), Wrong(SIGN, "f - s + t"), Wrong(OPERATION, "f + 2 * s + 3 * t"),
            )),
        ),
    ),
)
# fmt: on
