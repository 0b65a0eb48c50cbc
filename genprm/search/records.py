"""What a search over one problem comes to: a line of its output."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, TypeAdapter

from genprm.pools import PoolCandidate
from genprm.records import SCHEMA_VERSION, Record


class Spent(Record):
    """Tokens written so far, by the policy and by the verifier."""

    policy: int = 0
    verifier: int = 0

    @property
    def total(self) -> int:
        return self.policy + self.verifier

    def __add__(self, other: Spent) -> Spent:
        return Spent(policy=self.policy + other.policy, verifier=self.verifier + other.verifier)


class TracePoint(Record):
    """The answer that the search would have given, had it been stopped here."""

    spent: Spent
    answer: str | None
    correct: bool | None
    """None where it cannot be compared with the gold answer."""


class SearchRow(Record):
    """What every output row of a search has."""

    schema_version: Literal[1] = SCHEMA_VERSION
    id: str
    problem: str
    gold: str
    method: str


class SearchResult(SearchRow):
    """A problem that was searched. A pool, too: ``genprm eval bon`` reads it."""

    answer: str | None
    correct: bool | None
    score: float | None
    """The chosen solution's, None if it could not be scored."""
    solution: tuple[str, ...]
    """Its steps."""
    trace: tuple[TracePoint, ...] = Field(min_length=1)
    """In the order of what was spent; the last one is the result."""
    candidates: tuple[PoolCandidate, ...]
    """All finished solutions that the search came by, with the scores of their steps."""
    spent: Spent
    completions: int
    """Draws from the policy."""
    verifications: int
    seconds: float
    policy: str
    verifier: str
    style: str


class FailedSearch(SearchRow):
    """A problem on which the model or the sandbox failed; tried again when the same command is run again."""

    error: str


SearchOutput = SearchResult | FailedSearch
_OUTPUT: TypeAdapter[SearchOutput] = TypeAdapter(SearchOutput)


def parse_search_row(line: str | bytes) -> SearchOutput:
    """Read one line of a search's output.

    Raises:
        pydantic.ValidationError: it is none.
    """
    return _OUTPUT.validate_json(line)
