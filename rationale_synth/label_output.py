"""What a label run has found, by a rule: the rows, the card, the plots."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from genprm.errors import ConfigError
from rationale_synth.label import LabelOptions, labelled_solutions
from rationale_synth.labels import Rule
from rationale_synth.output import card, counts, table, write_rows
from rationale_synth.plots import bars, lines
from rationale_synth.records import Cost, LabelledSolution, Outcome, ProblemRecord, SampledSolution, parse_record
from rationale_synth.run_folder import RunFolder
from rationale_synth.settle import Settling, Tally, chance_settled

ROWS = "labelled"
BINS = 10
"""Parts of a solution, from its first step to its last, by which the plots average."""


class LabelSummary:
    """What a label run amounts to."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.outcomes: Counter[Outcome] = Counter()
        self.cost = Cost()
        self.solutions = 0
        self.steps = 0
        self.wrong_steps = 0
        self.first_errors: Counter[int] = Counter()
        self.planned = 0
        """Rollouts that the fixed K would have drawn from every prefix but the whole solutions."""
        self.settled = 0
        """Steps whose label the full K would most probably confirm."""
        self.uncomparable = 0
        self.unsplittable = 0
        self.cut_off = 0
        self.unanswered = 0
        self.values: dict[bool, list[tuple[float, int]]] = {right: [(0.0, 0)] * BINS for right in (True, False)}
        self.labels: list[tuple[int, int]] = []
        """By step: right ones, all."""

    def add(self, record: ProblemRecord, rows: list[LabelledSolution]) -> None:
        """Count a problem and its labelled solutions."""
        self.outcomes[record.outcome] += 1
        self.cost += record.cost
        self.uncomparable += record.uncomparable
        self.unsplittable += record.unsplittable
        self.cut_off += record.cut_off
        self.unanswered += record.unanswered
        self.planned += record.start.rollouts if record.start else 0
        for solution, row in zip(record.solutions, rows, strict=True):
            self.solutions += 1
            self.steps += len(row.steps)
            self.wrong_steps += sum(label == 0 for label in row.step_labels)
            self.first_errors[row.label] += 1
            self.planned += record.planned * (len(row.steps) - 1)
            self.settled += _settled(record, solution, self.rule)
            self._add_curves(row)

    def _add_curves(self, row: LabelledSolution) -> None:
        for index, (value, label) in enumerate(zip(row.values, row.step_labels, strict=True)):
            place = index * BINS // len(row.steps)
            total, count = self.values[row.correct][place]
            self.values[row.correct][place] = (total + (value or 0.0), count + 1)
            if index == len(self.labels):
                self.labels.append((0, 0))
            right, seen = self.labels[index]
            self.labels[index] = (right + (label > 0), seen + 1)

    @property
    def figures(self) -> list[tuple[str, str]]:
        """The summary as names and figures."""
        problems = sum(self.outcomes.values())
        return [
            ("problems", f"{problems}"),
            *((f"  {outcome.value.replace('_', ' ')}", f"{self.outcomes[outcome]}") for outcome in Outcome),
            ("solutions labelled", f"{self.solutions}"),
            ("  without an error", f"{self.first_errors[-1]}"),
            ("steps labelled", f"{self.steps}"),
            ("  wrong", f"{self.wrong_steps}"),
            ("  settled", share(self.settled, self.steps)),
            ("rollouts", f"{self.cost.rollouts}"),
            ("  of K from all prefixes", share(self.cost.rollouts, self.planned)),
            ("solutions sampled", f"{self.cost.samples}"),
            ("tokens read", f"{self.cost.prompt_tokens}"),
            ("tokens written", f"{self.cost.completion_tokens}"),
            ("answers not comparable", f"{self.uncomparable}"),
            ("samples without steps", f"{self.unsplittable}"),
            ("cut off by --max-tokens", f"{self.cut_off}"),
            ("ended without an answer", f"{self.unanswered}"),
        ]


def share(part: int, whole: int) -> str:
    """A share in percent."""
    return f"{100 * part / whole:.1f} %" if whole else "-"


def write_labels(run: RunFolder, rule: Rule, policy: str) -> LabelSummary:
    """Write a run's labelled solutions by ``rule``, with card and plots. Nothing is sampled for it.

    Raises:
        ConfigError: the rule needs values that the run did not sample.
        OutputError: the files cannot be written.
    """
    summary = LabelSummary(rule)

    def rows() -> Iterator[LabelledSolution]:
        for _, line in run.records():
            record = parse_record(line)
            try:
                labelled = labelled_solutions(record, rule, policy)
            except ValueError as error:
                raise ConfigError(
                    f"{run.path}: its values cannot be labelled by {rule}: {error} (problem {record.problem.id})"
                ) from error
            summary.add(record, labelled)
            yield from labelled

    write_rows(run.path, ROWS, LabelledSolution, rows())
    _write_card(run, summary, policy)
    return summary


def _settled(record: ProblemRecord, solution: SampledSolution, rule: Rule) -> int:
    """How many of a solution's labels all K rollouts would most probably confirm."""
    if record.pass_rate is None:
        return 0
    settling = Settling()
    tallies = [Tally.known(record.bare.right, record.bare.rollouts)]
    for value in solution.values[:-1]:
        planned = max(record.planned, value.rollouts)
        tallies.append(Tally(right=value.right, drawn=value.rollouts, planned=planned))
    tallies.append(Tally.known(int(solution.correct), 1))
    settled = 0
    for index in range(1, len(tallies)):
        before, after = tallies[index - 1], tallies[index]
        if rule.absorbing and before.right == 0 and index > 1:
            return settled + len(tallies) - index  # behind a 0 nothing is left to settle
        alive = any(tally.right for tally in tallies[index + 1 :])
        chance = chance_settled(rule, before, after, settling.tolerance, alive=alive)
        settled += chance >= settling.confidence
    return settled


def _write_card(run: RunFolder, summary: LabelSummary, policy: str) -> None:
    options = LabelOptions.model_validate({key: run.config.options[key] for key in LabelOptions.model_fields})
    plots = run.path / "plots"
    labels = summary.labels
    bars(
        plots / "labels_by_step.png", "step", "steps labelled right, share",
        [f"{index}" for index in range(len(labels))], [right / seen for right, seen in labels],
    )  # fmt: skip
    lines(
        plots / "values_by_step.png", "part of the solution", "mean MC value",
        {
            f"answer {'right' if right else 'wrong'}": [
                ((place + 0.5) / BINS, total / count) for place, (total, count) in enumerate(bins) if count
            ]
            for right, bins in summary.values.items()
        },
    )  # fmt: skip
    first = Counter({("no error" if index < 0 else f"{index}"): n for index, n in summary.first_errors.items()})
    given = [(name, value) for name, value in options.model_dump(mode="json").items() if name != "rule"]
    sections = [
        ("What this is", [
            f"Solutions written by `{policy}`, steps labelled by Monte Carlo values and the rule **{summary.rule}**.",
            f"The rollouts were drawn to settle the rule **{options.rule}**.",
            "A row has the problem, its gold answer, the steps, the first wrong one (`label`, -1 for none), "
            "a label for every step, the values they come from and how many rollouts each value stands on.",
        ]),
        ("Counts", table(("", ""), ((name.strip(), figure) for name, figure in summary.figures))),
        ("First errors", counts("step", first)),
        ("Options", table(("option", "value"), given)),
        ("Plots", ["![labels](plots/labels_by_step.png)", "", "![values](plots/values_by_step.png)"]),
    ]  # fmt: skip
    run.write("README.md", card(f"Step labels by {summary.rule}", f"{ROWS}.parquet", sections))
