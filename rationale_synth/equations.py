"""Labelled solutions of people and models, with the equations of numbers in their steps as claims to be worked out.

Such a claim shows only slips: what works it out is the step's own expression. It is shown to be right all the same, in
notations that no worked solution has (roots, powers, fractions in LaTeX), and steps between them compute nothing.
"""

from __future__ import annotations

import ast
import math
import operator
import re
from collections.abc import Callable, Iterator

from genprm.answers import final_answer
from genprm.latex import undressed
from genprm.records import NO_ERROR, Solution, judged_steps
from rationale_synth.planted import SENTENCE_END, Check, Planted, numbers

LONGEST = 120
"""Characters of one side of an equation."""
LARGEST = 10**12
"""Nothing that is larger is worked out."""
_MATHS = re.compile(r"\$\$(.+?)\$\$|\$(.+?)\$|\\\[(.+?)\\\]|\\\((.+?)\\\)", re.DOTALL)
_EQUALS = re.compile(r"(?<![<>!:\\])=")
_OTHER = re.compile(r"\\(?:le|ge|leq|geq|neq|approx|equiv|sim|Rightarrow|implies|to|pm|mod|pmod)\b|[<>≤≥≠≈±,;&|]|\\\\")
"""What ends a chain of equations."""
_PLAIN = re.compile(r"[-+*/×÷()^.\d\s$]*\d[-+*/×÷()^.\d\s$!]*(?:=[-+*/×÷()^.\d\s$!]*\d[\d.]*)+")
"""An equation in the words of a step."""
_SPELLED = re.compile(r"\\frac|\\(?:d|t)?binom|\\sqrt|\\cdot|\\times|\\div|\\[,; ]")
_WORKS = re.compile(r"[-+*/^!×÷]|\\(?:d|t)?(?:frac|binom)|\\sqrt|\\cdot|\\times|\\div")
_OPERATORS = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
}  # fmt: skip
_COUNTS: dict[str, Callable[..., int]] = {"factorial": math.factorial, "comb": math.comb}


def checked(solution: Solution) -> Planted | None:
    """A labelled solution with its claims, as far as they tell.

    A step that is right by its label, and of which a claim comes out wrong (it was rounded, say), ends it, and so does
    a wrong one of which no claim does. None where no claim is left.

    Args:
        solution: with its label.
    """
    assert solution.label is not None
    checks: list[tuple[Check, ...]] = []
    label = NO_ERROR
    for index, step in enumerate(judged_steps(solution.steps, solution.label)):
        found = tuple(_claims(step, solution.problem))
        holds = all(abs(value(check.work) - value(check.claim)) < 1e-6 for check in found)
        if holds is (index == solution.label):
            break
        checks.append(found)
        label = index if index == solution.label else NO_ERROR
    if not any(checks):
        return None
    if label == NO_ERROR:  # one more step at most behind the last that computes something
        del checks[max(index for index, found in enumerate(checks) if found) + 2 :]
    kept = solution.steps if label != NO_ERROR else solution.steps[: len(checks)]
    return Planted(
        id=solution.id, problem=solution.problem, answer=solution.answer or final_answer(kept[-1]) or "", steps=kept,
        label=label, kind=None, checks=tuple(checks),
    )  # fmt: skip


