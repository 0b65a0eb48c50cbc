"""What a verifier has to beat, and what needs no model: a checker of equations, and the best coin.

    python -m experiments.floors FILE...

The checker recomputes every ``a op b ... = c`` of a step, and names the first step in which one is over 2 % off.
The coin calls each step wrong with one probability, the best one for the file's own labels: a verifier below it knows
nothing that the statistics of the labels do not know.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

from genprm.evaluation import Outcome, evaluate
from genprm.records import NO_ERROR, Solution
from genprm.rows import iterate_solutions
from rationale_synth.worked import evaluate as evaluate_expression

TOLERANCE = 0.02
_SIGN = r"(?:\\times|\\cdot|\\div|[-+*/×÷–])"
_TERM = r"\(*\s*-?\$?\d[\d,]*(?:\.\d+)?(?:\s*\))*"
_RESULT = rf"\$?(-?\d[\d,]*(?:\.\d+)?)(?!\s*(?:[\w\^%(.,/]*\d|[a-z](?![a-z])|{_SIGN}))"
_EQUATION = re.compile(rf"({_TERM}(?:\s*{_SIGN}\s*{_TERM})+)\s*=\s*{_RESULT}")
_IN_MORE = re.compile(rf"(?:[\d.^]|[\w)}}%]\s*{_SIGN}\s*)[$(]*$")
"""What stands before numbers that are not the whole of a computation."""
_PYTHON = {"\\times": "*", "\\cdot": "*", "×": "*", "\\div": "/", "÷": "/", "–": "-", "$": "", ",": ""}


def main() -> None:
    """Measure both on files with labels."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+")
    files = parser.parse_args().files
    solutions = {Path(file).stem: list(iterate_solutions(file)) for file in files}
    result = evaluate({name: [_outcome(one) for one in rows] for name, rows in solutions.items()})
    for name, subset in result.subsets.items():
        f1, rate = best_coin(solutions[name])
        print(
            f"{name}: checker F1 {subset.f1:.1f} {subset.f1_interval} (error {subset.error_accuracy:.1f}, correct "
            f"{subset.correct_accuracy:.1f}); best coin F1 {f1:.1f}, at {rate:.2f} a step"
        )
    coins = {name: round(best_coin(rows)[0], 1) for name, rows in solutions.items()}
    checkers = {name: round(subset.f1 or 0, 1) for name, subset in result.subsets.items()}
    print(json.dumps({"equation_checker": checkers, "best_coin": coins}))


def first_false_equation(steps: tuple[str, ...]) -> int:
    """The first step with an equation that does not hold, -1 for none."""
    return next((index for index, step in enumerate(steps) if not all(map(_holds, _EQUATION.finditer(step)))), NO_ERROR)


def _holds(equation: re.Match[str]) -> bool:
    work, stated = (_python(text) for text in equation.groups())
    value = None if _IN_MORE.search(equation.string[: equation.start()]) else evaluate_expression(work, ())
    if value is None:
        return True  # nothing is known of it
    return abs(float(value) - float(stated)) <= TOLERANCE * max(abs(float(value)), abs(float(stated)))


def _python(text: str) -> str:
    for sign, written in _PYTHON.items():
        text = text.replace(sign, written)
    return text.strip()


def best_coin(solutions: list[Solution]) -> tuple[float, float]:
    """The F1 that is expected of calling each step wrong with the best probability, and that probability."""

    def f1(rate: float) -> float:
        wrong = [rate * (1 - rate) ** one.label for one in solutions if one.label not in (None, NO_ERROR)]
        right = [(1 - rate) ** len(one.steps) for one in solutions if one.label == NO_ERROR]
        error, correct = sum(wrong) / max(1, len(wrong)), sum(right) / max(1, len(right))
        return 200 * error * correct / (error + correct) if error + correct else 0.0

    return max((f1(rate / 100), rate / 100) for rate in range(1, 100))


def _outcome(solution: Solution) -> Outcome:
    assert solution.label is not None
    return Outcome(solution.label, first_false_equation(solution.steps), 0, 0.0, None)


if __name__ == "__main__":
    main()
