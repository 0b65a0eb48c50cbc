"""Draw problems of the families, solve them, and plant errors, each with the code that exposes it."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction

from genprm.records import NO_ERROR, judged_steps
from rationale_synth.families.records import Family, FamilyStep, Wrong
from rationale_synth.planted import SENTENCE_END, Check, Kind, Planted, closed, slip
from rationale_synth.worked import DECIMALS, shown

_TRIES = 5000
_NAME = re.compile(r"(?<![\w.])[a-z]\w*")
_WORDS = (
    (r"math\.factorial\((\d+)\)", r"\1!"),
    (r"math\.factorial\(([^()]+)\)", r"(\1)!"),
    (r"math\.comb\(", "C("),
    (r"math\.perm\(", "P("),
    (r"round\((math\.sqrt\([^()]+\)), \d\)", r"\1"),
    (r"math\.(?=gcd|lcm|sqrt)", ""),
    (r"\babs\(([^()]+)\)", r"|\1|"),
    (r"(\S+) // (\([^()]+\)|\S+)", r"floor(\1 / \2)"),
    (r" \*\* ", "^"),
    (r" % ", " mod "),
)
"""What Python writes, and what people write."""


@dataclass(frozen=True)
class Drawn:
    """A problem of a family."""

    family: Family
    id: str
    wording: str
    """The problem, before its numbers are filled in."""
    texts: tuple[str, ...]
    """The wording of each step."""
    values: Mapping[str, str]
    """Its numbers and words, and what the right solution finds."""

    @property
    def problem(self) -> str:
        """As it reads."""
        return _written(self.wording, self.values)


def draw(family: Family, number: int, chance: random.Random) -> Drawn:
    """A problem whose solution works out."""
    wording = chance.choice(family.problems)
    texts = tuple(chance.choice(step.text.split("|")) for step in family.steps)
    for _ in range(_TRIES):
        values = {name: str(chance.choice(choices)) for name, choices in family.draws.items()}
        values |= {name: _value(work, values, DECIMALS) or "" for name, work in family.given.items()}
        solved = _solved(family, values) if _true(family.holds, values) else None
        if solved is not None:
            return Drawn(family, f"{family.name}-{number}", wording, texts, solved)
    raise ValueError(f"no numbers fit the family {family.name}")


def right_solution(drawn: Drawn) -> Planted:
    """The right solution of a problem."""
    return _planted(drawn, drawn.values)


def planted_errors(drawn: Drawn, chance: random.Random) -> Iterator[tuple[Wrong, Planted]]:
    """All wrong solutions that can be written, in an order that chance decides."""
    steps = drawn.family.steps
    choices = [(index, wrong) for index, step in enumerate(steps) for wrong in (*step.wrong, *_slips(step))]
    chance.shuffle(choices)
    last = steps[-1].name
    for index, wrong in choices:
        step = steps[index]
        right = drawn.values[step.name]
        if wrong.kind is Kind.ARITHMETIC_SLIP:
            value = _slipped(right, chance)
        else:
            value = _value(wrong.work, drawn.values, DECIMALS if step.places else 0)
        if value is None or value == right:
            continue
        values = _solved(drawn.family, drawn.values, index, value)
        if values is not None and values[last] != drawn.values[last]:
            yield wrong, _planted(drawn, values, index, wrong)


def _slips(step: FamilyStep) -> tuple[Wrong, ...]:
    return (Wrong(Kind.ARITHMETIC_SLIP, step.work),) if step.name else ()


def _slipped(right: str, chance: random.Random) -> str | None:
    """The number, slightly wrong, in its last place if it has decimals."""
    scale = 10 ** len(right.partition(".")[2])
    return shown(slip(Fraction(right) * scale, chance) / scale)


def _solved(family: Family, values: Mapping[str, str], at: int = NO_ERROR, claim: str = "") -> dict[str, str] | None:
    """The values with those that the steps find, one of which is claimed; None if a step's value is of no use."""
    found = dict(values)
    for index, step in enumerate(family.steps):
        if not step.name:
            continue
        value = claim if index == at else _value(step.work, found, DECIMALS if claim and step.places else step.places)
        if value is None or not _true(step.sane, {**found, "value": value}):
            return None
        found[step.name] = value
    return found


