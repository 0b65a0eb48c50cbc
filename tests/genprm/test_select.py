"""Which candidate is chosen, and that what is not known never decides."""

from __future__ import annotations

from math import fsum

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genprm.aggregate import ChainVotes, combine_chains
from genprm.records import ParseStatus, Solution, StepVote, StopReason, Usage, Verification
from genprm.search.select import Candidate, Reduce, Rule, answer_key, choose, reduce_scores, verification_score

candidates = st.lists(
    st.builds(Candidate, st.sampled_from(["1", "1.0", "2", "x", None]), st.none() | st.floats(0, 1)), max_size=12
)


def verification(*scores: float | None, whole: float | None = None, stop: bool = False) -> Verification:
    parse = {True: ParseStatus.OK, False: ParseStatus.EMPTY}
    votes = [StepVote(score=each, stop_reason=StopReason.JUDGED, parse=parse[each is not None]) for each in scores]
    said = None if whole is None else StepVote(score=whole, stop_reason=StopReason.JUDGED)
    solution = Solution(id="a", problem="p", steps=("s",) * len(scores))
    return combine_chains(solution, [ChainVotes(tuple(votes), Usage(), said)], "m", "s", stop_at_first_error=stop)


@pytest.mark.parametrize(
    ("how", "expected"), [(Reduce.LAST, 0.8), (Reduce.MEAN, 0.6), (Reduce.MIN, 0.4), (Reduce.PRODUCT, 0.192)]
)
def test_reductions_by_hand(how: Reduce, expected: float):
    assert reduce_scores([0.6, 0.4, 0.8], how) == pytest.approx(expected)
    assert reduce_scores([0.6, None, 0.8], how) is None
    assert reduce_scores([], how) is None


def test_a_verified_solution():
    row = verification(0.9, 0.2, 0.7)
    assert [verification_score(row, how) for how in Reduce] == pytest.approx([0.7, 0.6, 0.2, 0.126])
    stopped = verification(0.9, 0.2, 0.7, stop=True)
    assert [verification_score(stopped, how) for how in Reduce] == pytest.approx([0.2, 0.55, 0.2, 0.18])
    assert verification_score(verification(0.9, None), Reduce.MIN) is None


def test_the_verdict_on_the_whole_is_the_last_word_only():
    row = verification(0.9, 0.4, whole=0.3)
    assert [verification_score(row, how) for how in Reduce] == pytest.approx([0.3, 0.65, 0.4, 0.36])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1,200", "$1200$"),
        ("0.5", "\\frac{1}{2}"),
        ("3.0", "3"),
        (" x + 1 ", "x+1"),
        ("$x+1$.", "x+1"),
        ("-2/4", "-0.5"),
        ("106", "106^\\circ"),
        ("90^{\\circ}", "90"),
        ("12", "12 \\, \\text{cm}"),
        ("18", "18 dollars"),
        ("\\dfrac{x}{2}", "\\frac{x}{2}"),
        ("\\left(1, 2\\right)", "(1,2)"),
        ("\\dfrac x2", "\\frac x2"),
        ("\\tfrac34", "0.75"),
        ("\\sqrt{\\frac12}", "\\sqrt{\\frac{1}{2}}"),
    ],
)
def test_equal_answers(one: str, other: str):
    assert answer_key(one) == answer_key(other)


@pytest.mark.parametrize(
    ("one", "other"), [("1", "-1"), ("x", "y"), ("1", "x"), ("X", "x"), (".5x", "5x"), ("1", None)]
)
def test_different_answers(one: str, other: str | None):
    assert answer_key(one) != answer_key(other)


def pick(rule: Rule, *pairs: tuple[str | None, float | None]) -> int | None:
    return choose([Candidate(*pair) for pair in pairs], rule)


