"""Several results on the same rows, side by side: is one really better than the other?"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from fractions import Fraction
from math import comb

from pydantic import BaseModel, ConfigDict

from genprm.evaluation import RESAMPLES, Interval, Outcome, SliceResult, evaluate_slice, f1_score, percentiles


class Difference(BaseModel):
    """One result against the first one, on the rows that both have."""

    model_config = ConfigDict(frozen=True)

    f1: float | None
    """How much higher its F1 is, in points."""
    f1_interval: Interval | None
    """95 % of a bootstrap that draws rows for both at once."""
    gained: int
    """Rows that it gets right and the first one does not."""
    lost: int
    """The other way round."""
    p_value: float
    """Exact McNemar test: how likely gains and losses as uneven as these are, if both were equally good."""


class Comparison(BaseModel):
    """All results, on the rows that all of them have."""

    model_config = ConfigDict(frozen=True)

    rows: int
    results: dict[str, SliceResult]
    differences: dict[str, Difference]
    """Of all but the first."""


def compare(results: Mapping[str, Mapping[str, Outcome]]) -> Comparison:
    """Compare on common rows.

    Args:
        results: name -> row id -> outcome; at least one row is in all of them.
    """
    names = list(results)
    ids = [row for row in results[names[0]] if all(row in result for result in results.values())]
    aligned = {name: [results[name][row] for row in ids] for name in names}
    return Comparison(
        rows=len(ids),
        results={name: evaluate_slice(outcomes) for name, outcomes in aligned.items()},
        differences={name: difference(aligned[names[0]], aligned[name]) for name in names[1:]},
    )


def difference(first: Sequence[Outcome], other: Sequence[Outcome]) -> Difference:
    """``other`` against ``first``: the same rows in the same order."""
    pairs = list(zip(first, other, strict=True))
    gained = sum(b.hit and not a.hit for a, b in pairs)
    lost = sum(a.hit and not b.hit for a, b in pairs)
    before, after = f1_score(first), f1_score(other)
    draw = random.Random(0)
    deltas: list[float] = []
    for _ in range(RESAMPLES):
        drawn = draw.choices(pairs, k=len(pairs))
        low, high = f1_score([a for a, _ in drawn]), f1_score([b for _, b in drawn])
        if low is not None and high is not None:
            deltas.append(high - low)
    return Difference(
        f1=None if before is None or after is None else after - before,
        f1_interval=percentiles(deltas) if len(deltas) > RESAMPLES // 2 else None,
        gained=gained,
        lost=lost,
        p_value=mcnemar(gained, lost),
    )


def mcnemar(gained: int, lost: int) -> float:
    """Two-sided exact p-value of so many gains and losses under a fair coin."""
    total = gained + lost
    if not total:
        return 1.0
    tail = sum(comb(total, k) for k in range(min(gained, lost) + 1))
    return min(1.0, float(Fraction(2 * tail, 2**total)))