def _planted(drawn: Drawn, values: Mapping[str, str], label: int = NO_ERROR, wrong: Wrong | None = None) -> Planted:
    """The solution with these values; ``label`` is the step that goes wrong, and how."""
    steps = drawn.family.steps
    texts = list[str]()
    for index, step in enumerate(steps):
        text, work = drawn.texts[index], step.work
        if wrong is not None and index == label:
            text, work = wrong.text or text, wrong.work
        words = _in_words(_filled(work, values))
        if words == values.get(step.name):
            text = text.replace("{work} = ", "")
        texts.append(_written(text, {**values, "work": words}))
    judged = judged_steps(steps, label)
    return Planted(
        id=drawn.id if wrong is None else f"{drawn.id}/{wrong.kind.value.replace(' ', '-')}",
        problem=drawn.problem,
        answer=drawn.values[steps[-1].name],
        steps=closed(texts, values[steps[-1].name]),
        label=label,
        kind=wrong.kind if wrong is not None else None,
        checks=tuple(_checks(drawn, step, values) for step in judged),
    )


def _checks(drawn: Drawn, step: FamilyStep, values: Mapping[str, str]) -> tuple[Check, ...]:
    """How a step is checked; none if it computes nothing."""
    if not step.name:
        return ()
    setup, work, claim = step.check or ("", step.work, "")
    names = set(_NAME.findall(f"{work} {claim}"))
    sources = [
        _written(sentence, drawn.values)
        for sentence in SENTENCE_END.split(drawn.wording)
        if names & set(re.findall(r"{(\w+)", sentence))
    ]
    return (
        Check(
            claim=_filled(claim, values) or values[step.name],
            work=_filled(work, values),
            setup=_filled(setup, values),
            sources=tuple(sources[:2]),
        ),
    )


class _Shown(str):
    """A number as a step writes it: ``+`` as a term with its sign, ``x`` as the coefficient of x."""

    def __format__(self, form: str) -> str:
        sign, size = ("-", self[1:]) if self.startswith("-") else ("+", str(self))
        if form.endswith("x"):
            size = "x" if size == "1" else f"{size}x"
        if form.startswith("+"):
            return f"{sign} {size}"
        return f"-{size}" if sign == "-" else size


def _written(text: str, values: Mapping[str, str]) -> str:
    return text.format_map({name: _Shown(value) for name, value in values.items()})


def _filled(expression: str, values: Mapping[str, str]) -> str:
    """The expression with numbers in place of names."""

    def literal(name: re.Match[str]) -> str:
        value = values.get(name[0], name[0])
        return f"({value})" if value.startswith("-") else value

    filled = _NAME.sub(literal, expression)
    filled = re.sub(r"\+ \(-([\d.]+)\)(?! \*\*| %)", r"- \1", filled)
    filled = re.sub(r"(?<=[\w)]) - \(-([\d.]+)\)(?! \*\*| %)", r" + \1", filled)
    return re.sub(r"(^|= )\((-[\d.]+)\)(?! \*\*| %)", r"\1\2", filled)


def _in_words(work: str) -> str:
    """A Python expression as solutions write it."""
    work = re.sub(
        r"sum\(int\(i\) for i in str\((\d+)\)\[?(\d*):?(-?\d*)\]?\)",
        lambda m: " + ".join(m[1][int(m[2] or 0) : int(m[3] or len(m[1]))]),
        work,
    )
    for code, words in _WORDS:
        work = re.sub(code, words, work)
    return work


def _value(work: str, values: Mapping[str, str], places: int) -> str | None:
    """What an expression comes to; None if that is no number with so few decimals."""
    try:
        value = eval(_filled(work, values), {"math": math})
    except (ArithmeticError, ValueError, TypeError, StopIteration):
        return None
    number = shown(Fraction(value) if isinstance(value, int) else Fraction(str(round(value, 9))))
    return number if number is not None and len(number.partition(".")[2]) <= places else None


def _true(condition: str, values: Mapping[str, str]) -> bool:
    return bool(eval(_filled(condition, values), {"math": math}))
