"""Equations and numbers in the notations of language models: LaTeX, prices, units, names of results.

What a number is, the problem says: a price is written as one where it gives it as one, and so is what comes of prices.
"""

from __future__ import annotations

import random
import re
from fractions import Fraction
from typing import NamedTuple

from rationale_synth.planted import SENTENCE_END, numbers
from rationale_synth.worked import evaluate, shown

_EQUATION = re.compile(r"(\(*\d[\d.]*\)*(?: [-+*/] \(*\d[\d.]*\)*)+) = (-?\d[\d.]*\d|\d)(?![\d.^]*[\d^])")
_IN_MORE = re.compile(r"(?:[\w^!(,.|)/-]|[-+*/^=] )$")
"""What stands before an equation that is only the end of one."""
NUMBER = re.compile(r"\d[\d.]*")
"""An operand."""
_SUM = re.compile(r"[\d.]+(?: [-+] [\d.]+)+")
_PRODUCT = re.compile(r"[\d.]+(?: \* [\d.]+)+")
_UNIT = re.compile(r" ([a-z]{3,}s)\b")
"""A noun in the plural, behind a number."""
_PRICE = re.compile(r"\$(\d[\d,]*(?:\.\d+)?)|(\d[\d,]*(?:\.\d+)?) dollars?\b")
_COUNT = re.compile(r"(?<![$\d.,])(\d+) ([a-z]{3,}s)\b")
_NO_UNITS = {"dollars", "cents", "times", "less", "plus", "minus", "was", "has", "his", "this", "its", "does"}
_SIGN = re.compile(r" ([-+*/]) ")
_YEAR = re.compile(r"(?:19|20)\d\d")
_LONG = re.compile(r"(?<![\w.,])[1-9]\d{3,}(?![\w,]|\.\d)")
_FRACTION = re.compile(r"^([\d.]+ \* )?((?:\\\$)?[\d.]+) / ([\d.]+)( \* [\d.]+)?$")
"""A fraction and nothing else, or times something."""
_INNER = re.compile(r"\([\d.]+ [-+*/] [\d.]+\)|^[\d.]+ [*/] [\d.]+(?= [-+*/] )|^[\d.]+ [-+] [\d.]+(?= [-+] )")
"""What is worked out first."""
_PART = re.compile(r"(0?\.\d+) \* ([\d.]+)|([\d.]+) \* (0?\.\d+)")
_SHORT = re.compile(r"\d+(?:\.\d)?")
"""A result that has no cents yet."""
_MANNERS = (
    "{work} = {result}",
    "{signs} = {result}",
    "\\({latex} = {result}\\)",
    "{result} ({work} = {result})",
    "{result} \\[ {latex} = {result} \\]",
    "{tight} = {result}",
    "{exes} = {result}",
    "{brackets} = {result}",
    "{percent} = {result}",
    "{chain} = {result}",
    "\\[ {latex_chain} = {result} \\]",
    "{result}| {name} = {times}. {name} = {result}.",
    "{result}|\n{name} = {work}\n{name} = {result}",
    "{result} ({small} = {times} = {result})",
    "{result}: \\[ \\text{{{name}}} = {latex} = {result} \\]",
)
"""What is behind a bar comes behind the sentence."""
_PRICED = (
    "{prices} = ${result}",
    "{prices} = ${cents}",
    "\\({latex_prices} = \\${cents}\\)",
    "${result}: \\[ \\text{{{name}}} = {latex_prices} = \\${result} \\]",
)
"""For what is in dollars."""
_NAMES = ("Result", "Amount", "Number", "Value")
_NAMES_OF = {"+": ("Total", "Sum"), "*": ("Total", "Product"), "-": ("Difference",), "/": ("Share", "Quotient")}
"""What is before the first "=" of an equation that stands by itself."""
COUNTED = 0.4
"""In how many steps the equations have units, where the numbers have some."""


class Quantities(NamedTuple):
    """What a problem's numbers are."""

    given: frozenset[str]
    """All of them."""
    priced: set[str]
    """Those that are so many dollars each time that they are named; what comes of them is added."""
    units: dict[str, str]
    """What others count, if it is one thing only."""


def quantities(problem: str) -> Quantities:
    """What the numbers of a problem are."""
    named = numbers(problem)
    prices = [(one or other).replace(",", "") for one, other in _PRICE.findall(problem)]
    counts = [(number, unit) for number, unit in _COUNT.findall(problem) if unit not in _NO_UNITS]
    priced = {number for number in prices if prices.count(number) == named.count(number)}
    units = {number: unit for number, unit in counts if named.count(number) == 1}
    return Quantities(frozenset(named), priced, units)


