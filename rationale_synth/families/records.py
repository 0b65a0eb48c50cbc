"""What a family is, and the words that families share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rationale_synth.planted import Kind


@dataclass(frozen=True)
class Wrong:
    """A wrong way to a step's value."""

    kind: Kind
    work: str
    text: str = ""
    """What the step then says, if the words change too."""


@dataclass(frozen=True)
class FamilyStep:
    """One line of the solutions of a family; without a name it computes nothing."""

    text: str
    """Wordings, ``|`` between them. ``{work}`` stands for the computation, ``{name}`` for a value, ``{name:+}`` for one
    with its sign as a term, ``{name:x}`` for the coefficient of x."""
    name: str = ""
    """Of the value that it finds."""
    work: str = ""
    """The right Python expression of the numbers that are drawn, and of the values of earlier steps."""
    wrong: tuple[Wrong, ...] = ()
    check: tuple[str, str, str] | None = None
    """Setup, work and claim of a step that is checked otherwise than by its work: an equation, at a value of x."""
    sane: str = "value > 0"
    """What its value must meet, right or wrong, to be worth writing down."""
    places: int = 0
    """How many decimals its value may have; if any, it may have a few more behind an error."""


@dataclass(frozen=True)
class Family:
    """Problems that differ in their numbers and words only."""

    name: str
    problems: tuple[str, ...]
    """Wordings."""
    draws: Mapping[str, Sequence[object]]
    """What each number or word is drawn from."""
    steps: tuple[FamilyStep, ...]
    given: Mapping[str, str] = field(default_factory=dict)
    """Numbers that follow from those drawn."""
    holds: str = "True"
    """What the numbers must meet."""


OPERAND = Kind.WRONG_OPERAND
OPERATION = Kind.WRONG_OPERATION
CASE = Kind.DROPPED_CASE
SIGN = Kind.SIGN
UNIT = Kind.UNIT
ANY = "value != 0"

PEOPLE = ("Mara", "Jonas", "Priya", "Leo", "Aylin", "Tomas", "Noor", "Felix", "Ines", "Kofi", "Yuki", "Ana")
CLUBS = ("chess club", "choir", "hiking group", "drama club", "robotics team", "book circle")
GOODS = ("bicycle", "jacket", "lamp", "camera", "desk", "pair of boots", "guitar")
PRIMES = (2, 3, 5, 7, 11, 13)
