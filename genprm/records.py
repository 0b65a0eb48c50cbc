"""The data that flows through the engine: frozen, versioned, lossless to and from JSON.

`Solution` in, `Verification` out. Steps count from 0, as in ProcessBench; -1 stands for "no error".
A step without a verdict has the score None (JSON ``null``), which enters no mean, no vote and no accuracy.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import Enum
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StrictInt,
    TypeAdapter,
    field_validator,
    model_validator,
)

from sandbox import RunResult

SCHEMA_VERSION: Literal[1] = 1
NO_ERROR = -1
"""The index that means "every step is correct"."""
MAX_STEPS = 512
"""More steps than this are refused: no model's context holds their verification."""


def _encodable(text: str) -> str:
    if "\0" in text:
        raise ValueError("contains a NUL character")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError("contains a lone surrogate, which is no character") from None
    return text


Text = Annotated[str, AfterValidator(_encodable)]
S = TypeVar("S")
_NO_CHARACTER = re.compile("[\0\ud800-\udfff]")


def judged_steps(steps: Sequence[S], first_error: int) -> Sequence[S]:
    """Those on which a label, or a verifier, says something: up to the first wrong one, or all."""
    return steps if first_error == NO_ERROR else steps[: first_error + 1]


def as_text(written: str) -> str:
    """``written`` as a `Text`: what is no character is replaced by U+FFFD."""
    return _NO_CHARACTER.sub("\ufffd", written)


class Record(BaseModel):
    """Base of all records."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Problem(Record):
    """A problem whose final answer is known."""

    id: Text
    problem: Text = Field(min_length=1)
    answer: Text = Field(min_length=1)


class Solution(Record):
    """A problem with a step-by-step solution; the input row of `verify` and `eval`.

    Fields that the row has besides these are ignored, so that ProcessBench's files are read as they are.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: Text
    problem: Text = Field(min_length=1)
    steps: tuple[Text, ...] = Field(min_length=1)
    label: StrictInt | None = Field(default=None, ge=NO_ERROR)
    """Gold index of the first wrong step, -1 for none, None if not known."""
    generator: Text | None = None
    """Who wrote the solution, if known."""
    answer: Text | None = None
    """The problem's final answer, if known."""

    @field_validator("id", mode="before")
    @classmethod
    def _id_is_text(cls, value: Any) -> Any:
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


class SegmentKind(str, Enum):
    """The parts of a rationale."""

    ANALYSIS = "analysis"
    """What the model argues, before and after it ran code."""
    CODE = "code"
    """Python that the model wrote to check the step."""
    OUTPUT = "output"
    """What the code printed, as the model was shown it."""
    JUDGEMENT = "judgement"
    """The verdict token as it stands in the transcript."""


class Segment(Record):
    """One part of a rationale, in the order in which it came about."""

    kind: SegmentKind
    text: str
    run: RunResult | None = None
    """For an output: the whole outcome of the code before it."""


class Verdict(str, Enum):
    """What is said of a step."""

    CORRECT = "correct"
    INCORRECT = "incorrect"

    @classmethod
    def of(cls, score: float) -> Verdict:
        """GenPRM, section 3.4: a step is wrong when its reward is under 0.5."""
        return cls.INCORRECT if score < 0.5 else cls.CORRECT


class StopReason(str, Enum):
    """Why a step's rationale ended. The first four come with a verdict, or with a parse status that says why not."""

    JUDGED = "judged"
    """The model opened its judgement by itself."""
    TOKEN_BUDGET = "token_budget"
    """It had written all the tokens it may: the judgement was forced."""
    RUN_BUDGET = "run_budget"
    """It had run all the code it may: the judgement was forced."""
    END_OF_TEXT = "end_of_text"
    """It ended its turn without a judgement: the judgement was forced."""
    AFTER_ERROR = "after_error"
    """The first error had been found before it: nobody asked about this step."""
    SETTLED = "settled"
    """Other votes had settled this step's verdict: this one was not asked for."""
    GIVEN = "given"
    """It was to be taken for right: nobody asked about this step."""
    CONTEXT_FULL = "context_full"
    """The chain had filled the model's context; the steps from here on are unscored."""
    WALL_TIME = "wall_time"
    """The chain had used its wall time; the steps from here on are unscored."""


UNASKED = frozenset({StopReason.AFTER_ERROR, StopReason.SETTLED, StopReason.GIVEN})
"""Those of steps without a verdict that nobody asked about."""


class ParseStatus(str, Enum):
    """How a verdict was read, or why none could be. Only `OK` comes with a score."""

    OK = "ok"
    NO_VERDICT_TOKEN = "no_verdict_token"
    """Neither verdict was among the likeliest tokens where it had to stand."""
    NO_LOGPROBS = "no_logprobs"
    """The backend returned no token probabilities."""
    EMPTY = "empty"
    """The model wrote nothing."""
    TRUNCATED = "truncated"
    """The text was cut off, by the token budget or the context, before this step's verdict."""
    MISSING = "missing"
    """The text ended by itself, without a verdict on this step."""
    UNKNOWN_WORD = "unknown_word"
    """In the place of the verdict stands something else."""
    OUT_OF_RANGE = "out_of_range"
    """The text names a step that does not exist."""
    NOT_ASKED = "not_asked"
    """The chain never came to this step; its stop reason says why."""


