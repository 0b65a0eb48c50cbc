"""Best of N on fixed pools of candidate solutions, which other PRMs may have scored already."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from math import comb
from typing import Any, NamedTuple

from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from genprm.errors import InputError
from genprm.evaluation import Interval, percentiles
from genprm.records import Solution, Text
from genprm.rows import field_error, iterate_rows
from genprm.search.select import Candidate, Reduce, Rule, choose, reduce_scores

RESAMPLES = 200
SUBSETS = 20
"""Random subsets of each size that the accuracy at that size is the mean of; all of them, if they are no more."""


class PoolCandidate(BaseModel):
    """One candidate solution."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    steps: tuple[Text, ...] = Field(min_length=1)
    answer: str | None = None
    correct: bool
    prm_step_scores: dict[str, tuple[FiniteFloat, ...]] = Field(default_factory=dict)
    """Name of a PRM -> its score for each step."""

    @field_validator("prm_step_scores")
    @classmethod
    def _one_score_a_step(
        cls, scores: dict[str, tuple[float, ...]], info: ValidationInfo
    ) -> dict[str, tuple[float, ...]]:
        steps = len(info.data.get("steps", ()))
        for name, each in scores.items():
            if steps and len(each) != steps:
                raise ValueError(f"{name} has {len(each)} scores for {steps} steps")
        return scores


class Pool(BaseModel):
    """A problem and its candidates."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: Text = Field(validation_alias=AliasChoices("id", "problem_id"), coerce_numbers_to_str=True)
    problem: Text = Field(min_length=1, validation_alias=AliasChoices("problem", "question"))
    candidates: tuple[PoolCandidate, ...] = Field(min_length=1)

    def solutions(self) -> Iterator[Solution]:
        """The candidates, as rows to verify."""
        for number, candidate in enumerate(self.candidates):
            yield Solution(id=f"{self.id}/{number}", problem=self.problem, steps=candidate.steps)


class Scored(BaseModel):
    """Accuracies of one way to choose, in percent, by how many candidates there are to choose from."""

    model_config = ConfigDict(frozen=True)

    scorer: str
    """A PRM's name, or what needs none: ``random``, ``majority``, ``oracle``."""
    reduce: Reduce | None
    rule: Rule | None
    accuracy: dict[int, float]
    """N -> mean over problems, and over random subsets of N candidates."""
    interval: Interval
    """Bootstrap over problems, at the largest N."""
    unscored: int = 0
    """Candidates without a score."""


class PoolFile(NamedTuple):
    """What is in a file of pools."""

    pools: list[Pool]
    without_candidates: int
    """Problems of a search that failed, or found no solution."""


def read_pools(path: str, limit: int | None) -> PoolFile:
    """Read a file of pools, or the output of a search.

    Raises:
        InputError: the file is missing, empty or broken, or a row is not as expected.
    """
    pools: list[Pool] = []
    without = 0
    for where, row in iterate_rows(path, limit):
        if not isinstance(row, dict):
            raise InputError(f"{where}: expected an object with the fields problem and candidates")
        if "gold" in row and not row.get("candidates"):
            without += 1
            continue
        try:
            pools.append(Pool.model_validate(row))
        except ValidationError as error:
            raise field_error(where, error) from error
    if not pools:
        raise InputError(f"{path}: no rows in it")
    return PoolFile(pools, without)


RANDOM, ORACLE = "random", "oracle"
"""One candidate, whichever, and a right one if there is one: what lies at both ends."""


def measure_pools(pools: Sequence[Pool], ours: Mapping[str, Sequence[Mapping[Reduce, float | None]]]) -> list[Scored]:
    """Accuracy of every scorer, with every reduction and rule.

    Args:
        pools: the problems.
        ours: scorer -> for each candidate of each pool, in order, its score by each reduction.
    """
    results = [_measure(RANDOM, None, None, pools, None), _measure(ORACLE, None, None, pools, None)]
    results.append(_measure("majority", None, Rule.MAJORITY, pools, None))
    theirs = sorted({name for pool in pools for each in pool.candidates for name in each.prm_step_scores})
    candidates = [each for pool in pools for each in pool.candidates]
    for scorer, scored in ours.items():
        for reduce in Reduce:
            results += _by_rules(scorer, reduce, pools, [scores[reduce] for scores in scored])
    for scorer in theirs:
        for reduce in Reduce:
            results += _by_rules(scorer, reduce, pools, [_their_score(each, scorer, reduce) for each in candidates])
    return results


def _by_rules(scorer: str, reduce: Reduce, pools: Sequence[Pool], flat: Sequence[float | None]) -> list[Scored]:
    return [_measure(scorer, reduce, rule, pools, flat) for rule in (Rule.BEST, Rule.WEIGHTED)]


def _their_score(candidate: PoolCandidate, scorer: str, reduce: Reduce) -> float | None:
    scores = candidate.prm_step_scores.get(scorer, ())
    return reduce_scores(scores, reduce)


def _measure(
    scorer: str, reduce: Reduce | None, rule: Rule | None, pools: Sequence[Pool], flat: Sequence[float | None] | None
) -> Scored:
    most = min(len(pool.candidates) for pool in pools)
    sizes = [2**power for power in range(most.bit_length()) if 2**power <= most]
    rights: dict[int, list[float]] = {size: [] for size in sizes}
    begin = 0
    for pool in pools:
        count = len(pool.candidates)
        scores = [None] * count if flat is None else list(flat[begin : begin + count])
        begin += count
        draw = random.Random(pool.id)
        for size in sizes:
            # The same for all scorers, so that none has more luck than another.
            is_small = comb(count, size) <= SUBSETS
            subsets = combinations(range(count), size) if is_small else _drawn(draw, count, size)
            found = [_right(pool, subset, scores, scorer, rule) for subset in subsets]
            rights[size].append(sum(found) / len(found))
    return Scored(
        scorer=scorer,
        reduce=reduce,
        rule=rule,
        accuracy={size: 100 * sum(values) / len(values) for size, values in rights.items()},
        interval=_interval(rights[sizes[-1]]),
        unscored=0 if flat is None else sum(score is None for score in flat),
    )


def _drawn(draw: random.Random, count: int, size: int) -> Iterator[list[int]]:
    for _ in range(SUBSETS):
        yield draw.sample(range(count), size)


def _right(pool: Pool, subset: Iterable[int], scores: Sequence[float | None], scorer: str, rule: Rule | None) -> float:
    members = list(subset)
    correct = [pool.candidates[index].correct for index in members]
    if rule is None:
        return float(any(correct)) if scorer == ORACLE else sum(correct) / len(correct)
    chosen = choose([Candidate(pool.candidates[index].answer, scores[index]) for index in members], rule)
    # Nothing to go by: as good as a blind draw.
    return sum(correct) / len(correct) if chosen is None else float(correct[chosen])


def _interval(values: Sequence[float]) -> Interval:
    draw = random.Random(0)
    means = [100 * sum(draw.choices(values, k=len(values))) / len(values) for _ in range(RESAMPLES)]
    return percentiles(means)


def flatten(pools: Iterable[Pool]) -> Iterator[Solution]:
    """All candidates of all pools, as rows to verify."""
    for pool in pools:
        yield from pool.solutions()


def as_json(results: Sequence[Scored]) -> list[dict[str, Any]]:
    """The results, for a file."""
    return [result.model_dump(mode="json") for result in results]
