"""Equations and numbers in the notations of language models: LaTeX, prices, units, names of results."""

from __future__ import annotations

import random
import re
from fractions import Fraction

from rationale_synth.planted import SENTENCE_END
from rationale_synth.worked import evaluate, shown

_EQUATION = re.compile(r"(\(*\d[\d.]*\)*(?: [-+*/] \(*\d[\d.]*\)*)+) = (-?\d[\d.]*\d|\d)(?![\d.^]*[\d^])")
_IN_MORE = re.compile(r"(?:[\w^!(,.|)/-]|[-+*/^=] )$")
"""What stands before an equation that is only the end of one."""
NUMBER = re.compile(r"\d[\d.]*")
"""An operand."""
_SUM = re.compile(r"[\d.]+(?: [-+] [\d.]+)+")
_UNIT = re.compile(r" ([a-z]{3,}s)\b")
"""A noun in the plural, behind a number."""
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
    "{result} (total = {times} = {result})",
    "{result}: \\[ \\text{{{name}}} = {latex} = {result} \\]",
)
"""What is behind a bar comes behind the sentence."""
_PRICED = (
    "{prices} = ${result}",
    "{prices} = ${cents}",
    "\\({latex_prices} = \\${cents}\\)",
    "${result}: \\[ \\text{{{name}}} = {latex_prices} = \\${result} \\]",
)
"""For problems about dollars."""
_NAMES = ("Result", "Total", "Amount", "Number", "What remains", "Value", "Share", "Sum of both", "Rest", "New value")
"""What is before the first "=" of an equation that stands by itself."""
COUNTED = 0.4
"""In how many steps the equations have units where one stands behind the result."""


def notated(text: str, money: str, chance: random.Random) -> str:
    """A step's equations in another notation; in prices, or with the unit that stands behind a result.

    Args:
        text: the step. Its equations are as in ``3 * 4 = 12``.
        money: "$" where the problem is about dollars, else nothing.
        chance: what chooses.
    """
    manner, _, end = chance.choice(_MANNERS + _PRICED if money else _MANNERS).partition("|")
    has_units = not money and chance.random() < COUNTED

    ends: list[str] = []

    def told(found: re.Match[str]) -> str:
        whole = not _IN_MORE.search(found.string[: found.start()]) and found[1].count("(") == found[1].count(")")
        if not whole:
            return found[0]
        unit = _UNIT.match(found.string, found.end()) if has_units else None
        work = _counted(found[1], unit[1]) if unit else found[1]
        fields = {"name": chance.choice(_NAMES), **_fields(work, found[2])}
        ends.append(end.format(**fields))
        return manner.format(**fields)

    said = []
    for sentence in SENTENCE_END.split(text):
        ends.clear()
        said.append("".join((_EQUATION.sub(told, sentence), *ends)))
    return " ".join(said)


def separated(text: str) -> str:
    """With thousands separators in its long whole numbers."""
    return _LONG.sub(lambda number: f"{int(number[0]):,}", text)


def _fields(work: str, result: str) -> dict[str, str]:
    """An equation's sides in every notation that a manner can ask for."""
    times, prices, chain = work.replace("*", "×"), _prices(work), _chain(work)
    cents = f"{float(result):.2f}" if _SHORT.fullmatch(result) else result
    return {
        "work": work, "times": times, "signs": times.replace("/", "÷"), "latex": _latex(work), "prices": prices,
        "tight": times.replace(" / ", "/"), "exes": work.replace("*", "x"), "percent": _percent(work), "chain": chain,
        "latex_chain": " = ".join(map(_latex, chain.split(" = "))),
        "brackets": _FRACTION.sub(r"\1(\2/\3)\4", work),
        "latex_prices": _latex(prices.replace("$", "\\$")), "result": result, "cents": cents,
    }  # fmt: skip


def _counted(work: str, unit: str) -> str:
    """With the unit behind what is counted: all that is added, or the first factor."""
    return NUMBER.sub(rf"\g<0> {unit}", work, count=0 if _SUM.fullmatch(work) else 1)


def _prices(work: str) -> str:
    """In dollars: all that is added, the last factor, or what is divided."""
    if _SUM.fullmatch(work):
        return NUMBER.sub(r"$\g<0>", work)
    if "(" in work:
        return work
    return f"${work}" if "/" in work else " * $".join(work.rsplit(" * ", 1))


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
