"""Best of N on pools small enough to count by hand, and on real ones."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genprm.errors import InputError
from genprm.pools import Pool, PoolCandidate, Scored, measure_pools, read_pools
from genprm.search.select import Reduce, Rule
from tests.conftest import DATA

GOOD = {"id": "a", "problem": "p", "candidates": [{"steps": ["s", "t"], "correct": True}]}


def pool(name: str, *candidates: tuple[str | None, bool, Sequence[float]]) -> Pool:
    """Of (answer, whether it is correct, a PRM's scores)."""
    made = [
        PoolCandidate(steps=("s",) * len(scores), answer=answer, correct=correct, prm_step_scores={"prm": scores})
        for answer, correct, scores in candidates
    ]
    return Pool(id=name, problem="p", candidates=tuple(made))


TWO = [
    pool("a", ("1", True, (0.9, 0.5)), ("2", False, (0.4, 0.9)), ("2", False, (0.6, 0.85)), ("3", False, (0.1, 0.7))),
    pool("b", ("7", True, (0.8,)), ("7", True, (0.2,)), ("8", False, (0.3,)), (None, False, (0.7,))),
]


def find(results: list[Scored], scorer: str, reduce: Reduce | None = None, rule: Rule | None = None) -> Scored:
    [one] = [each for each in results if (each.scorer, each.reduce, each.rule) == (scorer, reduce, rule)]
    return one


def test_by_hand():
    results = measure_pools(TWO, {})
    assert {scored.scorer for scored in results} == {"random", "oracle", "majority", "prm"}
    assert all(list(scored.accuracy) == [1, 2, 4] for scored in results)

    def of_four(*what) -> float:
        return find(results, *what).accuracy[4]

    assert of_four("random") == pytest.approx(100 * (1 / 4 + 2 / 4) / 2)
    assert of_four("oracle") == 100
    assert of_four("majority", None, Rule.MAJORITY) == 50
    best = {how: of_four("prm", how, Rule.BEST) for how in Reduce}
    assert best == dict.fromkeys(Reduce, 50)
    weighted = {how: of_four("prm", how, Rule.WEIGHTED) for how in Reduce}
    assert weighted == dict.fromkeys(Reduce, 50)


@pytest.mark.parametrize("how", [Reduce.LAST, Reduce.MEAN, Reduce.MIN])
def test_each_reduction_is_measured_by_itself(how: Reduce):
    """Each of these candidates is the best by one reduction only, and one of them is right."""
    scores = {Reduce.LAST: (0.1, 0.1, 1), Reduce.MEAN: (0.9, 0.9, 0.3), Reduce.MIN: (0.5, 0.5, 0.5)}
    made = pool("a", *((name.value, name is how, each) for name, each in scores.items()), ("x", False, (0, 0, 0)))
    results = measure_pools([made], {})
    assert [name for name in scores if find(results, "prm", name, Rule.BEST).accuracy[4]] == [how]


def test_one_of_one_is_no_choice():
    at_one = {scored.accuracy[1] for scored in measure_pools(TWO, {}) if scored.scorer != "majority"}
    assert len(at_one) == 1


def test_sizes_are_powers_of_two_that_every_pool_has():
    five = pool("c", *[("1", True, (0.5,))] * 5)
    assert list(measure_pools([five], {})[0].accuracy) == [1, 2, 4]
    three = pool("d", *[("1", False, (0.5,))] * 3)
    for scored in measure_pools([five, three], {}):
        assert scored.accuracy == {1: 50, 2: 50}


def test_candidates_without_a_score():
    ours = [dict.fromkeys(Reduce, score) for score in (0.6, None, None, None, None, None, None, None)]
    results = measure_pools(TWO, {"ours": ours})
    for rule in (Rule.BEST, Rule.WEIGHTED):
        scored = find(results, "ours", Reduce.MIN, rule)
        assert scored.unscored == 7
        assert scored.accuracy[4] == pytest.approx(100 * (1 + 2 / 4) / 2), "nothing known: a blind draw"
    assert find(results, "random").unscored == 0


def test_a_prm_by_the_name_of_a_baseline_gets_no_gift():
    wrong = [dict.fromkeys(Reduce, float(not each.correct)) for one in TWO for each in one.candidates]
    assert find(measure_pools(TWO, {"oracle": wrong}), "oracle", Reduce.MIN, Rule.BEST).accuracy[4] == 0


answers = st.sampled_from(["1", "2", "3", None])
pools = st.lists(
    st.lists(st.tuples(answers, st.booleans(), st.tuples(st.floats(0, 1))), min_size=1, max_size=9), min_size=1,
    max_size=3,
)  # fmt: skip


@settings(deadline=None, max_examples=40)
@given(pools)
def test_nobody_beats_the_oracle_and_draws_are_always_the_same(drawn):
    made = [pool(str(number), *candidates) for number, candidates in enumerate(drawn)]
    results = measure_pools(made, {})
    assert results == measure_pools(made, {})
    oracle = find(results, "oracle").accuracy
    for scored in results:
        assert all(0 <= share <= oracle[size] + 1e-9 for size, share in scored.accuracy.items())
        low, high = scored.interval
        assert 0 <= low <= high <= 100 + 1e-9


def write(path: Path, *rows: object) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_both_names_of_a_field_and_numbers_as_ids(tmp_path: Path):
    other = {"problem_id": 7, "question": "p", "candidates": GOOD["candidates"]}
    found = read_pools(write(tmp_path / "p.jsonl", GOOD, other), None).pools
    assert [(each.id, each.problem) for each in found] == [("a", "p"), ("7", "p")]
    assert [solution.id for solution in found[0].solutions()] == ["a/0"]
    assert len(read_pools(write(tmp_path / "p.jsonl", GOOD, GOOD), 1).pools) == 1


def candidate(**fields: object) -> dict[str, object]:
    return {**GOOD, "candidates": [*GOOD["candidates"], {"steps": ["s", "t"], "correct": False, **fields}]}


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({**GOOD, "candidates": [{"steps": ["s"]}]}, "field candidates[0].correct: missing"),
        ({**GOOD, "candidates": []}, "field candidates: expected at least 1"),
        ({"id": "a", "problem": "p"}, "field candidates: missing"),
        ({"id": "a", "candidates": GOOD["candidates"]}, "field problem: missing"),
        (candidate(steps=[]), "field candidates[1].steps: expected at least 1"),
        (candidate(steps=["s", 3]), "field candidates[1].steps[1]: expected a text"),
        (candidate(correct="perhaps"), "field candidates[1].correct: input should be a valid boolean"),
        (
            candidate(prm_step_scores={"prm": [0.5]}),
            "field candidates[1].prm_step_scores: prm has 1 scores for 2 steps",
        ),
        (candidate(prm_step_scores={"prm": [0.5, None]}), "field candidates[1].prm_step_scores.prm[1]: input should"),
        (candidate(prm_step_scores={"prm": [0.5, float("nan")]}), "field candidates[1].prm_step_scores.prm[1]: input"),
        ("a string", "expected an object with the fields problem and candidates"),
    ],
)
def test_wrong_pools(tmp_path: Path, row: object, words: str):
    path = write(tmp_path / "p.jsonl", GOOD, row)
    with pytest.raises(InputError) as caught:
        read_pools(path, None)
    assert str(caught.value).startswith(f"{path}, line 2")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_pools(tmp_path: Path):
    with pytest.raises(InputError, match="no rows in it"):
        read_pools(write(tmp_path / "p.jsonl"), None)
    with pytest.raises(InputError, match="--limit is 0: expected at least 1"):
        read_pools(write(tmp_path / "p.jsonl", GOOD), 0)


