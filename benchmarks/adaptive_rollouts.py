"""Adaptive K against fixed K: the same labels, from how many rollouts?

    python benchmarks/adaptive_rollouts.py [--problems N] [--plot FILE]

Policies with known step values (`rationale_synth.simulate`), weak, medium and strong. Both sides see the same rollouts
of each prefix: the fixed K of the paper sees all of them, adaptive K stops when `rationale_synth.settle` says so.
Neither needs rollouts from the whole solution.

Reported for each rule: the share of labels on which both agree (soft labels: within the tolerance), and of solutions in
which both name the same first error; the share of the rollouts of K from every prefix, and of those that are left when
a fixed K, too, skips what lies behind a 0; how often each side agrees with the labels, and the first errors, by the
true values; the mean error of the MC values, which is the bias that stopping early causes. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from rationale_synth.labels import Rule, RuleName, first_error, label_steps, soft_labels
from rationale_synth.rollout import rollouts_by_pass_rate
from rationale_synth.settle import Settling, Tally, next_wave
from rationale_synth.simulate import Course, SimulatedPolicy, Strength

SAMPLES = 16
CONFIDENCES = (0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98)


@dataclass
class Figures:
    """What a comparison has counted."""

    labels: int = 0
    agree: int = 0
    solutions: int = 0
    same_first: int = 0
    """Solutions with the same first error, or none, by both; and by each side and the true values:"""
    first_adaptive: int = 0
    first_fixed: int = 0
    true_adaptive: int = 0
    true_fixed: int = 0
    drawn: int = 0
    drawn_fixed: int = 0
    """K from every prefix."""
    drawn_skipping: int = 0
    """K from every prefix up to the first value of 0, if the rule absorbs."""
    errors: list[tuple[float, float, float]] = field(default_factory=list)
    """(true value, error of adaptive K, error of fixed K) of every sampled prefix."""

    @property
    def agreement(self) -> float:
        return self.agree / self.labels

    @property
    def share(self) -> float:
        return self.drawn / self.drawn_fixed

    def __add__(self, other: Figures) -> Figures:
        return Figures(*(getattr(self, one.name) + getattr(other, one.name) for one in fields(self)))


def solutions(strength: Strength, problems: int) -> Iterator[tuple[int, list[float]]]:
    """(pass rate of 16 samples, true values of the prefixes) of one right and one wrong solution per problem."""
    policy = SimulatedPolicy(lambda _: None, strength)
    for number in range(problems):
        course = policy.course(f"problem {number}")
        chance = random.Random(number)
        walks = [walk(course, chance) for _ in range(SAMPLES)]
        right = sum(values[-1] == 1 for values in walks)
        for kind in (1.0, 0.0):
            chosen = next((values for values in walks if values[-1] == kind), None)
            if 0 < right < SAMPLES and chosen is not None:
                yield right, chosen


def walk(course: Course, chance: random.Random) -> list[float]:
    """The true values along one solution."""
    on_track, values = True, [course.on_track[0]]
    for step, keep in enumerate(course.keeps, 1):
        on_track = chance.random() < (keep if on_track else course.recovers)
        values.append((course.on_track if on_track else course.off_track)[step])
    return values


def estimate(
    rule: Rule, settling: Settling | None, right: int, draws: list[np.ndarray], planned: int, correct: bool
) -> tuple[list[float | None], int]:
    """The MC values of a solution, and how many rollouts they took."""
    tallies = [Tally.known(right, SAMPLES), *(Tally(right=0, drawn=0, planned=planned) for _ in draws)]
    tallies.append(Tally.known(int(correct), 1))
    while wave := next_wave(rule, settling, tallies):
        for steps, count in wave.items():
            drawn = tallies[steps].drawn + count
            tallies[steps] = Tally(right=int(draws[steps - 1][:drawn].sum()), drawn=drawn, planned=planned)
    return [tally.value for tally in tallies], sum(tally.drawn for tally in tallies[1:-1])


def compare(rule: Rule, settling: Settling, strength: Strength, problems: int) -> Figures:
    """Adaptive against fixed K for one rule and one policy."""
    figures = Figures()
    random_draws = np.random.default_rng(7)
    for right, true in solutions(strength, problems):
        planned = rollouts_by_pass_rate(right / SAMPLES)
        draws = [random_draws.random(planned) < value for value in true[1:-1]]
        correct = true[-1] == 1
        adaptive, drawn = estimate(rule, settling, right, draws, planned, correct)
        fixed, drawn_skipping = estimate(rule, None, right, draws, planned, correct)
        figures.drawn += drawn
        figures.drawn_fixed += planned * len(draws)
        figures.drawn_skipping += drawn_skipping
        ours_first, their_first, true_first = (
            first_error(label_steps(rule, values)) for values in (adaptive, fixed, true)
        )
        figures.solutions += 1
        figures.same_first += ours_first == their_first
        figures.first_adaptive += ours_first == true_first
        figures.first_fixed += their_first == true_first
        if rule.soft:
            near = [np.abs(np.subtract(soft_labels(a), soft_labels(b))) <= settling.tolerance + 1e-9
                    for a, b in ((adaptive, fixed), (adaptive, true), (fixed, true))]  # fmt: skip
        else:
            ours, theirs, truth = (label_steps(rule, values) for values in (adaptive, fixed, true))
            near = [np.equal(a, b) for a, b in ((ours, theirs), (ours, truth), (theirs, truth))]
        figures.labels += len(true) - 1
        figures.agree += int(near[0].sum())
        figures.true_adaptive += int(near[1].sum())
        figures.true_fixed += int(near[2].sum())
        figures.errors += [
            (t, a - t, f - t)
            for t, a, f in zip(true[1:-1], adaptive[1:-1], fixed[1:-1], strict=True)
            if a is not None and f is not None
        ]
    return figures


def bias(figures: Figures) -> dict[str, dict[str, float]]:
    """Mean errors of the MC values, where the true value is low, middling and high."""
    bands = {"0": (0, 1e-9), "0..1/2": (1e-9, 0.5), "1/2..1": (0.5, 1 - 1e-9), "1": (1 - 1e-9, 2)}
    found = {}
    for name, (low, high) in bands.items():
        errors = [(a, f) for t, a, f in figures.errors if low <= t < high]
        if errors:
            adaptive, fixed = np.mean(errors, axis=0)
            found[name] = {"adaptive": round(float(adaptive), 4), "fixed": round(float(fixed), 4)}
    return found


def plot(path: str, curves: dict[str, list[tuple[float, float]]]) -> None:
    """Agreement against the share of rollouts, a curve per rule."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axes = figure.subplots()
    for name, points in curves.items():
        axes.plot([100 * x for x, _ in points], [100 * y for _, y in points], marker=".", label=name)
    axes.axhline(98, color="grey", linewidth=0.8, linestyle=":")
    axes.axvline(100 / 3, color="grey", linewidth=0.8, linestyle=":")
    axes.set_xlabel("rollouts, % of fixed K's")
    axes.set_ylabel("labels as by fixed K, %")
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--problems", type=int, default=400, help="of each policy")
    parser.add_argument("--confidence", type=float, help="instead of each rule's usual one")
    parser.add_argument("--plot", help="also run other confidences, and draw the curves")
    options = parser.parse_args()
    report: dict[str, dict[str, Any]] = {}
    print(f"{'rule':16} {'policy':8} agreement  first error   share  of skipping  true: adaptive  fixed")
    for name in RuleName:
        rule = Rule(name=name)
        settling = Settling(confidence=options.confidence) if options.confidence else Settling.of(rule)
        per_policy = {strength: compare(rule, settling, strength, options.problems) for strength in Strength}
        for strength, one in per_policy.items():
            print(
                f"{name.value:16} {strength.value:8} {one.agreement:9.4f} {one.same_first / one.solutions:12.4f} "
                f"{one.share:7.3f} {one.drawn / one.drawn_skipping:12.3f} {one.true_adaptive / one.labels:15.4f} "
                f"{one.true_fixed / one.labels:6.4f}", flush=True,
            )  # fmt: skip
        whole = sum(per_policy.values(), Figures())
        report[name.value] = {
            "confidence": settling.confidence,
            "agreement": round(whole.agreement, 4), "first_error": round(whole.same_first / whole.solutions, 4),
            "first_error_true": {
                "adaptive": round(whole.first_adaptive / whole.solutions, 4),
                "fixed": round(whole.first_fixed / whole.solutions, 4),
            },
            "rollout_share": round(whole.share, 4),
            "share_of_skipping": round(whole.drawn / whole.drawn_skipping, 4), "bias": bias(whole),
        }  # fmt: skip
    if options.plot:
        plot(options.plot, {name.value: curve(Rule(name=name), options.problems // 2) for name in RuleName})
    print(json.dumps({
        "agreement": min(one["agreement"] for one in report.values()),
        "rollout_share": max(one["rollout_share"] for one in report.values()),
        "problems": options.problems, "rules": report,
    }))  # fmt: skip


def curve(rule: Rule, problems: int) -> list[tuple[float, float]]:
    """(share of rollouts, agreement) at one confidence after the other, over all policies."""
    points = []
    for confidence in CONFIDENCES:
        settling = Settling(confidence=confidence)
        whole = sum((compare(rule, settling, strength, problems) for strength in Strength), Figures())
        points.append((whole.share, whole.agreement))
    return points


if __name__ == "__main__":
    main()
