"""Worked solutions whose arithmetic is known: GSM8K's, with calculator marks like ``48/2 = <<48/2=24>>24``.

A mark says what a step computes. Its operands are traced to where they come from, an earlier step, the problem's text
or a constant, so that a step can be worked out anew, and so that a changed step changes what is computed from it.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Sequence
from fractions import Fraction

from genprm.answers import exact_number
from genprm.records import Record

_MARK = re.compile(r"<<([^<>=]+)=([^<>=]+)>>")
NUMBER = re.compile(r"(?<![\w.])\d+(?:,\d{3}(?!\d))*(?:\.\d+)?")
"""A number in a text, with its thousands separators, and without a comma behind it."""
_CLAIM = re.compile(r"[\w)]\s*=\s*\$?-?\d")
"""An equation, which a line without a mark would not be checked for."""
_END = re.compile(r"\n?####.*", re.DOTALL)
_OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}
DECIMALS = 4
FORMULA_CHARS = 200
"""A longer mark is none of GSM8K's; Python's parser has limits of its own."""


class Computation(Record):
    """What a step computes."""

    expression: str
    """With ``{0}``, ``{1}`` ... for its operands."""
    operands: tuple[str, ...]
    """As they are written."""
    sources: tuple[int | None, ...]
    """For each operand the earlier step whose result it is, -1 for the problem's text, None for a constant."""
    result: str

    @property
    def is_in_any_order(self) -> bool:
        """Whether it is a sum or a product of all its operands."""
        places = [f"{{{place}}}" for place in range(len(self.operands))]
        return self.expression in (" + ".join(places), " * ".join(places))


class WorkedStep(Record):
    """One line of a solution."""

    text: str
    """With ``{}`` where the computation and its result stand, if it has one that can be rewritten."""
    computation: Computation | None


class WorkedSolution(Record):
    """A problem with a solution that is known to be right."""

    id: str
    problem: str
    answer: str
    steps: tuple[WorkedStep, ...]

    def texts(self) -> tuple[str, ...]:
        """The steps as they read."""
        return tuple(written(step) for step in self.steps)


def written(step: WorkedStep) -> str:
    """A step as it reads."""
    if step.computation is None:
        return step.text
    found = step.computation
    return step.text.replace("{}", f"{found.expression.format(*found.operands)} = {found.result}")


def read_worked(name: str, problem: str, solution: str) -> WorkedSolution | None:
    """A GSM8K row's worked solution; None if a step of it cannot be worked out anew.

    Args:
        name: its id.
        problem: the problem's text.
        solution: lines with calculator marks, and ``#### ANSWER`` at the end.
    """
    answer = solution.rpartition("####")[2].strip()
    given = {value for text in NUMBER.findall(problem) if (value := exact_number(text)) is not None}
    steps: list[WorkedStep] = []
    results: dict[int, Fraction] = {}
    for line in filter(None, (line.strip() for line in _END.sub("", solution).splitlines())):
        step = _step(line, given, results)
        if step is None:
            return None
        if step.computation is not None:
            value = exact_number(step.computation.result)
            assert value is not None
            results[len(steps)] = value
        steps.append(step)
    right = exact_number(answer)
    if not results or right is None or list(results.values())[-1] != right:
        return None
    return WorkedSolution(id=name, problem=problem, answer=answer, steps=tuple(steps))


def evaluate(expression: str, operands: Sequence[str]) -> Fraction | None:
    """The exact value of an expression with these operands; None if it has none (division by zero)."""
    try:
        return _value(ast.parse(expression.format(*(f"({operand})" for operand in operands)), mode="eval").body)
    except (ZeroDivisionError, ValueError, SyntaxError):
        return None


def shown(value: Fraction) -> str | None:
    """A number as a solution writes it; None if it takes more than a few decimals."""
    if value.denominator == 1:
        return str(value.numerator)
    scaled = value * 10**DECIMALS
    if scaled.denominator != 1:
        return None
    return f"{float(value):.{DECIMALS}f}".rstrip("0").rstrip(".")


def _step(line: str, given: set[Fraction], results: dict[int, Fraction]) -> WorkedStep | None:
    marks = _MARK.findall(line)
    if "{" in line or "}" in line or len(marks) > 1:
        return None
    if not marks:
        return None if _CLAIM.search(line) else WorkedStep(text=line, computation=None)
    formula, stated = (part.strip() for part in marks[0])
    if len(formula) > FORMULA_CHARS:
        return None
    expression, operands = _template(formula)
    value = evaluate(expression, operands)
    result = exact_number(stated)
    if value is None or value != result or shown(value) is None:
        return None
    text = _with_gap(line, formula)
    if text is None:
        return None
    sources = tuple(_source(exact_number(operand), given, results) for operand in operands)
    found = Computation(expression=expression, operands=operands, sources=sources, result=shown(value) or "")
    return WorkedStep(text=text, computation=found)


def _template(formula: str) -> tuple[str, tuple[str, ...]]:
    operands: list[str] = []

    def place(match: re.Match[str]) -> str:
        operands.append(match[0].replace(",", ""))
        return f"{{{len(operands) - 1}}}"

    template = re.sub(r"\d[\d,]*\.?\d*|\.\d+", place, formula.replace(" ", ""))
    return re.sub(r"([-+*/])", r" \1 ", template).strip(), tuple(operands)


def _with_gap(line: str, formula: str) -> str | None:
    """The line with a gap for its computation; None where the computation does not stand there as in the mark."""
    before, _, after = line.partition("<<")
    after = after.partition(">>")[2]
    parts = re.findall(r"\d[\d,]*\.?\d*|\.\d+|[-+*/()]", formula)
    signs = {"*": r"[*x×]", "/": r"[/÷]", "-": r"[-–]"}
    pattern = r"[\s$]*".join(signs.get(part, re.escape(part)) for part in parts)
    place = re.search(rf"\$?{pattern}\s*=\s*\$?$", before)
    result = re.match(r"\$?\d[\d,]*\.?\d*(?<![.,])", after)
    if place is None or result is None:
        return None
    return before[: place.start()] + "{}" + after[result.end() :]


def _source(value: Fraction | None, given: set[Fraction], results: dict[int, Fraction]) -> int | None:
    for step in reversed(results):
        if results[step] == value:
            return step
    return -1 if value in given else None


def _value(node: ast.expr) -> Fraction:
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return Fraction(str(node.value))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_value(node.operand)
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        return Fraction(_OPERATORS[type(node.op)](_value(node.left), _value(node.right)))
    raise ValueError("not plain arithmetic")
