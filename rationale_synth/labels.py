"""From Monte Carlo values to step labels: every rule of the papers, as a pure function.

A solution's values are ``q[0], q[1] .. q[T]``: ``q[0]`` is the chance of the right answer from the bare problem (its
pass rate), ``q[t]`` the chance after ``t`` steps. Every rule but the soft one looks at one step's value and the value
before it.

GenPRM's rules (arXiv 2504.00891, section 3.2) are *absorbing*: once a step's value is 0, every later step counts as 0
and is labelled wrong, whatever its rollouts said. StepWiser's (arXiv 2508.19229, section 3.2) judge each step anew.

What the papers leave open is decided here: a step that reaches some chance from none (``q[t-1] == 0 < q[t]``) is right
under the ratio rules, a step that stays at none is wrong, and ``q[0] == 0`` absorbs nothing, since no step has been
made yet.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from pydantic import Field, model_validator

from genprm.records import NO_ERROR, Record

BEST_OF = 4
"""n of the best-of-n policy whose value Rel-Effective compares (StepWiser, section 3.2)."""


class RuleName(str, Enum):
    """The rules, by the names their papers give them."""

    HARD = "hard"
    SOFT = "soft"
    RPE = "rpe"
    RPE_DIFFERENCE = "rpe-difference"
    ABS_Q = "abs-q"
    REL_EFFECTIVE = "rel-effective"
    REL_RATIO = "rel-ratio"


_THRESHOLDS = {RuleName.RPE: 0.8, RuleName.RPE_DIFFERENCE: -0.3, RuleName.REL_EFFECTIVE: 0.8, RuleName.REL_RATIO: 0.7}
_STEPWISER = {RuleName.ABS_Q, RuleName.REL_EFFECTIVE, RuleName.REL_RATIO}


class Rule(Record):
    """A labelling rule with its constant.

    Raises:
        pydantic.ValidationError: the rule has no constant, or one is missing its range.
    """

    name: RuleName = RuleName.RPE
    threshold: float | None = Field(default=None, allow_inf_nan=False)
    """The rule's own constant; by default its paper's best. RPE: epsilon of the ratio, 0.8. RPE difference: epsilon
    of the difference, -0.3. Rel-Effective: alpha, 0.8. Rel-Ratio: gamma, 0.7 (both as tuned for the 7B judge).
    Hard, soft and Abs-Q have none."""

    @model_validator(mode="after")
    def _constant_fits(self) -> Rule:
        if self.threshold is not None and self.name not in _THRESHOLDS:
            raise ValueError(f"the rule {self.name.value} has no threshold")
        if self.threshold is not None and self.threshold < 0 and self.name is not RuleName.RPE_DIFFERENCE:
            raise ValueError(f"the threshold of the rule {self.name.value} is not negative")
        return self

    @property
    def constant(self) -> float:
        """The threshold in force; 0 for a rule that has none."""
        return _THRESHOLDS.get(self.name, 0.0) if self.threshold is None else self.threshold

    @property
    def absorbing(self) -> bool:
        """Whether all that follows a step of value 0 is wrong, and need not be sampled."""
        return self.name not in _STEPWISER

    @property
    def compares(self) -> bool:
        """Whether a step's label depends on the value before it, the first step's on that of the bare problem."""
        return self.name not in (RuleName.HARD, RuleName.SOFT, RuleName.ABS_Q)

    @property
    def soft(self) -> bool:
        """Whether its labels are the values themselves."""
        return self.name is RuleName.SOFT

    def __str__(self) -> str:
        return self.name.value if self.name not in _THRESHOLDS else f"{self.name.value} {self.constant:g}"

    def is_right(self, before: float, after: float) -> bool:
        """Whether a step that takes the value from ``before`` to ``after`` is right.

        - hard, soft, Abs-Q: ``after > 0``
        - RPE: ``after / before >= epsilon``
        - RPE difference: ``after - before >= epsilon``, and ``after > 0``: at 0 no difference can make up for it
        - Rel-Effective: ``after + alpha * (mu(after) - mu(before)) > 0`` with ``mu(q) = 1 - (1 - q) ** 4``
        - Rel-Ratio: ``after / before > gamma``
        """
        limit = self.constant + (-_ROUNDING if self.name in (RuleName.RPE, RuleName.RPE_DIFFERENCE) else _ROUNDING)
        match self.name:
            case RuleName.HARD | RuleName.SOFT | RuleName.ABS_Q:
                return after > 0
            case RuleName.RPE | RuleName.REL_RATIO:
                return after > 0 and (before == 0 or after / before > limit)
            case RuleName.RPE_DIFFERENCE:
                return after > 0 and after - before > limit
            case RuleName.REL_EFFECTIVE:
                gain = (1 - before) ** BEST_OF - (1 - after) ** BEST_OF
                return after + self.constant * gain > _ROUNDING


_ROUNDING = 1e-9
"""So that 0.8 * 0.5 is 0.4 whichever way the division rounds."""


def label_steps(rule: Rule, values: Sequence[float | None]) -> tuple[bool, ...]:
    """Whether each step is right.

    Args:
        rule: the rule.
        values: ``q[0] .. q[T]``, each in 0..1. A value that was not sampled is None, which only an absorbing rule
            allows, and only after a step of value 0.

    Returns:
        T labels.

    Raises:
        ValueError: a value is out of range, or missing where the rule needs it.
    """
    labels: list[bool] = []
    lost = False
    for index in range(1, len(values)):
        before, after = values[index - 1], values[index]
        if lost:
            labels.append(False)
            continue
        if before is None or after is None:
            raise ValueError(
                f"the value after {index if after is None else index - 1} steps is missing, which {rule} needs"
            )
        if not (0 <= before <= 1 and 0 <= after <= 1):
            raise ValueError(f"the values around step {index - 1}, {before} and {after}, are not both between 0 and 1")
        labels.append(rule.is_right(before, after))
        lost = rule.absorbing and after == 0
    return tuple(labels)


def soft_labels(values: Sequence[float | None]) -> tuple[float, ...]:
    """The values themselves as labels: T numbers. Math-Shepherd's soft estimation, but 0 from the first 0 on: what
    stands behind a 0 is not sampled."""
    labels: list[float] = []
    for value in values[1:]:
        labels.append(0.0 if value is None or (labels and labels[-1] == 0) else value)
    return tuple(labels)


def first_error(labels: Sequence[bool]) -> int:
    """The index of the first wrong step, -1 for none."""
    return next((index for index, right in enumerate(labels) if not right), NO_ERROR)
