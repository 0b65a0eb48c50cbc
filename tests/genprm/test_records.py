"""Records are frozen, versioned and lossless to and from JSON."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from genprm.aggregate import Aggregate, ChainVotes, combine_chains, combine_votes
from genprm.records import (
    FailedRow,
    ParseStatus,
    Segment,
    SegmentKind,
    Solution,
    StepVote,
    StopReason,
    Usage,
    Verdict,
    Verification,
    parse_row,
)
from sandbox import RunError, RunResult, RunStatus

text = st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)
score = st.none() | st.floats(0, 1)
runs = st.builds(
    RunResult,
    status=st.sampled_from(RunStatus),
    stdout=text,
    stderr=text,
    result=st.none() | text,
    error=st.none() | st.builds(RunError, name=text, value=text, traceback=text),
    duration=st.floats(0, 1e6),
    truncated=st.booleans(),
    state_lost=st.booleans(),
)
segments = st.builds(Segment, kind=st.sampled_from(SegmentKind), text=text, run=st.none() | runs)
FAILURES = [status for status in ParseStatus if status is not ParseStatus.OK]


@st.composite
def votes(draw: st.DrawFn) -> StepVote:
    value = draw(score)
    return StepVote(
        score=value,
        segments=tuple(draw(st.lists(segments, max_size=3))),
        stop_reason=draw(st.sampled_from([reason for reason in StopReason if reason is not StopReason.GIVEN])),
        parse=draw(st.sampled_from(FAILURES)) if value is None else ParseStatus.OK,
    )


usages = st.builds(Usage, prompt_tokens=st.integers(0), completion_tokens=st.integers(0), seconds=st.floats(0, 1e6))
solutions = st.builds(
    Solution,
    id=text,
    problem=text.filter(bool),
    steps=st.lists(text, min_size=1, max_size=4).map(tuple),
    label=st.none() | st.integers(-1, 3),
    answer=st.none() | text,
)

GIVEN = StepVote(score=None, stop_reason=StopReason.GIVEN, parse=ParseStatus.NOT_ASKED)


@st.composite
def verifications(draw: st.DrawFn) -> Verification:
    solution = draw(solutions)
    size = len(solution.steps)
    known = draw(st.integers(0, size - 1))
    chains = [
        ChainVotes(
            (*[GIVEN] * known, *draw(st.lists(votes(), min_size=size - known, max_size=size - known))),
            draw(usages),
            draw(st.none() | votes()),
        )
        for _ in range(draw(st.integers(1, 3)))
    ]
    how = {"aggregate": draw(st.sampled_from(Aggregate)), "stop_at_first_error": draw(st.booleans())}
    return combine_chains(solution, chains, "model", "genprm", **how)


@settings(max_examples=60, deadline=None)
@given(verifications())
def test_verification_survives_json(row: Verification):
    line = row.model_dump_json()
    assert parse_row(line) == row
    assert parse_row(line).model_dump_json() == line
    assert json.loads(line)["schema_version"] == 1


@given(solutions)
def test_solution_and_failed_row_survive_json(solution: Solution):
    assert Solution.model_validate_json(solution.model_dump_json()) == solution
    failed = FailedRow(id=solution.id, problem=solution.problem, solution=solution.steps, error="why")
    assert parse_row(failed.model_dump_json()) == failed


@settings(max_examples=100, deadline=None)
@given(verifications())
def test_what_a_verification_says_of_itself_is_consistent(row: Verification):
    behind = [step.index > row.first_error != -1 and step.stop_reason is StopReason.AFTER_ERROR for step in row.steps]
    left_out = [after or step.stop_reason is StopReason.GIVEN for step, after in zip(row.steps, behind, strict=True)]
    asked = [step.score for step, out in zip(row.steps, left_out, strict=True) if not out or step.score is not None]
    assert row.unscored == asked.count(None)
    if row.whole is None:
        assert (row.score is None) == (row.unscored > 0)
    else:
        assert row.score == row.whole.score
    for step in row.steps:
        assert (step.score is None) == (step.verdict is None)
    wrong = [step.index for step in row.steps if step.verdict is Verdict.INCORRECT]
    assert row.first_error == (wrong[0] if wrong else -1)


@given(st.lists(votes(), min_size=1, max_size=5))
def test_unscored_votes_do_not_move_the_mean(ballots: list[StepVote]):
    scored = [vote for vote in ballots if vote.score is not None]
    combined = combine_votes(0, ballots)
    if scored:
        assert combined.score == combine_votes(0, scored).score
    else:
        assert combined.score is None


def test_three_judgements_of_which_one_is_unparsed():
    nothing = StepVote(score=None, stop_reason=StopReason.JUDGED, parse=ParseStatus.NO_VERDICT_TOKEN)
    ballots = [StepVote(score=1.0, stop_reason=StopReason.JUDGED), nothing]
    ballots.append(StepVote(score=0.4, stop_reason=StopReason.JUDGED))
    assert combine_votes(0, ballots).score == pytest.approx(0.7)


def test_the_rationale_shown_agrees_with_the_verdict():
    said = [
        StepVote(
            score=value, segments=(Segment(kind=SegmentKind.ANALYSIS, text=str(value)),), stop_reason=StopReason.JUDGED
        )
        for value in (0.9, 0.1, 0.2)
    ]
    assert combine_votes(0, said).segments[0].text == "0.1"


@pytest.mark.parametrize(("value", "parse"), [(None, ParseStatus.OK), (0.5, ParseStatus.MISSING)])
def test_a_vote_has_a_score_exactly_if_it_could_be_read(value: float | None, parse: ParseStatus):
    with pytest.raises(ValidationError, match="exactly if its parse status is ok"):
        StepVote(score=value, stop_reason=StopReason.JUDGED, parse=parse)


def test_records_are_frozen():
    solution = Solution(id="a", problem="p", steps=("s",))
    with pytest.raises(ValidationError):
        solution.id = "b"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"problem": ""}, "at least 1 character"),
        ({"steps": []}, "at least 1 item"),
        ({"steps": ["a", 3]}, "valid string"),
        ({"steps": "abc"}, "valid tuple"),
        ({"steps": ["a\0"]}, "NUL"),
        ({"problem": "\ud800"}, "unicode string"),
        ({"label": -2}, "greater than or equal to -1"),
        ({"label": "x"}, "valid integer"),
    ],
)
def test_wrong_solutions_are_refused(change: dict[str, object], words: str):
    with pytest.raises(ValidationError, match=words):
        Solution.model_validate({"id": "a", "problem": "p", "steps": ["s"], **change})


def test_fields_we_do_not_know_are_ignored_in_the_input_only():
    assert Solution.model_validate({"id": 7, "problem": "p", "steps": ["s"], "other": "x"}).id == "7"
    with pytest.raises(ValidationError):
        Segment.model_validate({"kind": "code", "text": "", "unknown": 1})