class StepVote(Record):
    """One chain's verification of one step, or of the solution as a whole."""

    score: float | None = Field(ge=0, le=1)
    """P(Yes) / (P(Yes) + P(No)) at the judgement token; 1 or 0 where a style reads a word; None without a verdict."""
    segments: tuple[Segment, ...] = ()
    stop_reason: StopReason
    parse: ParseStatus = ParseStatus.OK

    @model_validator(mode="after")
    def _scored_or_not(self) -> StepVote:
        if (self.score is None) == (self.parse is ParseStatus.OK):
            raise ValueError("a vote has a score exactly if its parse status is ok")
        if self.given and self.parse is not ParseStatus.NOT_ASKED:
            raise ValueError("a step that is given was not asked about")
        return self

    @property
    def verdict(self) -> Verdict | None:
        return None if self.score is None else Verdict.of(self.score)

    @property
    def given(self) -> bool:
        """Whether the step was to be taken for right."""
        return self.stop_reason is StopReason.GIVEN

    @property
    def asked(self) -> bool:
        """Whether a verdict was wanted from this vote."""
        return self.score is not None or self.stop_reason not in UNASKED


class StepVerification(Record):
    """All that is known of one step."""

    index: int = Field(ge=0)
    score: float | None = Field(ge=0, le=1)
    """Mean over the votes that have a score (GenPRM, eq. 7); None if none has."""
    verdict: Verdict | None
    segments: tuple[Segment, ...] = ()
    """The rationale of the first vote that says what the verdict says."""
    stop_reason: StopReason
    parse: ParseStatus = ParseStatus.OK
    """How the shown vote's verdict was read."""
    votes: tuple[StepVote, ...] = ()
    """Every vote, where there was more than one."""

    @property
    def asked(self) -> bool:
        """Whether a verdict on this step was wanted."""
        return self.score is not None or self.stop_reason not in UNASKED


class WholeVerification(Record):
    """The verdict on the solution as a whole, of a style that gives one (ThinkPRM, section 3)."""

    score: float | None = Field(ge=0, le=1)
    """Mean over the votes that have one."""
    votes: tuple[StepVote, ...]


class Usage(Record):
    """What a verification cost."""

    prompt_tokens: int = 0
    """Tokens handed to the model, over all calls (what a prefix cache saves is counted too)."""
    completion_tokens: int = 0
    """Tokens the model wrote."""
    model_calls: int = 0
    code_runs: int = 0
    seconds: float = 0.0
    """Wall time at work: of chains side by side the longest; those that were drawn in doubt came one by one."""

    def __add__(self, other: Usage) -> Usage:
        """The sum of two costs; the longer of two wall times, since chains run side by side."""
        return Usage(
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
            model_calls=self.model_calls + other.model_calls,
            code_runs=self.code_runs + other.code_runs,
            seconds=max(self.seconds, other.seconds),
        )

    def then(self, other: Usage) -> Usage:
        """The sum of two costs, one after the other: the wall times add up."""
        return (self + other).model_copy(update={"seconds": round(self.seconds + other.seconds, 3)})


class Row(Record):
    """What every output row has, whatever became of the solution."""

    schema_version: Literal[1] = SCHEMA_VERSION
    id: str
    problem: str
    solution: tuple[str, ...]
    """The steps' texts, so that the row can be read by itself."""
    label: int | None = None
    """Gold first error, if the input had one."""
    generator: str | None = None
    """Who wrote the solution, if the input said so."""


class Verification(Row):
    """The output row: a solution, verified."""

    first_error: int = Field(ge=NO_ERROR)
    """The first step whose verdict is ``incorrect``, -1 for none. Look at `settled` before relying on it."""
    score: float | None = Field(ge=0, le=1)
    """The solution's score: that of the whole where the style gives one, else the least of the scores of all steps
    that were asked about (GenPRM, appendix A.1, "min"); None if one of them is unscored."""
    steps: tuple[StepVerification, ...]
    whole: WholeVerification | None = None
    unscored: int = Field(ge=0)
    """Steps without a verdict that were asked about; those behind the first error need not have been."""
    votes: int = Field(default=1, ge=1)
    """Chains that were drawn."""
    usage: Usage
    model: str
    style: str
    """With ``>`` in it: a cheap style that was not sure, and the one that was asked after it."""

    @property
    def settled(self) -> bool:
        """Whether no step before the first error (or no step at all, if there is none) is unscored."""
        end = len(self.steps) if self.first_error == NO_ERROR else self.first_error
        return all(step.score is not None or step.stop_reason is StopReason.GIVEN for step in self.steps[:end])


class FailedRow(Row):
    """A solution that could not be verified, in its place among the output rows."""

    error: str
    """One line that says why."""


OutputRow = Verification | FailedRow
_output_row: TypeAdapter[OutputRow] = TypeAdapter(OutputRow)


def parse_row(line: str | bytes) -> OutputRow:
    """Read one line of an output file.

    Raises:
        pydantic.ValidationError: it is neither a verification nor a failed row of this schema version.
    """
    return _output_row.validate_json(line)
