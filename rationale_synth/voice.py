"""The same solution in other words: as language models write, with openings, headings, LaTeX, and longer steps.

Worked solutions are terse, and of one hand; those that a verifier is asked about are neither. Only the words change:
what is claimed, what is wrong, and how it is checked stay as they are.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence

from genprm.records import NO_ERROR, Record, judged_steps
from rationale_synth.notation import NUMBER, notated, quantities, separated
from rationale_synth.planted import LEAPS, SENTENCE_END, Check, Kind, Planted

_ANSWER = re.compile(r" The answer is (-?[\d.,]+)\.$")
_PART_END = re.compile(r"; |, (?:and|but) (?=(?:he|she|it|they|there|each)\b)")
"""Where something is said that can be said by itself: "as many as yellow and purple ones" must not be cut."""
_FACT = re.compile(r"[^=^*+{}\\\n]*\d[^=^*+{}\\\n]*")
FACT_WORDS = range(4, 25)
_COMMON = re.compile(
    r"^(?:A|After|All|An|As|At|Each|Every|Finally|For|He|Her|His|However|If|In|It|Next|On|One|She|The|Their|Then|There|These"
    r"|They|This|Today|Tomorrow|When|Yesterday)\b"
)
_OPENINGS = (
    "Let's break down the problem step by step.",
    "Let's go through the problem one condition at a time.",
    "To answer this, we put together what the problem gives.",
    "We start from what is given: {given}",
    "The question is: {question} We work towards it step by step.",
    "To answer the question, we need to follow these steps: First, collect what is given. Second, work out each part. "
    "Third, put the parts together.",
    "To find out what is asked, we have to do several things, one after the other.",
    "Let's list what we know: 1. {given} 2. {other}",
    "First, we note what the problem tells us. {given} {other} What we want to know is this: {question}",
    "To solve this problem, we take its sentences one by one. The first one says: {first}",
    "Let us give what is asked for a name, and look for its value.",
    "To find out {asked}, we first need to know each amount, and then to put the amounts together.",
    "To answer {asked}, we need to follow these steps: First, find what each part comes to. Second, add or take away "
    "as the problem says.",
    "To determine {asked}, we break it down: what do we know, and what follows from that?",
)
_INTERLUDES = (
    "Next, let's look at this part of the problem: {given}",
    "Now we use what the problem says here: {given}",
    "Next, we need the following. {other}",
    "So far we have found {found}. With that we can go on.",
    "Second, we calculate what comes next from {found}.",
    "We remember that {found} is what we have until now, and read on: {other}",
    "Now that we know this, we can find the next part of {asked}.",
)
"""Steps that compute nothing: most false alarms of a verifier that has seen few of them are on such steps."""
_RESTATEMENTS = (
    "{Fact}.",
    "First, {fact}.",
    "Next, {fact}.",
    "We know that {fact}.",
    "The problem states that {fact}. We need this for what follows.",
)
_LISTS = ("- {Fact}.\n- {Other}.", "From the problem: {fact}; {other}.")
"""Steps that say again, in part, what the problem says: their numbers are no results, and are not to be worked out."""
_LETTERS = ("x", "y", "n", "k", "T", "m", "p", "q")
_ARITHMETIC = re.compile(r"\d[\d.]*(?: [-+*/] \d[\d.]*)+")
_COEFFICIENT = r"(?<![\d.])(?<!/ )(\d[\d.]*) \* {0}\b|(?<!/ )\b{0} \* (\d[\d.]*)"
"""What 4x is short for; behind a division it would be divided by as a whole."""
_EQUATIONS = (
    "Let {letter} be the number that we need next. Then {letter} = {work}.",
    "We can write this as an equation: {letter} = {work}.",
    "We set up the equation for {letter}: \\[ {work} = {letter} \\]",
    "Let \\({letter}\\) stand for it, so that \\({letter} = {work}\\).",
)
"""Steps that set an equation up, and do not solve it: their letters have no value yet."""
_FORMULAS = (
    "Let \\({letter}\\) be one of these amounts. Then the one that we need next is \\({formula}\\).",
    "If we call the first of them \\({letter}\\), then according to the problem we have \\({other} = {formula}\\).",
    "Let {letter} be what we start from. So what we find next can be written as {formula}.",
    "We can express this relationship with an equation: \\[ {other} = {formula} \\]",
    "What comes next is \\({formula}\\), where \\({letter}\\) is what we have for it.",
)
"""Steps with a letter for a number: no part of them is to be worked out."""
_EXPRESSIONS = (
    "So we have to calculate {work}.",
    "Putting this together, we get the expression \\[ {work} \\]",
    "We write down what there is to work out: {work}",
    "Next = {work}.",
)
"""Steps that say how something is worked out, and come to no result."""
_AGAIN = (
    "So it is {}.",
    "Therefore, we have {} here.",
    "This gives us {}.",
    "Thus, what we get is {}.",
    "So the result of this step is {}.",
)
"""A result said again in the same step: it is one claim, not two."""
_HEADS: tuple[Callable[[int], str], ...] = (
    lambda n: f"Step {n}: ",
    lambda n: f"{n}. ",
    lambda n: "First of all: " if n == 1 else "Next: ",
    lambda n: "We begin with the first part. " if n == 1 else "Now we go on to the next part. ",
    lambda n: "",
)
_CLOSINGS = (
    "So the final answer is \\boxed{{{}}}.",
    "Therefore, the answer is {}.",
    "The answer is: $\\boxed{{{}}}$.",
    *LEAPS,
)
"""Of a right answer, and of a leap."""
MERGED = 0.35
"""How often a step swallows the next one."""
OPENED, INTERRUPTED = 0.6, 0.25
"""How often something is said before the first step, and before each later one."""
JOINED = 0.4
"""How often that is no step of its own, but the beginning of the next one."""
RESTATED, BEGUN, SET_UP = 0.2, 0.25, 0.25
"""How often a fact is said again before a step, and at the beginning of one; and how often a step sets up the next."""
APART = 0.6
"""How often the answer, if it is said in other words, is a step of its own: language models mostly do so."""
SAID_AGAIN = 0.25
"""In how many steps the result is said again."""
SEPARATED = 0.7
"""In how many solutions long numbers have thousands separators."""


class _Told(Record):
    """A step while its words are chosen."""

    text: str
    checks: tuple[Check, ...] = ()
    wrong: bool = False


def voiced(planted: Planted, seed: int = 0) -> Planted:
    """A solution as a language model might have put it; which way, the seed and its id decide.

    Args:
        planted: a solution with its checks.
        seed: of the choices.
    """
    chance = random.Random(f"{seed}/voice/{planted.id}")
    checks = [*planted.checks, *[()] * (len(planted.steps) - len(planted.checks))]
    steps = list(planted.steps)
    if planted.is_leap:  # what is wrong with it must not be its words
        steps[planted.label] = chance.choice(_CLOSINGS).format(checks[planted.label][0].claim)
    told = [
        _Told(text=text + "." * text[-1:].isalnum(), checks=each, wrong=index == planted.label)
        for index, (text, each) in enumerate(zip(steps, checks, strict=True))
    ]
    known = quantities(planted.problem)
    told = _merged([_said_again(step, chance) for step in told], chance)
    told = [step.model_copy(update={"text": notated(step.text, known, chance)}) for step in told]
    told = _closed(told, known.priced, chance)
    told = _headed(_talked(told, planted, chance), chance)
    if chance.random() < SEPARATED:
        told = [step.model_copy(update={"text": separated(step.text)}) for step in told]
    label = next((index for index, step in enumerate(told) if step.wrong), NO_ERROR)
    return planted.model_copy(
        update={
            "steps": tuple(step.text for step in told),
            "label": label,
            "checks": tuple(step.checks for step in judged_steps(told, label)),
        }
    )


def _said_again(step: _Told, chance: random.Random) -> _Told:
    """A step that may end with its result, if that is what its equation comes to."""
    claim = step.checks[-1].claim if step.checks else ""
    results = re.findall(r"= (-?[\d.]*\d)", step.text)
    if results[-1:] != [claim] or _ANSWER.search(step.text) or chance.random() > SAID_AGAIN:
        return step
    return step.model_copy(update={"text": f"{step.text} {chance.choice(_AGAIN).format(claim)}"})


def _merged(told: list[_Told], chance: random.Random) -> list[_Told]:
    """Some steps with the next one in them. What stands behind an error is not checked, in the same step neither."""
    merged: list[_Told] = []
    for step in told:
        if merged and chance.random() < MERGED:
            last = merged[-1]
            checks = last.checks if last.wrong else last.checks + step.checks
            merged[-1] = _Told(text=f"{last.text} {step.text}", checks=checks, wrong=last.wrong or step.wrong)
        else:
            merged.append(step)
    return merged


def _talked(told: list[_Told], planted: Planted, chance: random.Random) -> list[_Told]:
    """With steps in between, and at the beginning, that say what is given or what comes next."""
    sentences = SENTENCE_END.split(planted.problem)
    question = next((each for each in reversed(sentences) if each.endswith("?")), sentences[-1])
    given = [each for each in sentences if each != question] or [question]
    facts = _facts(given)
    letters = _unused(planted, chance)
    talked: list[_Told] = []
    for step in told:
        found = [check.claim for before in talked for check in before.checks]
        is_wrong = any(before.wrong for before in talked)
        words = None
        if not talked and chance.random() < OPENED:
            words = chance.choice(_OPENINGS)
        elif found and not is_wrong and chance.random() < INTERRUPTED:
            words = chance.choice(_INTERLUDES)
        if words is not None:
            text = words.format(
                given=chance.choice(given), other=chance.choice(given), first=sentences[0], question=question,
                asked=question[:1].lower() + question[1:].rstrip("?"), found=found[-1] if found else "",
            )  # fmt: skip
            step = _before(step, text, talked, chance)
        if facts and not is_wrong and chance.random() < RESTATED:
            ways = _RESTATEMENTS if len(facts) < 2 else _RESTATEMENTS + _LISTS
            talked.append(_Told(text=_restated(chance.choice(ways), facts, chance)))
        is_set_up_rightly = not step.wrong or planted.kind is Kind.ARITHMETIC_SLIP
        if is_set_up_rightly and not is_wrong and chance.random() < SET_UP and len(letters) > 1:
            text = _set_up(step, letters, chance)
            step = _before(step, text, talked, chance) if text else step
        if facts and chance.random() < BEGUN:
            said = "{Fact}." if len(facts) < 2 else chance.choice(("{Fact}.", "{Fact}. {Other}."))
            step = step.model_copy(update={"text": f"{_restated(said, facts, chance)} {step.text}"})
        talked.append(step)
    return talked


def _before(step: _Told, text: str, talked: list[_Told], chance: random.Random) -> _Told:
    """The step that ``text`` comes before: with it, or else it is a step of its own by now."""
    if chance.random() < JOINED:
        return step.model_copy(update={"text": f"{text} {step.text}"})
    talked.append(_Told(text=text))
    return step


def _facts(sentences: Sequence[str]) -> list[str]:
    """The parts of a problem's sentences that give a number in words, not in a formula."""
    parts = [part.strip(" .!?") for sentence in sentences for part in _PART_END.split(sentence)]
    return [part for part in parts if _FACT.fullmatch(part) and len(part.split()) in FACT_WORDS]


