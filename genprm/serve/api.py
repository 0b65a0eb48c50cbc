"""What goes over the wire: requests, answers, errors."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, FailFast, Field

from genprm.records import MAX_STEPS, Solution, Text
from genprm.votes import VotePlan

MAX_ROWS = 10_000
"""Most rows of a request, whatever room there is: they are read before that is known."""
MAX_VOTES = 16
"""Most votes that a request may ask for."""
EXAMPLE: dict[str, Any] = {
    "id": "pens",
    "problem": "A box holds 6 red and 7 blue pens. Ann adds 4 pens. How many pens are in the box?",
    "steps": ["At first there are 6 + 7 = 13 pens.", "Then there are 13 + 4 = 17 pens. The answer is 17."],
}


def _is_votes(value: Any) -> Any:
    # By itself, so that the message names the field, and not the members of a union.
    if value != "auto" and (isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_VOTES):
        raise ValueError(f'expected a number from 1 to {MAX_VOTES}, or "auto"')
    return value


Votes = Annotated[Annotated[int, Field(ge=1, le=MAX_VOTES)] | Literal["auto"], BeforeValidator(_is_votes)]


class Wanted(BaseModel):
    """How a request wants its rows to be verified."""

    votes: Votes | None = None
    """Chains per solution; ``auto``: only as many as the outcome needs, by the server's own ``--max-votes`` if it was
    started with ``auto``. Default: what the server was started with."""
    deadline_seconds: float | None = Field(default=None, ge=1, allow_inf_nan=False)
    """Seconds after which the request is given up; the server has a longest one of its own."""
    model: Text | None = None
    """Must be the model that is served, if given."""

    def plan(self, served: VotePlan) -> VotePlan:
        """The votes as the verifier takes them, where the server was started with ``served``."""
        if self.votes is None or (self.votes == "auto" and served.is_adaptive):
            return served
        return VotePlan.adaptive() if self.votes == "auto" else VotePlan.fixed(self.votes)


def _is_not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("is blank")
    return text


Step = Annotated[Text, Field(min_length=1), AfterValidator(_is_not_blank)]


class ScoreRow(Solution):
    """A row, as in a file for ``genprm verify``."""

    id: Text = "solution"
    steps: Annotated[tuple[Step, ...], FailFast()] = Field(min_length=1, max_length=MAX_STEPS)


class VerifyRequest(Wanted, ScoreRow):
    """One row, and how to verify it."""

    model_config = ConfigDict(extra="ignore", json_schema_extra={"examples": [EXAMPLE]})

    stream: bool = False
    """Send everything as it is written, as server-sent events."""


class ScoreRequest(Wanted):
    """Many rows, of which only the scores are wanted."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"rows": [EXAMPLE]}]})

    rows: Annotated[tuple[ScoreRow, ...], FailFast()] = Field(min_length=1, max_length=MAX_ROWS)


class Score(BaseModel):
    """The scores of one row; all None where it failed."""

    id: str
    score: float | None
    """The least of the step scores; None if one of them is unscored."""
    first_error: int | None
    """-1 for none; None where a missing verdict leaves it open."""
    steps: tuple[float | None, ...] | None
    """P(right) of each step; None for one that has no verdict."""
    error: str | None = None
    """Why there are none."""


class ScoreResponse(BaseModel):
    """The scores, in the order of the rows."""

    model: str
    style: str
    results: tuple[Score, ...]


class RewardRequest(BaseModel):
    """OpenRLHF's remote reward protocol."""

    model_config = ConfigDict(
        extra="ignore",
        json_schema_extra={
            "examples": [{"query": ["What is 6 + 7?6 + 7 = 13.\n\nThe answer is 13."], "prompts": ["What is 6 + 7?"]}]
        },
    )

    query: Annotated[tuple[str, ...], FailFast()] = Field(min_length=1, max_length=MAX_ROWS)
    """Prompt and response, one string."""
    prompts: Annotated[tuple[str, ...], FailFast()] = Field(max_length=MAX_ROWS)
    """The prompts alone: what of a query is the response follows from that."""
    labels: Any = None


class RewardResponse(BaseModel):
    """OpenRLHF's answer: one reward per query."""

    rewards: tuple[float, ...]
    scores: tuple[float, ...]
    """The same: for filtering by reward."""
    extra_logs: dict[str, tuple[float, ...]]


class Health(BaseModel):
    """Whether requests are answered, and by what."""

    status: Literal["ok", "unavailable"]
    model: str
    style: str
    reason: str | None = None


class Fault(BaseModel):
    """What is wrong."""

    type: str
    message: str
    field: str | None = None
    """The part of the request that is wrong."""


class ErrorResponse(BaseModel):
    """Every answer that is none."""

    error: Fault
    request_id: str | None = None
