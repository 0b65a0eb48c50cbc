"""Families of counting: choices, orders, pairs."""

from __future__ import annotations

from rationale_synth.families.records import CASE, CLUBS, OPERAND, OPERATION, PEOPLE, SIGN, Family, FamilyStep, Wrong

# fmt: off
COUNTING = (
    Family(
        "committee",
        (
            "The {club} has {m} {men} and {w} {women}. A committee of {i} {men} and {j} {women} is to be chosen, and "
            "one of its members is to lead it. In how many ways can this be done?",
            "From {m} {men} and {w} {women} {who} picks {i} {men} and {j} {women} for a team, and one of the team as "
            "its captain. How many different choices are there?",
        ),
        {"club": CLUBS, "who": PEOPLE, "men": ("men", "boys"), "women": ("women", "girls"), "m": range(4, 11),
         "w": range(4, 11), "i": range(2, 4), "j": range(2, 5)},
        (
            FamilyStep("The {i} {men} can be chosen in {work} = {p} ways.", "p", "math.comb(m, i)", (
                Wrong(OPERATION, "math.perm(m, i)"), Wrong(OPERATION, "m * i"), Wrong(OPERAND, "math.comb(w, i)"),
                Wrong(OPERATION, "m ** i"),
            )),
            FamilyStep("The {j} {women} can be chosen in {work} = {q} ways.", "q", "math.comb(w, j)", (
                Wrong(OPERATION, "math.perm(w, j)"), Wrong(OPERATION, "w * j"), Wrong(OPERAND, "math.comb(w, i)"),
            )),
            FamilyStep("So the group can be put together in {work} = {t} ways.", "t", "p * q", (
                Wrong(OPERATION, "p + q"), Wrong(OPERATION, "p * q / 2"),
            )),
            FamilyStep("Any of its {i} + {j} members can lead it, which makes {work} = {n}.", "n", "t * (i + j)", (
                Wrong(CASE, "t * i"), Wrong(OPERATION, "t + i + j"), Wrong(OPERATION, "t * i * j"),
            )),
        ),
    ),
    Family(
        "coloured-row",
        (
            "{who} puts {r} red, {g} green and {b} blue {things} in a row. Those of the same colour cannot be told "
            "apart. How many different rows are there?",
            "In how many different orders can {r} red, {g} green and {b} blue {things} be hung on a line, if those of "
            "one colour look the same?",
        ),
        {"who": PEOPLE, "things": ("flags", "beads", "lanterns", "cups"), "r": range(2, 6), "g": range(2, 6),
         "b": range(2, 5)},
        (
            FamilyStep("There are {work} = {n} {things}.", "n", "r + g + b", (
                Wrong(CASE, "r + g"), Wrong(OPERATION, "r * g + b"),
            ), sane="0 < value < 15"),
            FamilyStep("If all were different, there would be {work} = {f} orders.", "f", "math.factorial(n)", (
                Wrong(CASE, "math.factorial(n - 1)"),
            )),
            FamilyStep("Swaps within a colour change nothing: {work} = {s}.", "s",
                "math.factorial(r) * math.factorial(g) * math.factorial(b)", (
                Wrong(CASE, "math.factorial(r) * math.factorial(g)"), Wrong(OPERAND, "r * g * b"),
                Wrong(OPERATION, "math.factorial(r) + math.factorial(g) + math.factorial(b)"),
            )),
            FamilyStep("This leaves {work} = {t} orders.", "t", "f / s", (
                Wrong(SIGN, "f - s"), Wrong(OPERATION, "f * s"), Wrong(OPERAND, "f / (r * g * b)"),
            ), places=1),
        ),
        holds="r + g + b >= 5 and r * g * b > 2",
    ),
    Family(
        "handshakes",
        (
            "{c} couples and {s} people without a partner meet at a party. Everybody shakes hands with everybody "
            "else, but not with their own partner. How many handshakes are there?",
            "{c} pairs of twins and {s} other children are at a camp. Any two children play one game against each "
            "other, except that twins do not play against one another. How many games are played?",
        ),
        {"c": range(3, 21), "s": range(2, 16)},
        (
            FamilyStep("There are {work} = {n} people.", "n", "2 * c + s", (
                Wrong(OPERAND, "c + s"), Wrong(CASE, "2 * c"), Wrong(OPERATION, "2 * (c + s)"),
            )),
            FamilyStep("They form {work} = {p} pairs.", "p", "n * (n - 1) / 2", (
                Wrong(OPERATION, "n * (n - 1)"), Wrong(OPERATION, "n * n / 2"), Wrong(CASE, "n - 1"),
                Wrong(SIGN, "n * (n + 1) / 2"),
            )),
            FamilyStep("Without those that belong together this leaves {work} = {t}.", "t", "p - c", (
                Wrong(OPERAND, "p - 2 * c"), Wrong(SIGN, "p + c"), Wrong(OPERAND, "p - s"),
            )),
        ),
    ),
    Family(
        "number-plates",
        (
            "A code consists of {i} digits from 0 to {d} and then {j} letters out of {m}. It may not begin with 0, "
            "and otherwise repetition is allowed. How many codes are there?",
            "On an island every number plate has {i} digits, each at most {d}, the first of them not 0. Then {j} "
            "letters follow, taken from an alphabet of {m}, which may be repeated. How many plates are possible?",
        ),
        {"i": range(2, 5), "d": range(4, 10), "j": range(2, 4), "m": range(4, 13)},
        (
            FamilyStep("The first digit is not 0, which leaves {f} choices.", "f", "d + 1 - 1", (
                Wrong(CASE, "d + 1", "For the first digit there are {f} choices."), Wrong(OPERAND, "d - 1"),
            )),
            FamilyStep("The other digits can be chosen in {work} = {r} ways.", "r", "(d + 1) ** (i - 1)", (
                Wrong(CASE, "d ** (i - 1)"), Wrong(CASE, "(d + 1) ** i"), Wrong(OPERATION, "(d + 1) * (i - 1)"),
                Wrong(OPERATION, "math.perm(d + 1, i - 1)"),
            )),
            FamilyStep("The letters can be chosen in {work} = {s} ways.", "s", "m ** j", (
                Wrong(OPERATION, "m * j"), Wrong(OPERATION, "math.comb(m, j)"), Wrong(OPERATION, "math.perm(m, j)"),
                Wrong(OPERAND, "j ** m"),
            )),
            FamilyStep("This makes {work} = {n}.|In all there are {work} = {n}.", "n", "f * r * s", (
                Wrong(OPERATION, "f * r + s"), Wrong(CASE, "r * s"), Wrong(OPERATION, "(f + r) * s"),
            )),
        ),
    ),
    Family(
        "at-least-one-sign",
        (
            "A password has {k} characters. Each is one of {n} symbols, {z} of which are special signs, and symbols "
            "may be repeated. How many passwords have at least one special sign?",
            "{who} draws {k} times from a bag with {n} different tiles, {z} of them golden, and puts the tile back "
            "each time. How many different sequences of tiles contain a golden one?",
        ),
        {"who": PEOPLE, "k": range(2, 6), "n": range(5, 13), "z": range(2, 5)},
        (
            FamilyStep("There are {work} = {t} sequences in all.", "t", "n ** k", (
                Wrong(OPERATION, "n * k"), Wrong(OPERAND, "k ** n"), Wrong(OPERATION, "math.perm(n, k)"),
                Wrong(OPERATION, "math.comb(n, k)"),
            )),
            FamilyStep("{work} = {r} symbols are ordinary.", "r", "n - z", (Wrong(OPERAND, "n - k"),)),
            FamilyStep("With these alone there are {work} = {u} sequences.", "u", "r ** k", (
                Wrong(OPERATION, "r * k"), Wrong(CASE, "r ** (k - 1)"), Wrong(OPERAND, "z ** k"),
            )),
            FamilyStep("All the others have at least one: {work} = {m}.", "m", "t - u", (
                Wrong(CASE, "z * n ** (k - 1)"), Wrong(OPERAND, "z ** k"), Wrong(SIGN, "t + u"),
            )),
        ),
        holds="n > z + 1",
    ),
    Family(
        "outfits",
        (
            "{who} has {s} shirts, {t} pairs of trousers and {h} hats. The {r} red shirts are never worn with the {g} "
            "green pairs of trousers. A hat may be worn or not. How many outfits are there?",
            "A menu offers {s} starters, {t} main dishes and {h} desserts. None of the {r} fish starters may be taken "
            "with any of the {g} meat dishes. One can also go without a dessert. How many meals are possible?",
        ),
        {"who": PEOPLE, "s": range(4, 13), "t": range(3, 11), "h": range(2, 7), "r": range(2, 4), "g": range(2, 4)},
        (
            FamilyStep("The first two can be combined in {work} = {p} ways.", "p", "s * t", (
                Wrong(OPERATION, "s + t"), Wrong(OPERAND, "s * h"),
            )),
            FamilyStep("{work} = {x} of these combinations are ruled out.", "x", "r * g", (
                Wrong(OPERATION, "r + g"), Wrong(CASE, "r"), Wrong(OPERAND, "r * t"),
            )),
            FamilyStep("This leaves {work} = {y}.", "y", "p - x", (Wrong(SIGN, "p + x"), Wrong(OPERAND, "p - r"))),
            FamilyStep("For the last there are {c} possibilities, as one can go without.", "c", "h + 1", (
                Wrong(CASE, "h", "For the last there are {c} possibilities."),
            )),
            FamilyStep("In all there are {work} = {n}.", "n", "y * c", (
                Wrong(OPERATION, "y + c"), Wrong(OPERAND, "p * c"),
            )),
        ),
    ),
    Family(
        "two-hobbies",
        (
            "Of {n} children, {a} can swim and {b} can ski, and {c} of these can do both. By how much do the number "
            "of children who can do just one of the two and the number who can do neither differ?",
            "{n} people were asked about tea and coffee. {a} of them like tea and {b} like coffee, among them {c} who "
            "like both. By how much do the number who like exactly one and the number who like none differ?",
        ),
        {"n": range(60, 200), "a": range(20, 90), "b": range(20, 90), "c": range(5, 30)},
        (
            FamilyStep("At least one of the two holds for {work} = {u}.", "u", "a + b - c", (
                Wrong(CASE, "a + b"), Wrong(SIGN, "a + b + c"), Wrong(OPERATION, "a + b - 2 * c"),
            )),
            FamilyStep("So neither holds for {work} = {w}.", "w", "n - u", (
                Wrong(CASE, "n - a"), Wrong(OPERAND, "n - b"), Wrong(OPERATION, "n - u + c"),
            )),
            FamilyStep("Exactly one holds for {work} = {e}.", "e", "u - c", (
                Wrong(CASE, "u - a"), Wrong(SIGN, "u + c"), Wrong(OPERAND, "a - c"),
            )),
            FamilyStep("The difference is {work} = {m}.", "m", "abs(e - w)", (
                Wrong(SIGN, "e + w"), Wrong(OPERAND, "abs(u - w)"),
            )),
        ),
        holds="c < a < n and c < b < n and a != b",
    ),
    Family(
        "multiples",
        (
            "How many of the whole numbers from 1 to {n} are divisible neither by {p} nor by {q}?",
            "{who} numbers {n} cards from 1 to {n} and takes out all multiples of {p} and all multiples of {q}. How "
            "many cards remain?",
        ),
        {"who": PEOPLE, "n": range(80, 1000), "p": (4, 6, 8, 9, 10, 12), "q": (6, 9, 10, 14, 15, 21)},
        (
            FamilyStep("{work} = {a} of them are multiples of {p}.", "a", "n // p", (
                Wrong(CASE, "n // p - 1"), Wrong(OPERAND, "n // (p + q)"),
            )),
            FamilyStep("{work} = {b} of them are multiples of {q}.", "b", "n // q", (
                Wrong(CASE, "n // q - 1"), Wrong(OPERATION, "a - q"),
            )),
            FamilyStep("Multiples of both are multiples of {m}.", "m", "math.lcm(p, q)", (
                Wrong(OPERATION, "p * q"), Wrong(OPERATION, "p + q"),
            )),
            FamilyStep("There are {work} = {c} of these.", "c", "n // m", (
                Wrong(OPERAND, "n // (p * q)"), Wrong(CASE, "n // m - 1"),
            ), sane="value >= 0"),
            FamilyStep("So {work} = {u} numbers are multiples of one or the other.", "u", "a + b - c", (
                Wrong(CASE, "a + b"), Wrong(SIGN, "a + b + c"), Wrong(OPERATION, "a + b - 2 * c"),
            )),
            FamilyStep("This leaves {work} = {t}.", "t", "n - u", (Wrong(OPERAND, "n - a"), Wrong(SIGN, "n - u + c"))),
        ),
        holds="math.gcd(p, q) > 1 and p % q and q % p",
    ),
    Family(
        "books-together",
        (
            "{who} puts {a} atlases, {b} novels and {c} cookbooks on a shelf, all of them different. The atlases must "
            "stand next to each other. In how many orders is this possible?",
            "{a} cousins, {b} friends and {c} neighbours stand in a line for a photo. The cousins want to stay "
            "together. How many line-ups are there?",
        ),
        {"who": PEOPLE, "a": range(2, 6), "b": range(2, 6), "c": range(2, 6)},
        (
            FamilyStep("Those that stay together count as one, so there are {work} = {u} things to order.", "u",
                "b + c + 1", (
                Wrong(CASE, "b + c"), Wrong(OPERAND, "a + b + c"), Wrong(CASE, "b + 1"),
            )),
            FamilyStep("They have {work} = {f} orders.", "f", "math.factorial(u)", (
                Wrong(OPERATION, "u ** 2"), Wrong(CASE, "math.factorial(u - 1)"), Wrong(OPERAND, "math.factorial(a)"),
            )),
            FamilyStep("Among themselves the {a} have {work} = {s} orders.", "s", "math.factorial(a)", (
                Wrong(OPERAND, "a"), Wrong(CASE, "math.factorial(a - 1)"), Wrong(OPERATION, "a ** 2"),
                Wrong(OPERATION, "math.comb(a, 2)"),
            )),
            FamilyStep("This makes {work} = {n}.", "n", "f * s", (
                Wrong(OPERATION, "f + s"), Wrong(OPERATION, "f / s"), Wrong(OPERAND, "f * a"),
            )),
        ),
    ),
    Family(
        "even-numbers",
        (
            "{who} lays numbers of three digits with cards from 0 to {d}, one card for each digit. How many even "
            "numbers can come out, if none may begin with 0?",
            "{who} writes down all even numbers that have three digits, no two of them alike and none above {d}, and "
            "no 0 in front. How many are these?",
        ),
        {"who": PEOPLE, "d": range(4, 10)},
        (
            FamilyStep("With 0 at the end there are {work} = {p} of them.", "p", "d * (d - 1)", (
                Wrong(CASE, "d * d"), Wrong(OPERATION, "d + d - 1"), Wrong(CASE, "(d - 1) * (d - 1)"),
            )),
            FamilyStep("Besides 0 there are {work} = {e} even digits.", "e", "d // 2", (Wrong(CASE, "d // 2 + 1"),)),
            FamilyStep("In front there may be neither 0 nor the last digit: with these ends there are {work} = {q}.",
                "q", "e * (d - 1) * (d - 1)", (
                Wrong(CASE, "e * d * (d - 1)", "With these ends there are {work} = {q}."), Wrong(CASE, "e * (d - 1)"),
                Wrong(OPERAND, "d * (d - 1) * (d - 1)"),
            )),
            FamilyStep("Together this makes {work} = {t}.", "t", "p + q", (
                Wrong(CASE, "q"), Wrong(OPERATION, "p * q"), Wrong(SIGN, "q - p"),
            )),
        ),
    ),
)
# fmt: on