def notated(text: str, known: Quantities, chance: random.Random) -> str:
    """A step's equations in another notation, in prices or with units where they have some.

    Args:
        text: the step. Its equations are as in ``3 * 4 = 12``.
        known: what their numbers are. Results that are so many dollars are added.
        chance: what chooses.
    """
    manner, _, end = chance.choice(_MANNERS + _PRICED if known.priced else _MANNERS).partition("|")
    has_units = chance.random() < COUNTED

    ends: list[str] = []

    def told(found: re.Match[str]) -> str:
        whole = not _IN_MORE.search(found.string[: found.start()]) and found[1].count("(") == found[1].count(")")
        if not whole:
            return found[0]
        _, work, result = found.group(0, 1, 2)
        unit = _UNIT.match(found.string, found.end())
        prices = None if unit else _prices(work, known.priced)
        if prices and result not in known.given:
            known.priced.add(result)
        way = _MANNERS[0] if manner in _PRICED and not prices else manner
        signs = {*_SIGN.findall(work)}
        name = chance.choice(_NAMES + (_NAMES_OF[signs.pop()] if len(signs) == 1 else ()))
        if has_units and way not in _PRICED:
            work = _counted(work, unit and unit[1], known.units)
        fields = {"name": name, "small": name.lower(), **_fields(work, prices or work, result)}
        ends.append(end.format(**fields))
        return way.format(**fields)

    said = []
    for sentence in SENTENCE_END.split(text):
        ends.clear()
        said.append("".join((_EQUATION.sub(told, sentence), *ends)))
    return " ".join(said)


def separated(text: str) -> str:
    """With thousands separators in its long whole numbers, other than years."""
    return _LONG.sub(lambda number: number[0] if _YEAR.fullmatch(number[0]) else f"{int(number[0]):,}", text)


def _fields(work: str, prices: str, result: str) -> dict[str, str]:
    """An equation's sides in every notation that a manner can ask for."""
    times, chain = work.replace("*", "×"), _chain(work)
    cents = f"{float(result):.2f}" if _SHORT.fullmatch(result) else result
    return {
        "work": work, "times": times, "signs": times.replace("/", "÷"), "latex": _latex(work), "prices": prices,
        "tight": times.replace(" / ", "/"), "exes": work.replace("*", "x"), "percent": _percent(work), "chain": chain,
        "latex_chain": " = ".join(map(_latex, chain.split(" = "))),
        "brackets": _FRACTION.sub(r"\1(\2/\3)\4", work),
        "latex_prices": _latex(prices.replace("$", "\\$")), "result": result, "cents": cents,
    }  # fmt: skip


def _counted(work: str, unit: str | None, units: dict[str, str]) -> str:
    """With units: all that is added has the one of the result, if that has one; else what the problem counts."""
    if unit and _SUM.fullmatch(work):
        return NUMBER.sub(rf"\g<0> {unit}", work)
    return NUMBER.sub(lambda number: f"{number[0]} {units[number[0]]}" if number[0] in units else number[0], work)


def _prices(work: str, priced: set[str]) -> str | None:
    """In dollars: all that is added, the one price among factors, or a price that is divided; None if it is neither."""
    found = [number for number in NUMBER.findall(work) if number in priced]
    if found and _SUM.fullmatch(work):
        return NUMBER.sub(r"$\g<0>", work)
    above, _, below = work.partition(" / ")
    if len(found) == 1 and (_PRODUCT.fullmatch(work) or (above in priced and NUMBER.fullmatch(below))):
        return NUMBER.sub(lambda number: f"${number[0]}" if number[0] == found[0] else number[0], work)
    return None


def _chain(work: str) -> str:
    """With what comes of it when a part is worked out; as it is where nothing, or nothing in few digits, does."""
    inner = _INNER.search(work)
    value = evaluate(inner[0], ()) if inner else None
    found = None if value is None or value < 0 else shown(value)
    if inner is None or found is None or inner[0] == work:
        return work
    return f"{work} = {work[: inner.start()]}{found}{work[inner.end() :]}"


def _percent(work: str) -> str:
    """As a percentage of something, where it is a part of it."""
    found = _PART.fullmatch(work)
    percent = found and shown(100 * Fraction(found[1] or found[4]))
    return f"{percent}% of {found[2] or found[3]} = {work}" if found and percent else work


def _latex(work: str) -> str:
    if found := _FRACTION.match(work):
        before, above, below, behind = found.groups(default="")
        before, behind = (part.replace("*", "\\times") for part in (before, behind))
        return f"{before}\\frac{{{above}}}{{{below}}}{behind}"
    return _UNIT.sub(r" \\text{ \1}", work.replace("*", "\\times").replace("/", "\\div"))
