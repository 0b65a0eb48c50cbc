"""What a verification by several chains would have come to with the first few of them: Maj@1, 2, 4 ... from one run."""

from __future__ import annotations

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
        ConfigError: it has not all votes on all steps: they were drawn as needed, or ended at the first error.
    """
    if not isinstance(row, Verification) or votes == row.votes:
        return row
    if votes > row.votes or any(len(step.votes) != row.votes for step in row.steps):
        raise ConfigError(
            f"row {row.id} has not {max(votes, row.votes)} votes on every step: verify with --votes N, and without "
            "--stop-at-first-error"
        )
    share = Usage(completion_tokens=row.usage.completion_tokens // row.votes)
    wholes = row.whole.votes if row.whole else [None] * votes
    chains = [
        ChainVotes(tuple(step.votes[index] for step in row.steps), share, wholes[index]) for index in range(votes)
    ]
    solution = Solution(id=row.id, problem=row.problem, steps=row.solution, label=row.label, generator=row.generator)
    rule = aggregate or STYLES[row.style.rpartition(">")[2]].aggregate
    return combine_chains(solution, chains, row.model, row.style, aggregate=rule)
