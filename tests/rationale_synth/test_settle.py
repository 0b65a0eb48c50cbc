"""When rollouts stop: never before the label is as sure as was asked, and never later than K."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genprm.errors import ModelError
from rationale_synth.labels import Rule, RuleName, label_steps
from rationale_synth.settle import Settling, Tally, chance_settled, chance_zero, next_wave, open_prefixes

RULES = st.sampled_from(list(RuleName)).map(lambda name: Rule(name=name))


def tally(right: int, drawn: int, planned: int = 16) -> Tally:
    return Tally(right=right, drawn=drawn, planned=planned)


def sample(rule: Rule, settling: Settling | None, values: list[float], planned: int, seed: int) -> list[Tally]:
    """Draw from prefixes with these true values, the last of which is known, until the labels are settled."""
    draws = [
        [random.Random(f"{seed}/{place}/{n}").random() < v for n in range(planned)] for place, v in enumerate(values)
    ]
    tallies = [Tally.known(8, 16), *(tally(0, 0, planned) for _ in values[:-1]), Tally.known(int(values[-1]), 1)]
    waves = 0
    while wave := next_wave(rule, settling, tallies):
        waves += 1
        assert waves <= planned * len(values), "it does not end"
        for place, count in wave.items():
            assert 0 < count <= planned - tallies[place].drawn
            drawn = tallies[place].drawn + count
            tallies[place] = tally(sum(draws[place - 1][:drawn]), drawn, planned)
    return tallies


@given(RULES, st.lists(st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]), min_size=1, max_size=5), st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_certainty_gives_the_labels_of_the_full_k(rule: Rule, values: list[float], seed: int):
    """At confidence 1 only what cannot change any more is left out."""
    values = [*values, 1.0]
    sure = Settling(confidence=1, zero_confidence=1)
    full = [t.value for t in sample(rule, None, values, 12, seed)]
    early = [t.value for t in sample(rule, sure, values, 12, seed)]
    if not rule.soft:
        assert label_steps(rule, early) == label_steps(rule, full)


@given(RULES, st.lists(st.floats(0, 1), min_size=1, max_size=5), st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_every_label_is_as_settled_as_was_asked(rule: Rule, values: list[float], seed: int):
    settling = Settling.of(rule)
    tallies = sample(rule, settling, [*values, 0.0], 32, seed)
    for place in range(1, len(tallies)):
        before, after = tallies[place - 1], tallies[place]
        if rule.absorbing and place > 1 and before.right == 0:
            break
        alive = any(t.right for t in tallies[place + 1 :])
        chance = chance_settled(rule, before, after, settling.tolerance, alive=alive)
        assert chance >= settling.confidence or (before.complete and after.complete)


def test_clear_labels_take_few_rollouts_and_close_ones_take_all():
    clear = sample(Rule(), Settling(), [0.5, 0.5, 0.0, 0.0, 0.0], 64, 1)
    assert clear[3].drawn < 40  # a value of 0 takes a while to believe
    assert clear[4].drawn <= 4  # and what lies behind it is not asked
    hard = sample(Rule(name=RuleName.HARD), Settling(), [0.9, 0.9, 0.9, 1.0], 64, 1)
    assert all(t.drawn <= 4 for t in hard[1:-1])


def test_a_rule_that_does_not_compare_asks_for_no_more_of_the_prefix_before():
    tallies = [Tally.known(1, 2), Tally(right=4, drawn=4, planned=16), Tally(right=0, drawn=1, planned=16)]
    tallies.append(Tally.known(0, 1))
    for name, expected in ((RuleName.HARD, {2}), (RuleName.RPE, {1, 2})):
        assert open_prefixes(Rule(name=name), Settling(zero_confidence=0.99), tallies) == expected


def test_what_could_not_be_compared_is_neither_right_nor_wrong():
    tally = Tally(right=1, drawn=3, planned=8).with_more((1, 2), 4)
    assert tally == Tally(right=2, drawn=5, planned=6)
    with pytest.raises(ModelError, match="no completion of a prefix"):
        Tally(right=0, drawn=0, planned=4).with_more((0, 0), 4)


def test_fixed_k_draws_all_of_them_up_to_a_zero():
    tallies = sample(Rule(), None, [0.5, 0.0, 0.5, 0.5, 0.0], 16, 3)
    assert [t.drawn for t in tallies[1:-1]] == [16, 16, 0, 0]
    tallies = sample(Rule(name=RuleName.ABS_Q), None, [0.5, 0.0, 0.5, 0.5, 0.0], 16, 3)
    assert [t.drawn for t in tallies[1:-1]] == [16] * 4


@given(st.integers(0, 16), st.integers(0, 16))
def test_chances_are_chances(right: int, drawn: int):
    right = min(right, drawn)
    chance = chance_settled(Rule(), Tally.known(8, 16), tally(right, drawn), 0.125)
    assert -1e-9 <= chance <= 1 + 1e-9
    assert (chance_zero(tally(right, drawn)) > 0) is (right == 0)


def test_a_zero_is_believed_the_longer_it_lasts_unless_a_longer_prefix_lives():
    chances = [chance_zero(tally(0, drawn, 64)) for drawn in (4, 8, 16, 32, 64)]
    assert chances == sorted(chances)
    assert chances[-1] == pytest.approx(1)
    assert chance_zero(tally(0, 16, 64), alive=True) < 0.5 < chances[2]


def test_the_stated_chance_is_the_observed_one():
    """Draw values from the prior itself: labels stopped at a chance of 0.9 to 1 hold at least that often."""
    rule = Rule(name=RuleName.REL_RATIO)
    chance = random.Random(5)
    held = total = 0
    for seed in range(300):
        kind = chance.random()
        value = 0.0 if kind < 0.3 else 1.0 if kind < 0.4 else chance.random()
        values = [value, value if chance.random() < 0.5 else chance.random(), 1.0]
        early = [t.value for t in sample(rule, Settling(), values, 32, seed)]
        full = [t.value for t in sample(rule, None, values, 32, seed)]
        held += sum(a == b for a, b in zip(label_steps(rule, early), label_steps(rule, full), strict=True))
        total += len(values)
    assert held / total >= 0.9
