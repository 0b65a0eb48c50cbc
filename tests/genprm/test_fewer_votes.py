"""What fewer votes would have come to, from the rows of a run with more."""

from __future__ import annotations

import pytest

from genprm.aggregate import Aggregate, ChainVotes, combine_chains
from genprm.errors import ConfigError
from genprm.fewer_votes import first_votes
from genprm.records import FailedRow, Solution, StepVote, StopReason, Usage

SOLUTION = Solution(id="i", problem="p", steps=("one", "two"), label=0)
SCORES = ((0.9, 0.2), (0.7, 0.6), (0.1, 0.8), (0.1, 0.9))


def chain(*scores: float) -> ChainVotes:
    votes = tuple(StepVote(score=score, stop_reason=StopReason.JUDGED) for score in scores)
    return ChainVotes(votes, Usage(completion_tokens=10), votes[0])


@pytest.mark.parametrize(("style", "rule"), [("genprm", Aggregate.MEAN), ("judge", Aggregate.MAJORITY)])
def test_the_first_votes_are_those_of_a_run_with_fewer(style: str, rule: Aggregate):
    chains = [chain(*each) for each in SCORES]
    by_votes = {count: combine_chains(SOLUTION, chains[:count], "m", style, aggregate=rule) for count in (1, 2, 4)}
    for count, row in by_votes.items():
        assert first_votes(by_votes[4], count) == row
    found = [row.first_error for row in by_votes.values()]
    assert found == {Aggregate.MEAN: [1, 1, 0], Aggregate.MAJORITY: [1, 1, 0]}[rule]
    other = next(each for each in Aggregate if each is not rule)
    for count in (2, 4):
        combined = combine_chains(SOLUTION, chains[:count], "m", style, aggregate=other)
        assert first_votes(by_votes[4], count, other) == combined
        with pytest.raises(ConfigError, match=f"was not put together by {rule.value}"):
            first_votes(combine_chains(SOLUTION, chains, "m", style, aggregate=other), count)


def test_rows_whose_votes_are_not_all_there():
    chains = [chain(*each) for each in SCORES]
    ended = combine_chains(SOLUTION, [chain(0.1, 0.9)] * 4, "m", "genprm", stop_at_first_error=True)
    for row, votes in ((ended, 2), (ended, 4), (combine_chains(SOLUTION, chains[:2], "m", "genprm"), 4)):
        with pytest.raises(ConfigError, match="row i has not 4 votes on every step"):
            first_votes(row, votes)
    failed = FailedRow(id="f", problem="p", solution=("s",), error="no")
    assert first_votes(failed, 1) is failed