def _unused(planted: Planted, chance: random.Random) -> list[str]:
    """Letters that have no meaning in the solution yet, in any order."""
    text = " ".join((planted.problem, *planted.steps))
    free = [letter for letter in _LETTERS if not re.search(rf"(?<![A-Za-z]){letter}(?![A-Za-z])", text)]
    return chance.sample(free, len(free))


def _restated(words: str, facts: Sequence[str], chance: random.Random) -> str:
    fact, other = chance.sample(facts, 2) if len(facts) > 1 else (facts[0], facts[0])
    fact, other = (_COMMON.sub(lambda found: found[0].lower(), text) for text in (fact, other))
    return words.format(fact=fact, other=other, Fact=_begun(fact), Other=_begun(other))


def _set_up(step: _Told, letters: list[str], chance: random.Random) -> str:
    """Words that set up what a step works out, where that is plain arithmetic; else none. Letters used are taken."""
    work = step.checks[0].work if step.checks and not step.checks[0].is_repeated else ""
    if not _ARITHMETIC.fullmatch(work):
        return ""
    words = chance.choice(chance.choice((_EQUATIONS, _FORMULAS, _EXPRESSIONS)))
    letter, other = letters.pop(), letters.pop()
    formula = _formula(work, letter, chance)
    work = work.replace("*", chance.choice("*×"))
    return words.format(letter=letter, other=other, work=work, formula=formula)


