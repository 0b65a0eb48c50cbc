"""Families of problems that are made up with their solutions, right and wrong.

What is wrong in a wrong version is what people and language models do get wrong: pairs counted twice, a minus sign
before a bracket, the ratio of sides for that of areas.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from rationale_synth.families.algebra import ALGEBRA
from rationale_synth.families.averages import AVERAGES
from rationale_synth.families.counting import COUNTING
from rationale_synth.families.draw import draw, planted_errors, right_solution
from rationale_synth.families.everyday import EVERYDAY
from rationale_synth.families.geometry import GEOMETRY
from rationale_synth.families.number_theory import NUMBER_THEORY
from rationale_synth.planted import Kind, Planted

FAMILIES = (*NUMBER_THEORY, *COUNTING, *ALGEBRA, *GEOMETRY, *AVERAGES, *EVERYDAY)


def family_plants(count: int, seed: int = 0, errors: int = 1) -> Iterator[Planted]:
    """Problems of all families in turn: the right solution of each, and wrong ones.

    Args:
        count: how many problems.
        seed: of all choices.
        errors: how many wrong solutions of a problem at most, with errors in different steps or of different kinds.
    """
    for index in range(count):
        number, place = divmod(index, len(FAMILIES))
        chance = random.Random(f"{seed}/{FAMILIES[place].name}/{number}")
        drawn = draw(FAMILIES[place], number, chance)
        yield right_solution(drawn)
        seen, names = set[tuple[int, Kind]](), set[str]()
        for wrong, planted in planted_errors(drawn, chance):
            if len(seen) >= errors:
                break
            if (planted.label, wrong.kind) not in seen:
                name = f"{planted.id}-{planted.label}" if planted.id in names else planted.id
                seen.add((planted.label, wrong.kind))
                names.add(name)
                yield planted.model_copy(update={"id": name})