@pytest.mark.parametrize(
    ("rule", "pairs", "expected"),
    [
        (Rule.BEST, [("1", 0.2), ("2", 0.9), ("1", 0.8)], 1),
        (Rule.BEST, [("1", 0.2), ("2", 0.9), ("3", 0.9)], 1),
        (Rule.BEST, [("1", 0.2), (None, 0.9), ("3", 0.8)], 2),
        (Rule.BEST, [(None, 0.2), (None, 0.9), ("3", None)], 1),
        (Rule.BEST, [("1", None), ("2", 0.0)], 1),
        (Rule.BEST, [(None, 0.9), ("2", 0.5)], 1),
        (Rule.BEST, [("1", None)], None),
        (Rule.BEST, [], None),
        (Rule.WEIGHTED, [("1", 0.6), ("2", 0.9), ("1.0", 0.7)], 2),
        (Rule.WEIGHTED, [("1", None), ("1", None), ("2", 0.1)], 2),
        (Rule.WEIGHTED, [("1", None), ("1", 0.0)], 1),
        (Rule.WEIGHTED, [(None, 0.9), (None, 0.9), ("2", 0.5)], 2),
        (Rule.WEIGHTED, [("1", 0.5), ("2", 0.5)], 0),
        (Rule.WEIGHTED, [("1", None), ("2", None)], None),
        (Rule.WEIGHTED, [(None, 0.9)], None),
        (Rule.MAJORITY, [("1", 0.9), ("2", 0.1), ("2.0", 0.2)], 2),
        (Rule.MAJORITY, [("1", 0.3), ("2", 0.4)], 1),
        (Rule.MAJORITY, [("1", None), ("2", None), ("2", None)], 1),
        (Rule.MAJORITY, [("1", None), ("2", None)], 0),
        (Rule.MAJORITY, [("1", None), ("1", 0.0)], 1),
        (Rule.MAJORITY, [(None, 0.9), (None, 0.9), ("2", None)], 2),
        (Rule.MAJORITY, [(None, 0.9)], None),
    ],
)
def test_choices_by_hand(rule: Rule, pairs: list[tuple[str | None, float | None]], expected: int | None):
    assert pick(rule, *pairs) == expected


@settings(deadline=None)
@given(candidates)
def test_the_best_has_the_highest_score(pool: list[Candidate]):
    scored = [each for each in pool if each.score is not None]
    answered = [each for each in scored if each.answer is not None]
    known = [each.score for each in answered or scored]
    chosen = choose(pool, Rule.BEST)
    assert (chosen is None) == (not known)
    assert chosen is None or pool[chosen].score == max(known)


@settings(deadline=None)
@given(candidates, st.sampled_from([Rule.WEIGHTED, Rule.MAJORITY]))
def test_no_other_answer_has_more_votes(pool: list[Candidate], rule: Rule):
    votes: dict[object, float] = {}
    for each in pool:
        if each.answer is not None and (rule is Rule.MAJORITY or each.score is not None):
            votes[answer_key(each.answer)] = votes.get(answer_key(each.answer), 0) + (
                1 if rule is Rule.MAJORITY else each.score
            )
    chosen = choose(pool, rule)
    assert (chosen is None) == (not votes)
    assert chosen is None or votes[answer_key(pool[chosen].answer)] == pytest.approx(max(votes.values()))


@settings(deadline=None)
@given(candidates, st.sampled_from(["1", "x", "new", None]), st.sampled_from([Rule.BEST, Rule.WEIGHTED]))
def test_a_candidate_that_is_not_scored_changes_nothing(pool: list[Candidate], answer: str | None, rule: Rule):
    before = choose(pool, rule)
    assert choose([*pool, Candidate(answer, None)], rule) == before
    assert choose([Candidate(answer, None), *pool], rule) == (None if before is None else before + 1)


@settings(deadline=None)
@given(candidates, st.sampled_from(Rule), st.randoms())
def test_the_order_changes_nothing_but_ties(pool: list[Candidate], rule: Rule, draw):
    shuffled = draw.sample(pool, len(pool))
    before, after = choose(pool, rule), choose(shuffled, rule)
    assert (before is None) == (after is None)
    if before is not None and after is not None and rule is not Rule.MAJORITY:
        assert _weight(pool, before, rule) == _weight(shuffled, after, rule)


def _weight(pool: list[Candidate], index: int, rule: Rule) -> float:
    if rule is Rule.BEST:
        return pool[index].score
    key = answer_key(pool[index].answer)
    return fsum(each.score for each in pool if each.score is not None and answer_key(each.answer) == key)


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_reductions_lie_where_they_must(scores: list[float]):
    reduced = {how: reduce_scores(scores, how) for how in Reduce}
    assert reduced[Reduce.MIN] == min(scores)
    assert reduced[Reduce.PRODUCT] <= reduced[Reduce.MIN] <= reduced[Reduce.MEAN] + 1e-9
    assert reduced[Reduce.MEAN] <= max(scores) + 1e-9