REAL = DATA / "best_of_n_dev" / "math500.jsonl"


@pytest.mark.skipif(not REAL.exists(), reason="no pools here (GENPRM_DATA)")
def test_real_pools_and_a_real_prm():
    """Counted anew, the plain way: Qwen's PRM beats a blind draw and stays under the oracle."""
    found = read_pools(str(REAL), None).pools
    results = measure_pools(found, {})
    assert list(results[0].accuracy) == [1, 2, 4, 8, 16, 32]
    rows = [json.loads(line)["candidates"] for line in REAL.read_text().splitlines()]
    draw = [sum(each["correct"] for each in row) / len(row) for row in rows]
    assert find(results, "random").accuracy[32] == pytest.approx(100 * sum(draw) / len(draw))
    best = [max(row, key=lambda each: min(each["prm_step_scores"]["qwen_prm"]))["correct"] for row in rows]
    by_prm = find(results, "qwen_prm", Reduce.MIN, Rule.BEST).accuracy[32]
    assert by_prm == pytest.approx(100 * sum(best) / len(best))
    assert find(results, "random").accuracy[32] + 5 < by_prm < find(results, "oracle").accuracy[32]


def test_a_scorer_may_be_called_what_we_call_ours():
    plain = measure_pools(TWO, {})
    made = [
        each.model_copy(update={"prm_step_scores": dict.fromkeys(("random", "ours"), each.prm_step_scores["prm"])})
        for pool in TWO
        for each in pool.candidates
    ]
    named = [pool.model_copy(update={"candidates": tuple(made[4 * at : 4 * at + 4])}) for at, pool in enumerate(TWO)]
    found = measure_pools(named, {"ours": [dict.fromkeys(Reduce, None)] * 8})
    expected = find(plain, "prm", Reduce.MIN, Rule.BEST).accuracy
    assert find(found, "random", Reduce.MIN, Rule.BEST).accuracy == expected
    blind, theirs = (each for each in found if (each.scorer, each.reduce, each.rule) == ("ours", Reduce.MIN, Rule.BEST))
    assert (blind.unscored, theirs.unscored, theirs.accuracy) == (8, 0, expected)
