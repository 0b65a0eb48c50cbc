"""Adaptive K: which prefixes still need rollouts?

A fixed-K run draws K rollouts from every prefix and labels by the shares. Most labels are clear long before. After
``n`` of the K rollouts, ``s`` of them right, the count that all K will show is ``s`` plus a beta-binomial number of
further ones. A label is *settled* once the chance that the full count gives the same label as the share so far has
reached a stated confidence. For confidence 1 that is plain curtailment: stop when nothing can change any more.

The prior is a mixture, because values are: a wrong step's is mostly exactly 0 and an easy prefix's now and then
exactly 1, the rest is anywhere between. Without the spikes a run of failures would never settle at 0. A prefix is not
at 0 where a longer one has been completed rightly. And many a step changes nothing: with some prior chance the two
prefixes that a label compares have the same value, so that the rollouts of both say what it is.

Stopping when a label looks clear favours shares that lie away from the rule's threshold: the MC values of an adaptive
run are biased outwards. `benchmarks/adaptive_rollouts.py` measures by how much.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import exp, lgamma
from typing import TYPE_CHECKING

from pydantic import Field

from genprm.errors import ModelError
from genprm.records import Record
from rationale_synth.labels import Rule

if TYPE_CHECKING:
    from numpy import float64
    from numpy.typing import NDArray

    Chances = NDArray[float64]

AT_ZERO = 0.3
"""Prior chance that a value is exactly 0."""
AT_ONE = 0.1
"""Prior chance that it is exactly 1. What is left is spread evenly."""
SAME = 0.5
"""Prior chance that a step leaves the value as it was."""
GRID = 33
"""Values between 0 and 1 at which the common value of two prefixes is looked at."""


class Settling(Record):
    """How sure a label must be before its rollouts stop."""

    confidence: float = Field(default=0.9, ge=0.5, le=1)
    """Least chance that the full K would give the same label. Most labels are far clearer when they stop."""
    zero_confidence: float = Field(default=0.95, ge=0.5, le=1)
    """The same for a value of 0 under an absorbing rule, which decides all later labels at once."""
    tolerance: float = Field(default=0.125, gt=0, lt=1)
    """Soft labels: how far the value may be from that of the full K; two standard errors of K = 64 at 1/2."""
    wave: int = Field(default=4, ge=1)
    """Rollouts of a prefix between two looks at its label."""

    @classmethod
    def of(cls, rule: Rule) -> Settling:
        """What gives about 98 % of the labels of the full K: a soft label stops no clearer than it must."""
        return cls(confidence=0.95 if rule.soft else 0.9)


class Tally(Record):
    """What is known of one prefix: ``right`` of ``drawn`` rollouts so far, of ``planned`` in all."""

    right: int = Field(ge=0)
    drawn: int = Field(ge=0)
    planned: int = Field(ge=1)

    @classmethod
    def known(cls, right: int, drawn: int) -> Tally:
        """A count that is final."""
        return cls(right=right, drawn=drawn, planned=drawn)

    def with_more(self, found: tuple[int, int], drawn: int) -> Tally:
        """With further rollouts. Those whose answer could not be compared are neither right nor wrong, and not planned.

        Args:
            found: how many were right, and how many could be compared.
            drawn: how many there were.

        Raises:
            ModelError: none of all that are planned could be compared.
        """
        right, compared = found
        if (planned := self.planned - (drawn - compared)) < 1:
            raise ModelError("no completion of a prefix came to an answer that could be compared in time")
        return Tally(right=self.right + right, drawn=self.drawn + compared, planned=planned)

    @property
    def value(self) -> float | None:
        """The MC value, None without a rollout."""
        return self.right / self.drawn if self.drawn else None

    @property
    def complete(self) -> bool:
        """Whether all planned rollouts are drawn."""
        return self.drawn >= self.planned


def next_wave(rule: Rule, settling: Settling | None, tallies: Sequence[Tally]) -> dict[int, int]:
    """How many rollouts to draw next, and from which prefixes; none when every label is settled.

    Args:
        rule: whose labels are to be settled.
        settling: how surely; None draws all that are planned: step by step where nothing matters behind a value of 0.
        tallies: of the prefixes of 0 .. T steps. The first, and the last, may be known beforehand.
    """
    left = {steps: tally.planned - tally.drawn for steps, tally in enumerate(tallies) if not tally.complete}
    if settling is None:
        if not rule.absorbing:
            return left
        steps = min(left, default=0)
        lost = any(tally.right == 0 for tally in tallies[1:steps])
        return {} if lost or not left else {steps: left[steps]}
    first = {steps for steps in left if not tallies[steps].drawn}
    return {steps: min(settling.wave, left[steps]) for steps in first or open_prefixes(rule, settling, tallies)}


def open_prefixes(rule: Rule, settling: Settling, tallies: Sequence[Tally]) -> set[int]:
    """The prefixes to draw a further wave from; empty when every label is settled.

    Args:
        rule: whose labels are to be settled.
        settling: how surely.
        tallies: of the prefixes of 0 .. T steps. The first, and the last, may be known beforehand.
    """
    wanted: set[int] = set()
    for index in range(1, len(tallies)):
        before, after = tallies[index - 1], tallies[index]
        alive = any(tally.right for tally in tallies[index + 1 :])
        chance = chance_settled(rule, before, after, settling.tolerance, alive=alive)
        if chance < settling.confidence:
            asked = (index - 1, index) if rule.compares else (index,)
            wanted |= {place for place in asked if not tallies[place].complete}
        if rule.absorbing and after.drawn and not after.right:
            if not after.complete and chance_zero(after, alive=alive) < settling.zero_confidence:
                wanted.add(index)
            return wanted  # behind a 0 nothing matters, unless it turns out to be none
    return wanted


def chance_settled(rule: Rule, before: Tally, after: Tally, tolerance: float, *, alive: bool = False) -> float:
    """The chance that all planned rollouts give a step the same label as those drawn so far.

    For the soft rule: that the full value lies within ``tolerance`` of the value so far.

    Args:
        rule: the rule.
        before: the prefix without the step.
        after: the prefix with it.
        tolerance: for soft labels.
        alive: whether a longer prefix has been completed rightly.
    """
    import numpy as np

    if before.value is None or after.value is None:
        return 0.0
    if after.complete and (before.complete or rule.soft):
        return 1.0
    if rule.soft:
        near = np.abs(np.arange(after.planned + 1) / after.planned - after.value) <= tolerance + 1e-9
        return float(_counts_after(before, after, alive) @ near)
    right = _chance_right(rule, before, after, alive)
    return right if rule.is_right(before.value, after.value) else 1 - right


def chance_zero(tally: Tally, *, alive: bool = False) -> float:
    """The chance that all planned rollouts from a prefix fail."""
    return float(_full_counts(tally, alive)[0])


@lru_cache(maxsize=1 << 16)
def _chance_right(rule: Rule, before: Tally, after: Tally, alive: bool) -> float:
    """The chance that the full counts of two prefixes make the step between them right."""
    import numpy as np

    table = _table(rule, before.planned, after.planned)
    apart = float(_full_counts(before, alive or after.right > 0) @ table @ _full_counts(after, alive))
    spread, zero, one = _evidence(_pooled(before, after), alive)
    each = np.einsum("gi,gi->g", _counts_by_value(before) @ table, _counts_by_value(after))
    between = float(_weights(before, after) @ each)
    same = (spread * between + zero * table[0, 0] + one * table[-1, -1]) / (spread + zero + one)
    chance = _chance_same(before, after, alive)
    return float(chance * same + (1 - chance) * apart)


@lru_cache(maxsize=1 << 14)
def _counts_after(before: Tally, after: Tally, alive: bool) -> Chances:
    """The distribution of the full count after a step, by the rollouts on both its sides: (planned + 1,) chances."""
    spread, zero, one = _evidence(_pooled(before, after), alive)
    same = spread * (_weights(before, after) @ _counts_by_value(after))
    same[0] += zero
    same[-1] += one
    chance = _chance_same(before, after, alive)
    found: Chances = chance * same / (spread + zero + one) + (1 - chance) * _full_counts(after, alive)
    return found


def _chance_same(before: Tally, after: Tally, alive: bool) -> float:
    """The chance that a step has left the value as it was, by the rollouts on both its sides."""
    same = SAME * sum(_evidence(_pooled(before, after), alive))
    apart = (1 - SAME) * sum(_evidence(before, alive or after.right > 0)) * sum(_evidence(after, alive))
    return same / (same + apart)


def _pooled(before: Tally, after: Tally) -> Tally:
    return Tally(
        right=before.right + after.right, drawn=before.drawn + after.drawn, planned=before.planned + after.planned
    )


def _weights(before: Tally, after: Tally) -> Chances:
    """How likely each value of the grid is, if it is that of both prefixes."""
    import numpy as np

    weights = np.exp(_log_likelihood(_pooled(before, after)))
    found: Chances = weights / weights.sum()
    return found


def _evidence(tally: Tally, alive: bool) -> tuple[float, float, float]:
    """How likely the rollouts so far are: from values spread evenly, from 0, from 1; each with its prior chance."""
    spread = (1 - AT_ZERO - AT_ONE) * exp(_log_beta(tally.right + 1, tally.drawn - tally.right + 1))
    zero = AT_ZERO if tally.right == 0 and not alive else 0.0
    return spread, zero, AT_ONE if tally.right == tally.drawn else 0.0


@lru_cache(maxsize=1 << 14)
def _full_counts(tally: Tally, alive: bool) -> Chances:
    """The distribution of the number of right ones among all planned rollouts: (planned + 1,) chances."""
    import numpy as np

    more = tally.planned - tally.drawn
    a, b = tally.right + 1, tally.drawn - tally.right + 1
    further = np.exp([_log_choose(more, k) + _log_beta(a + k, b + more - k) - _log_beta(a, b) for k in range(more + 1)])
    spread, zero, one = _evidence(tally, alive)
    counts = np.zeros(tally.planned + 1)
    counts[tally.right : tally.right + more + 1] = further * spread
    counts[0] += zero
    counts[-1] += one
    counts /= spread + zero + one
    counts.flags.writeable = False
    return counts


@lru_cache(maxsize=1 << 12)
def _counts_by_value(tally: Tally) -> Chances:
    """The same distribution for each value of the grid, if it were the true one: (GRID, planned + 1)."""
    import numpy as np

    more = tally.planned - tally.drawn
    extra = np.arange(more + 1)
    choices = np.array([_log_choose(more, k) for k in range(more + 1)])
    values = _grid()[:, None]
    counts = np.zeros((GRID, tally.planned + 1))
    counts[:, tally.right : tally.right + more + 1] = np.exp(
        choices + extra * np.log(values) + (more - extra) * np.log(1 - values)
    )
    counts.flags.writeable = False
    return counts


def _log_likelihood(tally: Tally) -> Chances:
    import numpy as np

    values = _grid()
    found: Chances = tally.right * np.log(values) + (tally.drawn - tally.right) * np.log(1 - values)
    return found


@lru_cache(maxsize=1)
def _grid() -> Chances:
    import numpy as np

    return (np.arange(GRID) + 0.5) / GRID


@lru_cache(maxsize=256)
def _table(rule: Rule, planned_before: int, planned_after: int) -> Chances:
    """1 where a pair of full counts makes the step right: (planned_before + 1, planned_after + 1)."""
    import numpy as np

    return np.array(
        [
            [float(rule.is_right(i / planned_before, j / planned_after)) for j in range(planned_after + 1)]
            for i in range(planned_before + 1)
        ]
    )


def _log_beta(a: float, b: float) -> float:
    return lgamma(a) + lgamma(b) - lgamma(a + b)


def _log_choose(n: int, k: int) -> float:
    return lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)
