"""Equations and numbers in the notations of language models: LaTeX, prices, units, names of results."""

from __future__ import annotations

import random
import re

_EQUATION = re.compile(r"(\(*\d[\d.]*\)*(?: [-+*/] \(*\d[\d.]*\)*)+) = (-?\d[\d.]*\d|\d)(?![\d.^]*[\d^])")
_IN_MORE = re.compile(r"(?:[\w^!(,.|)/-]|[-+*/^=] )$")
"""What stands before an equation that is only the end of one."""
_NUMBER = re.compile(r"\d[\d.]*")
_SUM = re.compile(r"[\d.]+(?: [-+] [\d.]+)+")
_UNIT = re.compile(r" ([a-z]{3,}s)\b")
"""A noun in the plural, behind a result."""
_LONG = re.compile(r"(?<![\w.,])[1-9]\d{3,}(?![\w,]|\.\d)")
_FRACTION = re.compile(r"([\d.]+ \* )?((?:\\\$)?[\d.]+) / ([\d.]+)( \* [\d.]+)?")
"""A fraction by itself, or times something."""
_SHORT = re.compile(r"\d+(?:\.\d)?")
"""A result that has no cents yet."""
_MANNERS = (
    "{work} = {result}",
    "{signs} = {result}",
    "\\({latex} = {result}\\)",
    "{result} ({work} = {result})",
    "{result} \\[ {latex} = {result} \\]",
    "{tight} = {result}",
    "{result} (total = {times} = {result})",
    "{result}: \\[ \\text{{{name}}} = {latex} = {result} \\]",
)
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
    manner = chance.choice(_MANNERS + _PRICED if money else _MANNERS)
    has_units = not money and chance.random() < COUNTED

    def told(found: re.Match[str]) -> str:
        whole = not _IN_MORE.search(found.string[: found.start()]) and found[1].count("(") == found[1].count(")")
        if not whole:
            return found[0]
        unit = _UNIT.match(found.string, found.end()) if has_units else None
        work = _counted(found[1], unit[1]) if unit else found[1]
        return manner.format(name=chance.choice(_NAMES), **_fields(work, found[2]))

    return _EQUATION.sub(told, text)


def separated(text: str) -> str:
    """With thousands separators in its long whole numbers."""
    return _LONG.sub(lambda number: f"{int(number[0]):,}", text)


def _fields(work: str, result: str) -> dict[str, str]:
    """An equation's sides in every notation that a manner can ask for."""
    times, prices = work.replace("*", "×"), _prices(work)
    cents = f"{float(result):.2f}" if _SHORT.fullmatch(result) else result
    return {
        "work": work, "times": times, "signs": times.replace("/", "÷"), "latex": _latex(work), "prices": prices,
        "tight": times.replace(" / ", "/"),
        "latex_prices": _latex(prices.replace("$", "\\$")), "result": result, "cents": cents,
    }  # fmt: skip


def _counted(work: str, unit: str) -> str:
    """With the unit behind what is counted: all that is added, or the first factor."""
    return _NUMBER.sub(rf"\g<0> {unit}", work, count=0 if _SUM.fullmatch(work) else 1)


def _prices(work: str) -> str:
    """In dollars: all that is added, the last factor, or what is divided."""
    if _SUM.fullmatch(work):
        return _NUMBER.sub(r"$\g<0>", work)
    if "(" in work:
        return work
    return f"${work}" if "/" in work else " * $".join(work.rsplit(" * ", 1))


def _latex(work: str) -> str:
    if found := _FRACTION.fullmatch(work):
        before, above, below, behind = found.groups(default="")
        before, behind = (part.replace("*", "\\times") for part in (before, behind))
        return f"{before}\\frac{{{above}}}{{{below}}}{behind}"
    return work.replace("*", "\\times").replace("/", "\\div")
