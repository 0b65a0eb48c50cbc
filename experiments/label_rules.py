"""RPE against hard labels: the same rollouts of a policy, labelled by both rules, and a verifier trained on each.

    python -m experiments.label_rules DATA -o RUN --policy MODEL [--problems 150] [--rollouts 16] [--vllm PYTHON]

The policy solves problems of GSM8K's training split that RUN, a folder of `experiments.embedded`, does not train on
(`genprm label`); its rollouts give every step a value, and each rule makes labels of the values: a step is wrong where
no rollout reaches the answer any more (hard), or where the share of those that do falls under 0.8 of what it was (RPE;
GenPRM, 3.2). A discriminative verifier is trained on each, and both are measured on the files of
`experiments.small_scale`. The embedded model solves none of these problems: the policy must be another one.

RUN/label-rules holds the runs, each rule's rows, and README.md, a table. Finished parts are not done again.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from experiments.embedded import begun, decontaminating, keep, keep_text, rows_to_train_on, train, with_recipe
from experiments.manifest import Manifest
from experiments.serving import reached
from experiments.small_scale import Cell, Kind, evaluation_files, measured, tables, verified, with_measuring
from genprm.records import NO_ERROR
from genprm.report import write_text
from rationale_synth.label_output import ROWS
from rationale_synth.labels import RuleName
from rationale_synth.records import LabelledSolution

RULES = (RuleName.RPE, RuleName.HARD)
"""The first is the one that the rollouts are drawn for: it needs more of them."""
SAMPLING = ("--samples", "4", "--max-samples", "8", "--max-tokens", "320")
VERIFYING = ("--style", "discriminative", "--prm-format", "rlhflow")
FIELDS = ("labels", "solutions", "with an error", "steps", "wrong", "same first error as by the first rule")


def main() -> None:
    """Draw rollouts, label, train, measure, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    with_recipe(parser)
    parser.add_argument("--policy", required=True, help="hub id or folder of the model that solves the problems")
    parser.add_argument("--problems", type=int, default=150, help="that it tries")
    parser.add_argument("--rollouts", type=int, default=16, help="K, of each step at most")
    with_measuring(parser)
    chosen, recipe, place, manifest = begun(parser, "label-rules")
    keep({"policy": chosen.policy, "rollouts": chosen.rollouts, "sampling": SAMPLING}, place / "options.json")
    problems = rows_to_train_on(chosen.data, recipe.skip + recipe.gsm8k, chosen.problems)
    keep_text("".join(problems), place / "problems.jsonl")
    found = made(manifest, place, chosen)
    files = evaluation_files(chosen.data, chosen.output)
    cells: list[Cell] = []
    for rule, rows in found.items():
        adapter = place / f"signs-{rule.value}"
        if not (adapter / "README.md").exists():
            train(manifest, "signs", rows, adapter, recipe.base)
        kind = Kind(f"{rule.value} labels", "signs", VERIFYING)
        size, model = len(read_rows(rows)), (recipe.base, adapter, chosen.vllm)
        cells += measured(kind, size, 1, verified(manifest, place, kind, size, model, files, chosen.rows, 1))
        lines = ["# RPE against hard labels", "", *counted(found), *tables(cells)]
        write_text(place / "README.md", "\n".join(lines))


def made(manifest: Manifest, place: Path, chosen: argparse.Namespace) -> dict[RuleName, Path]:
    """Each rule's rows, of the same rollouts; what is not there is made."""
    files = {rule: place / f"{rule.value}.jsonl" for rule in RULES}
    missing = [rule for rule, file in files.items() if not file.exists()]
    if not missing:
        return files
    with reached(chosen.vllm, chosen.policy, role="--policy") as which:
        how = (*SAMPLING, "--rollouts", chosen.rollouts, *which, *decontaminating(chosen.data))
        for rule in missing:
            rows = place / "run" / f"{ROWS}.jsonl"
            rows.unlink(missing_ok=True)  # that of the rule before
            manifest.genprm("label", place / "problems.jsonl", "-o", place / "run", "--rule", rule.value, *how)
            shutil.copyfile(rows, files[rule])
    return files


def read_rows(file: Path) -> list[LabelledSolution]:
    """The solutions, with their labels."""
    return [LabelledSolution.model_validate_json(line) for line in file.read_text().splitlines()]


def counted(found: dict[RuleName, Path]) -> list[str]:
    """What each rule makes of the values: a table."""
    lines = [f"| {' | '.join(FIELDS)} |", "|---" * len(FIELDS) + "|"]
    labelled = {rule: read_rows(file) for rule, file in found.items()}
    first = labelled[RULES[0]]
    for rule, rows in labelled.items():
        steps = [label for row in rows for label in row.step_labels]
        same = sum(row.label == other.label for row, other in zip(rows, first, strict=True))
        errors = sum(row.label != NO_ERROR for row in rows)
        lines.append(f"| {rule.value} | {len(rows)} | {errors} | {len(steps)} | {steps.count(0)} | {same} |")
    return [*lines, ""]


if __name__ == "__main__":
    main()
