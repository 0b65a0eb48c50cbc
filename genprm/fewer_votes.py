"""What a verification by several chains would have come to with the first few of them: Maj@1, 2, 4 ... from one run."""

from __future__ import annotations

from functools import partial

from genprm.aggregate import Aggregate, ChainVotes, combine_chains
from genprm.errors import ConfigError
from genprm.records import OutputRow, Solution, Usage, Verification
from genprm.styles import STYLES


def first_votes(row: OutputRow, votes: int, aggregate: Aggregate | None = None) -> OutputRow:
    """The row as its first chains alone would have had it; what it cost, in proportion. A failed row stays one.

    Args:
        row: of a run with a fixed number of votes.
        votes: how many chains, at most the row's own.
        aggregate: how they are put together; by default as the row's style does.

    Raises:
        ConfigError: it has not all votes on all steps: they were drawn as needed, or ended at the first error. Or the
            row was put together in another way than the style's, and ``aggregate`` does not say how.
    """
    if not isinstance(row, Verification) or row.votes == votes == 1:
        return row
    if votes > row.votes or any(len(step.votes) != row.votes for step in row.steps):
        raise ConfigError(
            f"row {row.id} has not {max(votes, row.votes)} votes on every step: verify with --votes N, and without "
            "--stop-at-first-error"
        )
    wholes = row.whole.votes if row.whole else [None] * row.votes
    chains = [
        ChainVotes(tuple(step.votes[index] for step in row.steps), Usage(), wholes[index]) for index in range(row.votes)
    ]
    solution = Solution(id=row.id, problem=row.problem, steps=row.solution, label=row.label, generator=row.generator)
    rule = aggregate or STYLES[row.style.rpartition(">")[2]].aggregate
    combine = partial(combine_chains, solution, model=row.model, style=row.style, aggregate=rule)
    if aggregate is None and [step.score for step in combine(chains).steps] != [step.score for step in row.steps]:
        raise ConfigError(f"row {row.id} was not put together by {rule.value}, as is usual for its style: --aggregate?")
    cost = Usage(completion_tokens=row.usage.completion_tokens * votes // row.votes)
    return combine(chains[:votes]).model_copy(update={"usage": cost})
