"""Records are frozen, versioned and lossless to and from JSON."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from genprm.aggregate import combine_chains, combine_votes
from genprm.records import (
    FailedRow,
    Segment,
    SegmentKind,
    Solution,
    StepVote,
    StopReason,
    Usage,
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
votes = st.builds(
    StepVote, score=score, segments=st.lists(segments, max_size=3).map(tuple), stop_reason=st.sampled_from(StopReason)
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


@st.composite
def verifications(draw: st.DrawFn) -> Verification:
    solution = draw(solutions)
    size = len(solution.steps)
    chains = draw(st.lists(st.lists(votes, min_size=size, max_size=size), min_size=1, max_size=3))
    return combine_chains(solution, chains, draw(usages), "model", "genprm")


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
    scores = [step.score for step in row.steps]
    assert row.unscored == scores.count(None)
    assert (row.score is None) == (row.unscored > 0)
    for step in row.steps:
        assert (step.score is None) == (step.verdict is None)
        assert step.verdict is None or (step.score < 0.5) == (step.verdict.value == "incorrect")
    wrong = [step.index for step in row.steps if step.score is not None and step.score < 0.5]
    assert row.first_error == (wrong[0] if wrong else -1)


@given(st.lists(votes, min_size=1, max_size=5))
def test_unscored_votes_do_not_move_the_mean(ballots: list[StepVote]):
    scored = [vote for vote in ballots if vote.score is not None]
    combined = combine_votes(0, ballots)
    if scored:
        assert combined.score == combine_votes(0, scored).score
    else:
        assert combined.score is None


def test_three_judgements_of_which_one_is_unparsed():
    ballots = [StepVote(score=value, stop_reason=StopReason.JUDGED) for value in (1.0, None, 0.4)]
    assert combine_votes(0, ballots).score == pytest.approx(0.7)


def test_the_rationale_shown_agrees_with_the_verdict():
    said = [
        StepVote(
            score=value, segments=(Segment(kind=SegmentKind.ANALYSIS, text=str(value)),), stop_reason=StopReason.JUDGED
        )
        for value in (0.9, 0.1, 0.2)
    ]
    assert combine_votes(0, said).segments[0].text == "0.1"


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
    assert Solution.model_validate({"id": 7, "problem": "p", "steps": ["s"], "generator": "x"}).id == "7"
    with pytest.raises(ValidationError):
        Segment.model_validate({"kind": "code", "text": "", "unknown": 1})