def _formula(work: str, letter: str, chance: random.Random) -> str:
    """Arithmetic with a letter in the place of a number, as algebra writes it: 4x - 13."""
    number = chance.choice(list(NUMBER.finditer(work)))
    formula = work[: number.start()] + letter + work[number.end() :]
    return re.sub(_COEFFICIENT.format(letter), rf"\1\2{letter}", formula)


def _begun(text: str) -> str:
    return text[:1].upper() + text[1:]


def _closed(told: list[_Told], priced: set[str], chance: random.Random) -> list[_Told]:
    """The answer in other words, sometimes as a step of its own."""
    last = told[-1]
    answer = _ANSWER.search(last.text)
    if answer is None or chance.random() < 0.3:
        return told
    money = "$" if answer[1] in priced and chance.random() < 0.5 else ""
    closing = chance.choice(_CLOSINGS).format(money + answer[1])
    body = last.text[: answer.start()]
    if chance.random() < APART:
        checks = [check for step in told for check in step.checks]
        found = [check for check in checks if check.claim == answer[1]][-1:]  # what it was worked out by
        if found and found[0] == checks[-1]:
            found = [found[0].model_copy(update={"is_repeated": True})]
        end = _Told(text=closing, checks=tuple(found))
        return [*told[:-1], last.model_copy(update={"text": body}), end]
    return [*told[:-1], last.model_copy(update={"text": f"{body} {closing}"})]


def _headed(told: list[_Told], chance: random.Random) -> list[_Told]:
    head = chance.choice(_HEADS)
    return [step.model_copy(update={"text": head(number) + step.text}) for number, step in enumerate(told, 1)]
