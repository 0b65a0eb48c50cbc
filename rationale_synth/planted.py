"""Plant one first error of a known kind in a right solution, with the code that exposes it.

What comes after the error is computed from it, so that it is the only one. A step's checks work out what it claims by
the right way, from the problem's own numbers and what the steps before it found: `True` up to the error, `False` at it.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from enum import Enum
from fractions import Fraction
from typing import TypeVar

from genprm.answers import exact_number
from genprm.records import NO_ERROR, Record
from rationale_synth.worked import NUMBER, Computation, WorkedSolution, WorkedStep, evaluate, shown, written

CONVERSIONS = {"7", "12", "24", "30", "52", "60", "100", "365", "1000", "0.01", ".01"}
"""Constants that turn one unit into another."""
_PLAIN = re.compile(r"-?[\d.]+")
SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
CONSTANTS = CONVERSIONS | {"180", "360", "0", "1", "2", "3"}
"""Numbers that any step may name."""
STOPPED_SHORT = 0.5
"""How many of the leaps take the newest result for the answer."""
_HEADING = re.compile(r"^(?:Step )?\d+[.:] ")
LEAPS = (
    "From this one sees at once that the answer is {}.",
    "So the answer must be {}.",
    "Putting all of it together gives {}.",
)


T = TypeVar("T")


class Kind(str, Enum):
    """What went wrong in a step."""

    ARITHMETIC_SLIP = "arithmetic slip"
    """The right computation, the wrong result."""
    WRONG_OPERAND = "wrong operand"
    """Another quantity of the problem or of an earlier step."""
    WRONG_OPERATION = "wrong operation"
    DROPPED_CASE = "dropped case"
    """A sum without one of its terms."""
    SIGN = "sign"
    """A difference the wrong way round."""
    UNIT = "unit"
    """A conversion of units left out."""
    MISREAD_CONDITION = "misread condition"
    """A number that the problem does not give, read for one that it does."""
    SKIPPED_STEP = "skipped step"
    """A step left out: what it would have worked on stands where its result should."""
    UNJUSTIFIED_LEAP = "unjustified leap"
    """A final answer that nothing leads to, or the result of an earlier step."""


class Check(Record):
    """One claim of a step, and the right way to what it claims."""

    claim: str
    work: str
    """A Python expression of numbers that the problem gives, or an earlier step has found."""
    setup: str = ""
    """What the expression stands on: a value that a variable is given. The module `math` is imported before."""
    sources: tuple[str, ...] = ()
    """The sentences of the problem that these numbers stand in."""
    is_repeated: bool = False
    """Whether it is what the check before it has found, said again: that is still in the kernel, and is compared."""

    @property
    def code(self) -> str:
        """Works it out, and prints what it finds, and whether that is the claim."""
        claim = self.claim if _PLAIN.fullmatch(self.claim) else f"({self.claim})"
        setup = self.setup and self.setup + "\n"
        work = "" if self.is_repeated else f"{setup}found = {self.work}\n"
        return f"{work}print(found, abs(found - {claim}) < 1e-6)"


class Planted(Record):
    """A solution with one known first error, or with none."""

    id: str
    problem: str
    answer: str
    steps: tuple[str, ...]
    label: int
    kind: Kind | None
    checks: tuple[tuple[Check, ...], ...]
    """Of each step up to the first error; none where nothing is computed. Of a leap: of the answer it leaps to."""

    def known(self, index: int) -> list[str]:
        """The numbers that the problem gives, or the steps before this one have found."""
        found = [number for checks in self.checks[:index] for check in checks for number in numbers(check.claim)]
        return [*numbers(self.problem), *found]

    @property
    def is_grounded(self) -> bool:
        """Whether all right steps that compute nothing name known numbers only."""
        return all(
            {*map(exact_number, numbers(_HEADING.sub("", step)))}
            <= {*map(exact_number, [*self.known(index), *CONSTANTS])}
            for index, (step, checks) in enumerate(zip(self.steps, self.checks, strict=False))
            if not checks and index != self.label
        )

    @property
    def is_leap(self) -> bool:
        """Whether the error is a claim that nothing leads to."""
        return self.kind is Kind.UNJUSTIFIED_LEAP


def unplanted(solution: WorkedSolution) -> Planted:
    """The right solution, with its checks; an answer that is only said in the end is compared with what was found."""
    judged = [(index, _result(step)) for index, step in enumerate(solution.steps)]
    whole = _planted(
        solution, solution.id, closed(solution.texts(), solution.answer), NO_ERROR, None, judged
    )  # fmt: skip
    if whole.checks[-1]:
        return whole
    found = [check for checks in whole.checks for check in checks][-1]
    return whole.model_copy(update={"checks": (*whole.checks[:-1], (found.model_copy(update={"is_repeated": True}),))})


def _planted(
    solution: WorkedSolution, name: str, steps: tuple[str, ...], label: int, kind: Kind | None,
    judged: Sequence[tuple[int, str | None]],
) -> Planted:  # fmt: skip
    """The record; ``judged`` has, for each step up to the error, the step it amounts to and what it claims."""
    shown = [target for target, _ in judged]
    return Planted(
        id=name, problem=solution.problem, answer=solution.answer, steps=steps, label=label, kind=kind,
        checks=tuple(_checks(solution, target, claim, shown[:place]) for place, (target, claim) in enumerate(judged)),
    )  # fmt: skip


def _result(step: WorkedStep) -> str | None:
    return step.computation.result if step.computation else None


def plant(solution: WorkedSolution, kind: Kind, seed: int = 0) -> Planted | None:
    """One error of a kind, where and how the seed chooses; None where the solution has no room for it."""
    chance = random.Random(f"{seed}/{kind.value}/{solution.id}")
    places = [index for index, step in enumerate(solution.steps) if step.computation is not None]
    chance.shuffle(places)
    for index in places:
        for changed in _changes(solution, index, kind, chance):
            planted = _propagate(solution, index, changed, kind)
            if planted is not None:
                return planted
    return None


def _changes(solution: WorkedSolution, index: int, kind: Kind, chance: random.Random) -> Iterator[WorkedStep]:
    """Wrong versions of a step, in an order that chance decides."""
    step = solution.steps[index]
    found = step.computation
    assert found is not None
    right = exact_number(found.result)
    assert right is not None
    if kind is Kind.UNJUSTIFIED_LEAP:
        yield from _leaps(solution, index, chance)
        return
    for expression, operands, sources in _variants(solution, index, found, kind, chance):
        value = slip(right, chance) if kind is Kind.ARITHMETIC_SLIP else evaluate(expression, operands)
        if value is None or value == right or (value <= 0 and kind is not Kind.SIGN) or shown(value) is None:
            continue
        if right.denominator == 1 != value.denominator:
            continue  # or a fraction would tell of an error
        computation = Computation(expression=expression, operands=operands, sources=sources, result=shown(value) or "")
        yield step.model_copy(update={"computation": computation})


Variant = tuple[str, tuple[str, ...], tuple[int | None, ...]]


def _variants(
    solution: WorkedSolution, index: int, found: Computation, kind: Kind, chance: random.Random
) -> Iterator[Variant]:
    expression, operands, sources = found.expression, found.operands, found.sources
    places = chance.sample(range(len(operands)), len(operands))
    match kind:
        case Kind.ARITHMETIC_SLIP:
            yield expression, operands, sources
        case Kind.WRONG_OPERAND:
            for place in places:
                for other, source in _quantities(solution, index, chance):
                    if exact_number(other) != exact_number(operands[place]):
                        yield expression, _with(operands, place, other), _with(sources, place, source)
        case Kind.MISREAD_CONDITION:
            for place in places:
                if sources[place] == -1:
                    yield (
                        expression,
                        _with(operands, place, _misread(operands[place], chance)),
                        _with(sources, place, None),
                    )
        case Kind.WRONG_OPERATION:
            signs = [match.start() for match in re.finditer(r"[-+*/]", expression)]
            for place in chance.sample(signs, len(signs)):
                swapped = {"+": "-", "-": "+", "*": "+", "/": "*"}[expression[place]]
                yield expression[:place] + swapped + expression[place + 1 :], operands, sources
        case Kind.DROPPED_CASE:
            if len(operands) >= 3 and expression == " + ".join(f"{{{n}}}" for n in range(len(operands))):
                shorter = expression.removesuffix(f" + {{{len(operands) - 1}}}")
                for place in places:
                    yield shorter, _without(operands, place), _without(sources, place)
        case Kind.SIGN:
            if expression == "{0} - {1}":
                yield "{1} - {0}", operands, sources
        case Kind.SKIPPED_STEP:
            for place in places:
                skipped = _only_used_by(solution, index, sources[place])
                for number, source in chance.sample(skipped, len(skipped)):
                    yield expression, _with(operands, place, number), _with(sources, place, source)
        case Kind.UNIT:
            for place in places:
                if sources[place] is None and operands[place] in CONVERSIONS:
                    shorter = re.sub(rf"\s*[*/]\s*\{{{place}\}}", "", expression)
                    if shorter != expression and "{" in shorter:
                        yield shorter, operands, sources


def _only_used_by(solution: WorkedSolution, index: int, source: int | None) -> list[tuple[str, int]]:
    """What an earlier step works on, if step ``index`` is the only one that takes its result."""
    users = [
        number
        for number, step in enumerate(solution.steps)
        for each in (step.computation.sources if step.computation else ())
        if each == source
    ]
    skipped = solution.steps[source].computation if source is not None and source >= 0 else None
    if skipped is None or users != [index]:
        return []
    return [
        (operand, each) for operand, each in zip(skipped.operands, skipped.sources, strict=True) if each is not None
    ]


def _leaps(solution: WorkedSolution, index: int, chance: random.Random) -> Iterator[WorkedStep]:
    right = exact_number(solution.answer)
    quantities = _quantities(solution, index, chance)
    if chance.random() < STOPPED_SHORT:
        quantities.sort(key=lambda quantity: quantity[1], reverse=True)
    for value, _ in quantities:
        if exact_number(value) != right:
            yield WorkedStep(text=chance.choice(LEAPS).format(value), computation=None)


def _propagate(solution: WorkedSolution, index: int, changed: WorkedStep, kind: Kind) -> Planted | None:
    """The solution with a changed step, and what is computed from it; None if that cannot be written."""
    steps = [*solution.steps[:index], changed]
    skipped: int | None = None
    if changed.computation is None:
        claim = _last_number(changed.text)
        target = max(n for n, step in enumerate(solution.steps) if step.computation is not None)
        answer = claim
    else:
        claim, target = changed.computation.result, index
        later = _recomputed(solution, index, claim)
        if later is None:
            return None
        steps[index] = changed.model_copy(update={"text": _renamed(solution, index, changed.text, {index: claim})})
        steps += later
        if kind is Kind.SKIPPED_STEP:
            skipped = _skipped(solution, index, changed.computation)
            del steps[skipped]
        last = next(step.computation.result for step in reversed(steps) if step.computation is not None)
        answer = last
    if exact_number(answer) == exact_number(solution.answer):
        return None
    texts = closed([written(step) for step in steps], None if changed.computation is None else answer)
    before = [(number, _result(step)) for number, step in enumerate(solution.steps[:index]) if number != skipped]
    name = f"{solution.id}/{kind.value.replace(' ', '-')}"
    return _planted(solution, name, texts, len(before), kind, [*before, (target, claim)])


def _skipped(solution: WorkedSolution, index: int, changed: Computation) -> int:
    """The step whose result a changed one does without."""
    found = solution.steps[index].computation
    assert found is not None
    [source] = [old for old, new in zip(found.sources, changed.sources, strict=True) if old != new]
    assert source is not None
    return source


def _recomputed(solution: WorkedSolution, index: int, claim: str) -> list[WorkedStep] | None:
    """The steps behind a changed one, computed from its wrong result."""
    values = {index: claim}
    later: list[WorkedStep] = []
    for number, step in enumerate(solution.steps[index + 1 :], index + 1):
        found = step.computation
        if found is not None and any(source in values for source in found.sources):
            operands = tuple(
                values.get(-1 if source is None else source, operand)
                for operand, source in zip(found.operands, found.sources, strict=True)
            )
            value = evaluate(found.expression, operands)
            result = None if value is None or value <= 0 else shown(value)
            if result is None:
                return None
            values[number] = result
            found = found.model_copy(update={"operands": operands, "result": result})
        later.append(WorkedStep(text=_renamed(solution, number, step.text, values), computation=found))
    return later


def _renamed(solution: WorkedSolution, index: int, text: str, values: dict[int, str]) -> str:
    """A step's words, with the changed results of it and of the steps before it in the place of the right ones.

    A number that the problem has as well, or a step whose result is unchanged, stays.

    Args:
        solution: the right one.
        index: which step it is.
        text: its words.
        values: changed results, by step.
    """
    results = {number: found for number, step in enumerate(solution.steps[: index + 1]) if (found := _result(step))}
    kept = {*numbers(solution.problem), *(result for number, result in results.items() if number not in values)}
    changed = {result: values[number] for number, result in results.items() if number in values and result not in kept}
    return NUMBER.sub(lambda match: changed.get(match[0].replace(",", ""), match[0]), text)


def _checks(solution: WorkedSolution, target: int, claim: str | None, shown: Sequence[int]) -> tuple[Check, ...]:
    """How a step is checked whose claim is the result of the step ``target``, behind those that were ``shown``."""
    found = solution.steps[target].computation
    if claim is None or found is None:
        return ()
    work, given = _work(solution, target, shown)
    sentences = [sentence for sentence in SENTENCE_END.split(solution.problem) if given & set(numbers(sentence))]
    return (Check(claim=claim, work=work, sources=tuple(sentences)),)


def _work(solution: WorkedSolution, target: int, shown: Sequence[int]) -> tuple[str, set[str]]:
    """How a result is worked out from what was shown before; and the numbers of the problem in it."""
    found = solution.steps[target].computation
    assert found is not None
    parts, given = list[str](), set[str]()
    for operand, source in zip(found.operands, found.sources, strict=True):
        if source is not None and source >= 0 and source not in shown:
            work, more = _work(solution, source, shown)
            parts.append(f"({work})")
            given |= more
        else:
            parts.append(operand)
            given |= {operand} if source == -1 else set()
    if found.is_in_any_order:
        parts = [parts[place] for place in _as_told(solution, found)]
    return found.expression.format(*parts), given


def _as_told(solution: WorkedSolution, found: Computation) -> list[int]:
    """The operands' places, in the order of what they stand on: earlier steps, the problem's text, what anybody knows.

    It is not the order in which the step happens to have them: who works it out anew should not be copying.
    """
    told = list(map(exact_number, numbers(solution.problem)))

    def order(place: int) -> tuple[int, int]:
        source, value = found.sources[place], exact_number(found.operands[place])
        if source is None:
            return (2, place)
        return (1, told.index(value)) if source == -1 else (0, source)

    return sorted(range(len(found.operands)), key=order)


def numbers(text: str) -> list[str]:
    """The numbers in a text, without thousands separators."""
    return [number.replace(",", "") for number in NUMBER.findall(text)]


def _quantities(solution: WorkedSolution, index: int, chance: random.Random) -> list[tuple[str, int]]:
    """Numbers that a careless reader could take: the problem's, and the results of earlier steps."""
    found = [(number, -1) for number in numbers(solution.problem) if not re.match(r"0\d", number)]  # of a clock
    for number, step in enumerate(solution.steps[:index]):
        if step.computation is not None:
            found.append((step.computation.result, number))
    return chance.sample(found, len(found))


def _misread(number: str, chance: random.Random) -> str:
    """The number as one reads it in haste."""
    if number.isdigit() and len(set(number)) > 1 and number[1] != "0":
        return number[1] + number[0] + number[2:]
    value = exact_number(number) or Fraction(1)
    return shown(value + chance.choice((1, 2, 10))) or number


def slip(right: Fraction, chance: random.Random) -> Fraction:
    """A number near the right one, or wrong in a digit further up."""
    steps = [1, 2, *(10**place for place in (1, 2, 3) if abs(right) >= 2 * 10**place)]
    return right + chance.choice(steps) * chance.choice((-1, 1))


def _last_number(text: str) -> str:
    return str(re.findall(r"\d+(?:\.\d+)?", text)[-1])


def closed(steps: Sequence[str], answer: str | None) -> tuple[str, ...]:
    """The steps, and the answer as the last of them says it."""
    if answer is None:
        return tuple(steps)
    return (*steps[:-1], f"{steps[-1]} The answer is {answer}.")


def _with(values: tuple[T, ...], place: int, value: T) -> tuple[T, ...]:
    return (*values[:place], value, *values[place + 1 :])


def _without(values: tuple[T, ...], place: int) -> tuple[T, ...]:
    return values[:place] + values[place + 1 :]
