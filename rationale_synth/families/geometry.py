"""Families of geometry: lengths, areas, angles, volumes."""

from __future__ import annotations

from rationale_synth.families.records import (
    ANY,
    CASE,
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
GEOMETRY = (
    Family(
        "filling-a-pool",
        (
            "A pool is {l} m long and {w} m wide. It is filled {h} cm deep, with {r} litres a minute. How many hours "
            "does this take?",
            "{who} fills a tank with a base of {l} m by {w} m up to a height of {h} cm. Every minute {r} litres flow "
            "in. After how many hours is it done?",
        ),
        {"who": PEOPLE, "l": range(3, 26), "w": range(2, 13), "h": range(40, 260, 20), "r": range(20, 420, 20)},
        (
            FamilyStep("{h} cm are {work} = {d} m.", "d", "h / 100", (
                Wrong(UNIT, "h / 10"), Wrong(UNIT, "h / 1000"),
            ), places=3),
            FamilyStep("The volume is {work} = {v} cubic metres.", "v", "l * w * d", (
                Wrong(UNIT, "l * w * h"), Wrong(CASE, "l * w"), Wrong(OPERATION, "2 * (l + w) * d"),
            ), places=2),
            FamilyStep("That is {work} = {c} litres.", "c", "v * 1000", (
                Wrong(UNIT, "v * 100"), Wrong(UNIT, "v * 10"),
            )),
            FamilyStep("It takes {work} = {m} minutes.", "m", "c / r", (
                Wrong(OPERATION, "c - r"), Wrong(OPERAND, "c / h"),
            ), places=2),
            FamilyStep("In hours this is {work} = {t}.", "t", "m / 60", (
                Wrong(UNIT, "m / 100"), Wrong(UNIT, "m / 24"), Wrong(OPERATION, "m * 60"),
            ), places=2),
        ),
    ),
    Family(
        "pythagoras",
        (
            "A right triangle has legs of {a} cm and {b} cm. How long is its perimeter, in cm?",
            "{who} walks {a} m north, then {b} m east, and straight back to the start. How many metres is that in all?",
            "A triangular bed has a right angle between sides of {a} m and {b} m. How many metres of fence go round "
            "it?",
        ),
        {"who": PEOPLE, "i": range(2, 8), "j": range(1, 7), "k": range(1, 12)},
        (
            FamilyStep("The two sides meet at a right angle, so we can use Pythagoras."),
            FamilyStep("The square of the third side is {work} = {s}.", "s", "a ** 2 + b ** 2", (
                Wrong(OPERATION, "(a + b) ** 2"),
            )),
            FamilyStep("So it is {work} = {c} long.", "c", "math.sqrt(s)", (
                Wrong(OPERATION, "s / 2"), Wrong(OPERATION, "a + b"),
            )),
            FamilyStep("All the way round it is {work} = {p}.", "p", "a + b + c", (
                Wrong(CASE, "a + b"), Wrong(CASE, "b + c"), Wrong(OPERATION, "a * b / 2"),
            )),
        ),
        given={"a": "k * (i * i - j * j)", "b": "2 * k * i * j"},
        holds="j < i and max(a, b) < 200",
    ),
    Family(
        "trapezoid",
        (
            "A field is a trapezoid with parallel sides of {a} m and {b} m that are {h} m apart. A pond of {p} m by "
            "{q} m lies in it. The rest is sown, for {c} cents a square metre. How many cents does this cost?",
            "{who} tiles a floor in the form of a trapezoid, with a height of {h} m and parallel sides of {a} m and "
            "{b} m. A part of {p} m by {q} m is left free. What is the cost in euros at {c} euros a square metre?",
        ),
        {"who": PEOPLE, "a": range(10, 40), "b": range(8, 40), "h": range(6, 20), "p": range(2, 7), "q": range(2, 8),
         "c": range(5, 40)},
        (
            FamilyStep("The parallel sides add up to {work} = {s} m.", "s", "a + b", (
                Wrong(SIGN, "abs(a - b)"), Wrong(OPERATION, "a * b"),
            )),
            FamilyStep("The area of the trapezoid is {work} = {t} square metres.", "t", "s * h / 2", (
                Wrong(OPERATION, "s * h"), Wrong(OPERAND, "a * h / 2"), Wrong(OPERATION, "a * b * h / 2"),
            ), places=1),
            FamilyStep("The part to leave out has {work} = {u}.", "u", "p * q", (
                Wrong(OPERATION, "2 * (p + q)"), Wrong(OPERATION, "p + q"), Wrong(OPERATION, "p * q / 2"),
            )),
            FamilyStep("This leaves {work} = {r}.", "r", "t - u", (
                Wrong(SIGN, "t + u"), Wrong(OPERAND, "t - p"),
            ), places=1),
            FamilyStep("The cost is {work} = {m}.", "m", "r * c", (
                Wrong(OPERATION, "r / c"), Wrong(OPERAND, "t * c"), Wrong(OPERATION, "r + c"),
            ), places=1),
        ),
        holds="a != b",
    ),
    Family(
        "sector",
        (
            "A round cake has a diameter of {d} cm. A piece with an angle of {w} degrees is cut out of it. How many "
            "square centimetres of the top are left? Take {pi} for pi.",
            "A lawn is a circle with a diameter of {d} m. A sprinkler in the centre does not reach a sector of {w} "
            "degrees. How large is the watered area in square metres, with pi = {pi}?",
        ),
        {"d": range(4, 62, 2), "w": (18, 30, 36, 40, 45, 60, 72, 90, 108, 120, 135, 144), "pi": (3.14, 3.14, 3.1, 3)},
        (
            FamilyStep("The radius is {r}.|The radius is half of the diameter: {r}.", "r", "d / 2", (
                Wrong(OPERAND, "d", "The radius is {r}."), Wrong(OPERATION, "d * 2", "The radius is {r}."),
            )),
            FamilyStep("The whole circle has {work} = {a}.", "a", "pi * r ** 2", (
                Wrong(OPERATION, "2 * pi * r"), Wrong(OPERATION, "2 * pi * r ** 2"), Wrong(CASE, "pi * r"),
                Wrong(OPERATION, "r ** 2"), Wrong(OPERAND, "pi * d ** 2"),
            ), places=2),
            FamilyStep("The sector takes {work} = {s} of it.", "s", "a * w / 360", (
                Wrong(OPERAND, "a * w / 180"), Wrong(UNIT, "a * w / 100"), Wrong(OPERATION, "a / w"),
            ), places=3, sane="0 < value"),
            FamilyStep("This leaves {work} = {t}.", "t", "a - s", (
                Wrong(SIGN, "a + s"), Wrong(CASE, "s"), Wrong(OPERAND, "a - w"),
            ), places=3),
        ),
    ),
    Family(
        "ring",
        (
            "A round pond with a diameter of {d} m has a path of {w} m width all around it. The area of the path is k "
            "times pi square metres. What is k?",
            "A coin of {d} mm diameter gets a rim that is {w} mm wide on all sides. The rim's area is k * pi square "
            "millimetres. Find k.",
        ),
        {"d": range(6, 62, 2), "w": range(1, 10)},
        (
            FamilyStep("The inner radius is {work} = {r}.", "r", "d / 2", (
                Wrong(OPERATION, "d * 2"), Wrong(OPERAND, "d"),
            )),
            FamilyStep("The outer radius is {work} = {s}.", "s", "r + w", (
                Wrong(OPERAND, "d + w"), Wrong(OPERATION, "r + 2 * w"),
            )),
            FamilyStep("The ring's k is {work} = {k}.", "k", "s ** 2 - r ** 2", (
                Wrong(OPERATION, "(s - r) ** 2"), Wrong(CASE, "s ** 2"), Wrong(SIGN, "s ** 2 + r ** 2"),
                Wrong(OPERATION, "2 * s - 2 * r"),
            )),
        ),
    ),
    Family(
        "similar-figures",
        (
            "Two similar {shapes} have corresponding sides of {a} cm and {b} cm. The smaller one has an area of {s} "
            "square centimetres. By how many square centimetres is the other one larger?",
            "{who} enlarges a drawing so that a side of {a} cm becomes {b} cm long. The drawing covered {s} square "
            "centimetres. How many more does it cover now?",
        ),
        {"who": PEOPLE, "shapes": ("triangles", "kites", "pentagons"), "a": range(2, 21), "b": range(4, 61),
         "s": range(8, 120)},
        (
            FamilyStep("The two figures are similar, so all lengths grow by one factor."),
            FamilyStep("The sides are in the ratio {work} = {k}.", "k", "b / a", (
                Wrong(SIGN, "b - a"), Wrong(OPERAND, "a / b"),
            ), places=2, sane="value > 0 and value != 1"),
            FamilyStep("So the areas are in the ratio {work} = {q}.", "q", "k ** 2", (
                Wrong(OPERAND, "k", "The areas are in the same ratio as the sides, {q}."), Wrong(OPERATION, "2 * k"),
                Wrong(OPERAND, "k ** 3"),
            ), places=4, sane="value > 0 and value != 1"),
            FamilyStep("The second area is {work} = {t}.", "t", "s * q", (
                Wrong(OPERATION, "s / q"), Wrong(OPERATION, "s + q"), Wrong(OPERAND, "s * k"),
            ), places=2),
            FamilyStep("The difference is {work} = {m}.", "m", "t - s", (
                Wrong(SIGN, "t + s"), Wrong(OPERAND, "t - q"),
            ), places=2, sane=ANY),
        ),
        holds="b > a",
    ),
    Family(
        "polygon-angle",
        (
            "All angles of a convex polygon with {n} sides but one add up to {s} degrees. How large is the outer "
            "angle at the remaining corner, in degrees?",
            "{who} measures all inner angles of a convex {n}-gon except the last, and gets {s} degrees in sum. By how "
            "many degrees does the last one fall short of a straight angle?",
        ),
        {"who": PEOPLE, "n": range(5, 21), "a": range(41, 170)},
        (
            FamilyStep("The angles of a polygon with {n} corners add up to {work} = {t} degrees.", "t", "(n - 2) * 180",
                (
                Wrong(CASE, "n * 180"), Wrong(CASE, "(n - 1) * 180"), Wrong(OPERAND, "(n - 2) * 360"),
            )),
            FamilyStep("The last one is {work} = {l} degrees.", "l", "t - s", (
                Wrong(OPERATION, "t / n"), Wrong(OPERATION, "s / (n - 1)"),
            )),
            FamilyStep("To a straight angle it lacks {work} = {m} degrees.", "m", "180 - l", (
                Wrong(OPERAND, "360 - l"), Wrong(OPERAND, "90 - l"), Wrong(SIGN, "180 + l"),
            ), sane=ANY),
        ),
        given={"s": "(n - 2) * 180 - a"},
    ),
    Family(
        "triangle-ratio",
        (
            "The angles of a triangle are in the ratio {a} : {b} : {c}. By how many degrees is the largest one "
            "greater than the smallest?",
            "{who} draws a triangle whose angles are as {a} to {b} to {c}. How many degrees lie between its smallest "
            "and its largest angle?",
        ),
        {"who": PEOPLE, "a": range(1, 16), "b": range(2, 20), "c": range(3, 30)},
        (
            FamilyStep("The angles of a triangle make 180 degrees."),
            FamilyStep("There are {work} = {p} parts.", "p", "a + b + c", (
                Wrong(CASE, "b + c"), Wrong(CASE, "a + c"), Wrong(OPERATION, "a * b * c"),
            )),
            FamilyStep("One part is {work} = {u} degrees.", "u", "180 / p", (
                Wrong(OPERAND, "360 / p"), Wrong(OPERAND, "90 / p"),
            ), places=2),
            FamilyStep("The largest angle is {work} = {l} degrees.", "l", "c * u", (
                Wrong(OPERAND, "b * u"), Wrong(OPERATION, "c + u"), Wrong(OPERATION, "180 - c * u"),
            ), places=2),
            FamilyStep("The smallest one is {work} = {s} degrees.", "s", "a * u", (
                Wrong(OPERAND, "b * u"), Wrong(OPERATION, "a + u"),
            ), places=2),
            FamilyStep("The difference is {work} = {m}.", "m", "l - s", (
                Wrong(SIGN, "l + s"), Wrong(OPERAND, "180 - l"),
            ), places=2),
        ),
        holds="a < b < c",
    ),
    Family(
        "cubes-from-a-box",
        (
            "A block of wood of {a} cm by {b} cm by {c} cm is cut into cubes with edges of {e} cm. {r} of them are "
            "painted. How many are not?",
            "{who} fills a box of {a} cm by {b} cm by {c} cm with dice that have {e} cm edges. {r} of the dice are "
            "red. How many dice in the full box have another colour?",
        ),
        {"who": PEOPLE, "e": range(2, 7), "i": range(2, 9), "j": range(2, 9), "k": range(3, 10), "r": range(3, 25)},
        (
            FamilyStep("The volume is {work} = {v} cubic centimetres.", "v", "a * b * c", (
                Wrong(OPERATION, "a * b + c"), Wrong(CASE, "a * b"), Wrong(OPERATION, "2 * (a * b + b * c + a * c)"),
            )),
            FamilyStep("A small one takes {work} = {w}.", "w", "e ** 3", (
                Wrong(OPERATION, "e ** 2"), Wrong(OPERATION, "3 * e"), Wrong(OPERAND, "e"),
                Wrong(OPERATION, "6 * e ** 2"),
            )),
            FamilyStep("So there are {work} = {n} of them.", "n", "v / w", (
                Wrong(OPERAND, "v / e"), Wrong(SIGN, "v - w"), Wrong(OPERAND, "a * b / e ** 2"),
            ), places=1),
            FamilyStep("Without the {r} these are {work} = {t}.", "t", "n - r", (
                Wrong(SIGN, "n + r"), Wrong(OPERAND, "w - r"),
            ), places=1),
        ),
        given={"a": "e * i", "b": "e * j", "c": "e * k"},
        holds="i * j * k > r + 5",
    ),
    Family(
        "surface-of-a-box",
        (
            "A closed crate is {a} dm long, {b} dm wide and {c} dm high. Its outside is painted, and one tin is "
            "enough for {p} square decimetres. How many tins does it take?",
            "{who} covers all six faces of a box of {a} by {b} by {c} cm with stickers of {p} square centimetres "
            "each. How many stickers are needed?",
        ),
        {"who": PEOPLE, "a": range(3, 20), "b": range(3, 16), "c": range(2, 14), "p": range(2, 21)},
        (
            FamilyStep("Base and front have {work} = {s}.", "s", "a * b + a * c", (
                Wrong(CASE, "a * b"), Wrong(OPERATION, "a * b * c"), Wrong(OPERATION, "a * b + c"),
            )),
            FamilyStep("With a side this is {work} = {h}.", "h", "s + b * c", (
                Wrong(OPERATION, "s + b + c"), Wrong(OPERAND, "s + a * c"),
            )),
            FamilyStep("Each of these faces is there twice, which makes {work} = {f}.", "f", "2 * h", (
                Wrong(OPERAND, "h", "So the surface is {f}."), Wrong(OPERATION, "6 * h"), Wrong(OPERATION, "h ** 2"),
            )),
            FamilyStep("So the number is {work} = {n}.", "n", "f / p", (
                Wrong(OPERATION, "f - p"), Wrong(OPERAND, "h / p"), Wrong(OPERAND, "a * b * c / p"),
            )),
        ),
        holds="len({a, b, c}) == 3",
    ),
    Family(
        "ladder",
        (
            "A ladder of {c} m stands {a} m from a wall and reaches up to its edge. Its foot is moved {d} m further "
            "out. By how many metres does its top come down?",
            "{who} holds a pole of {c} dm against a wall, its lower end {a} dm away from it, and draws that end {d} dm "
            "further away. How many dm lower is the upper end then?",
        ),
        {"who": PEOPLE, "c": (25, 50, 65, 75, 85, 100, 125), "a": range(7, 80), "e": range(15, 120)},
        (
            FamilyStep("At first the square of the height is {work} = {s}.", "s", "c ** 2 - a ** 2", (
                Wrong(SIGN, "c ** 2 + a ** 2"), Wrong(OPERATION, "(c - a) ** 2"),
            )),
            FamilyStep("So the height is {work} = {h}.", "h", "round(math.sqrt(s), 2)", (
                Wrong(OPERATION, "s / 2"), Wrong(OPERATION, "c - a"),
            ), places=2),
            FamilyStep("Then the foot is {work} = {f} away from the wall.", "f", "a + d", (
                Wrong(CASE, "d"), Wrong(SIGN, "abs(a - d)"),
            )),
            FamilyStep("Now the square of the height is {work} = {q}.", "q", "c ** 2 - f ** 2", (
                Wrong(OPERAND, "c ** 2 - d ** 2"), Wrong(OPERATION, "(c - f) ** 2"),
            )),
            FamilyStep("So the new height is {work} = {g}.", "g", "round(math.sqrt(q), 2)", (
                Wrong(OPERATION, "c - f"),
            ), places=2),
            FamilyStep("The difference is {work} = {t}.", "t", "h - g", (
                Wrong(SIGN, "h + g"), Wrong(OPERAND, "h - d"),
            ), places=2),
        ),
        given={"d": "e - a"},
        holds="a < e and e < c and math.isqrt(c * c - a * a) ** 2 == c * c - a * a "
              "and math.isqrt(c * c - e * e) ** 2 == c * c - e * e and d != a",
    ),
)
# fmt: on