def value(expression: str) -> float:
    """What an expression of `python` comes to.

    Raises:
        ValueError: nothing, or too much.
    """
    try:
        return _value(ast.parse(expression, mode="eval").body)
    except (ArithmeticError, SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError(f"{expression} comes to nothing") from error


def python(latex: str) -> str | None:
    """A side of an equation in Python, as it is written; None where it is no expression of numbers."""
    plain = undressed(latex)
    text = _SPELLED.sub("", plain)
    if len(latex) > LONGEST or not re.search(r"\d", text) or re.search(r"[^-+*/^!×÷(){}\[\]\d.\s$]", text):
        return None
    text = re.sub(r"\\[,; ]|\$", "", plain)
    text = re.sub(r"\\cdot|\\times|×", "*", text)
    text = re.sub(r"\\div|÷", "/", text)
    for _ in range(6):  # as deep as they are nested
        text = re.sub(r"\\frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}", r"((\1)/(\2))", text)
        text = re.sub(r"\\[dt]?binom\s*\{([^{}]*)\}\s*\{([^{}]*)\}", r"math.comb(\1,\2)", text)
        text = re.sub(r"\\sqrt\s*\{([^{}]*)\}", r"math.sqrt(\1)", text)
        text = re.sub(r"\\sqrt\s*(\d)", r"math.sqrt(\1)", text)
        text = re.sub(r"\^\s*\{([^{}]*)\}", r"**(\1)", text)
    text = re.sub(r"\^", "**", text)
    text = re.sub(r"(\d+)!", r"math.factorial(\1)", text)
    text = re.sub(r"(?<=[\d)])\s*(?=\(|math)", "*", text)
    try:
        tree = ast.parse(text.strip(), mode="eval")
        value(ast.unparse(tree))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    return ast.unparse(tree)


def _claims(step: str, problem: str) -> Iterator[Check]:
    """What a step says that numbers come to; each once."""
    seen = set[str]()
    for text in _chains(step):
        sides: list[tuple[str, str]] = []
        for part in [*_EQUALS.split(text), ""]:
            worked = python(part.strip(" .")) if part.strip() else None
            if worked is not None:
                sides.append((part, worked))
                continue
            if len(sides) > 1 and _WORKS.search(sides[0][0].strip().lstrip("-")):
                work, claim = sides[0][1], sides[-1][1]
                if work != claim and work not in seen:
                    seen.add(work)
                    yield Check(claim=claim, work=work, sources=_sources(work, problem))
            sides = []


def _chains(step: str) -> Iterator[str]:
    """The parts of a step with an equals sign in them."""
    words = step
    for found in _MATHS.finditer(step):
        words = words.replace(found[0], " ; ")
        yield from (part for part in _OTHER.split(next(filter(None, found.groups()), "")) if "=" in part)
    for part in _OTHER.split(words):
        yield from (found[0] for found in _PLAIN.finditer(part))


def _sources(work: str, problem: str) -> tuple[str, ...]:
    """The sentence of the problem that its numbers stand in, if there is one with most of them."""
    given = set(numbers(work))
    sentences = [each for each in SENTENCE_END.split(problem) if len(each) <= 2 * LONGEST and "\n" not in each]
    best = max(sentences, key=lambda sentence: len(given & set(numbers(sentence))), default="")
    return (best,) if len(given & set(numbers(best))) > 1 else ()


def _value(node: ast.expr) -> float:
    match node:
        case ast.Constant(value=int() | float() as number):
            return _bounded(float(number))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand)
        case ast.BinOp(op=ast.Pow(), left=left, right=right):
            base, power = _value(left), _value(right)
            if abs(power) > 64 or (base < 0 and power != int(power)):
                raise ValueError("no power that is worked out")
            return _bounded(base**power)
        case ast.BinOp(left=left, op=sign, right=right) if type(sign) in _OPERATORS:
            return _bounded(float(_OPERATORS[type(sign)](_value(left), _value(right))))
        case ast.Call(func=ast.Attribute(value=ast.Name(id="math"), attr=name), args=arguments):
            inside = [*map(_value, arguments)]
            if name == "sqrt" and inside[0] >= 0:
                return math.sqrt(inside[0])
            if name in _COUNTS and all(each.is_integer() and 0 <= each <= 100 for each in inside):
                return _bounded(float(_COUNTS[name](*map(int, inside))))
    raise ValueError("no expression of numbers")


def _bounded(found: float) -> float:
    if abs(found) > LARGEST:
        raise ValueError("too large")
    return found
