"""Made-up problems: the right solution is right, a wrong one goes wrong in one place, and its code shows where."""

from __future__ import annotations

import contextlib
import io
import itertools
import math
import random

import pytest

from genprm.records import NO_ERROR
from rationale_synth.families import FAMILIES, family_plants
from rationale_synth.families.draw import Drawn, draw, planted_errors, right_solution
from rationale_synth.families.records import Family
from rationale_synth.planted import Check, Kind, Planted

DRAWS = 10
each_family = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)


def drawn(family: Family, number: int) -> tuple[Drawn, random.Random]:
    chance = random.Random(f"test/{family.name}/{number}")
    return draw(family, number, chance), chance


def verdict(check: Check) -> str:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(check.code, {"math": math})
    return printed.getvalue().split()[-1]


def judge(planted: Planted) -> None:
    """Its code finds every step right but the one that is wrong."""
    assert len(planted.checks) == (len(planted.steps) if planted.label == NO_ERROR else planted.label + 1)
    for index, checks in enumerate(planted.checks):
        for check in checks:
            assert verdict(check) == str(index != planted.label), (planted.id, planted.steps[index], check)
            assert len(check.sources) <= 2
            assert all(source in planted.problem for source in check.sources)


@each_family
def test_the_code_finds_the_error_and_no_other(family: Family):
    for number in range(DRAWS):
        problem, chance = drawn(family, number)
        right = right_solution(problem)
        assert right.kind is None
        assert right.steps[-1].endswith(f" The answer is {right.answer}.")
        judge(right)
        for wrong, planted in planted_errors(problem, chance):
            judge(planted)
            assert planted.kind is wrong.kind
            assert planted.checks[-1], "a step that computes nothing is never the wrong one"
            assert (planted.problem, planted.answer) == (right.problem, right.answer)
            assert planted.steps[: planted.label] == right.steps[: planted.label]
            assert planted.steps[planted.label] != right.steps[planted.label]
            assert " The answer is " in planted.steps[-1]
            assert not planted.steps[-1].endswith(f" The answer is {right.answer}.")


@each_family
def test_solutions_read_like_solutions(family: Family):
    problem, chance = drawn(family, 0)
    for planted in (right_solution(problem), *(planted for _, planted in planted_errors(problem, chance))):
        text = " ".join((planted.problem, *planted.steps))
        assert not [code for code in ("{", "}", "math.", "**", "//", "+ -", "- -", "sum(") if code in text], text
    assert sum(not step.name for step in family.steps) * 3 <= len(family.steps)
    assert right_solution(problem).is_grounded, "else `synth plant` leaves the family out"


@each_family
def test_problems_differ_and_every_error_occurs(family: Family):
    missing = {(index, wrong.work) for index, step in enumerate(family.steps) for wrong in step.wrong}
    for number in range(150):
        problem, chance = drawn(family, number)
        missing -= {(planted.label, wrong.work) for wrong, planted in planted_errors(problem, chance)}
        if not missing:
            break
    assert not missing
    assert len({drawn(family, number)[0].problem for number in range(20)}) >= 15


def test_plants_go_round_the_families():
    count = len(FAMILIES) + 3
    plants = list(family_plants(count, seed=1, errors=3))
    rights = [planted for planted in plants if planted.label == NO_ERROR]
    names = [family.name for family in FAMILIES]
    assert [planted.id for planted in rights] == [
        *(f"{name}-0" for name in names), *(f"{name}-1" for name in names[:3]),
    ]  # fmt: skip
    assert len({planted.id for planted in plants}) == len(plants)
    for _, group in itertools.groupby(plants, key=lambda planted: planted.problem):
        right, *wrong = group
        assert right.kind is None
        assert 1 <= len(wrong) <= 3
        assert len({(planted.label, planted.kind) for planted in wrong}) == len(wrong)
    never = {Kind.UNJUSTIFIED_LEAP, Kind.MISREAD_CONDITION, Kind.SKIPPED_STEP}
    assert {planted.kind for planted in plants} == {None, *Kind} - never


def test_the_seed_decides():
    assert list(family_plants(50, seed=3)) == list(family_plants(50, seed=3))
    assert list(family_plants(50, seed=3)) != list(family_plants(50, seed=4))
    fewer = {planted.id: planted for planted in family_plants(50, errors=1)}
    more = {planted.id: planted for planted in family_plants(50, errors=2)}
    assert fewer.items() <= more.items()
