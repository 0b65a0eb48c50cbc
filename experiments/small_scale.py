"""The papers' claim at our size: does a verifier that reasons and runs code need less data than one that does not?

    python -m experiments.small_scale DATA -o RUN [--sizes 90 280 880] [--rows 100] [--votes 1 4]

The same base, SmolLM2-135M-Instruct, and the same solutions, those of `experiments.embedded`, which makes them if RUN
has none. At each size there are five verifiers: generative with code, the same without execution, the same
without code, direct (Yes or No at once), and discriminative (+ or -). Each is measured on held-out planted errors, on
ProcessBench's GSM8K rows and on MR-GSM8K, at 0.5 and at the threshold that is best on the planted ones.

RUN/small-scale holds the runs, results.json, a plot per file and README.md, a table. Finished parts are not done again.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from experiments.embedded import KINDS as TRAINED
from experiments.embedded import RECIPE, make_data
from experiments.manifest import Manifest
from genprm.batch import read_results
from genprm.evaluation import SubsetResult, evaluate_subset
from genprm.plotting import picture
from genprm.threshold import fit_threshold, outcome_at
from genprm.train.folder import fingerprint

SIZES = (90, 280, 880)
"""Conversations: 1, 3 and 10 times as many."""
BUDGET = ("--step-tokens", "320", "--analysis-tokens", "160")
HELD_OUT = "planted"
SEED = 0
"""Of which solutions the smaller sizes get."""


class Kind(NamedTuple):
    """A verifier of the comparison."""

    name: str
    trained_as: str
    """Whose adapter it uses: a kind of `experiments.embedded`."""
    verifying: tuple[str, ...]


KINDS = (
    Kind("generative, code", "genprm", BUDGET),
    Kind("generative, code not run", "genprm", (*BUDGET, "--no-execute")),
    Kind("generative, no code", "genprm", (*BUDGET, "--no-code")),
    Kind("direct", "direct", ("--style", "direct")),
    Kind("discriminative", "signs", ("--style", "discriminative", "--prm-format", "rlhflow")),
)
"""The two ablations of the generative one are made at test time, with the same adapter."""


class Cell(NamedTuple):
    """A verifier of one size on one file."""

    kind: str
    size: int
    file: str
    votes: int
    threshold: float
    at_half: SubsetResult
    at_threshold: SubsetResult


def main() -> None:
    """Train, measure, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--rows", type=int, default=100, help="of each file")
    parser.add_argument(
        "--votes", type=int, nargs="*", default=[1, 4], help="of the generative one at the largest size"
    )
    chosen = parser.parse_args()
    run: Path = chosen.output
    place = run / "small-scale"
    place.mkdir(parents=True, exist_ok=True)
    manifest = Manifest(place / "manifest.json")
    fitting = make_data(chosen.data, run, Manifest(run / "manifest.json"))
    files = {
        HELD_OUT: run / "held-out.jsonl",
        "processbench-gsm8k": chosen.data / "processbench_dev" / "gsm8k.jsonl",
        "mr-gsm8k": chosen.data / "mr_gsm8k_dev" / "mr_gsm8k.jsonl",
    }
    manifest.inputs([str(fitting), *map(str, files.values())])
    cells: list[Cell] = []
    records = fitting.read_text().splitlines(keepends=True)
    random.Random(SEED).shuffle(records)  # they come by where they are from
    mark = fingerprint(str(fitting))[:8]
    for size in sorted(chosen.sizes):
        rows = place / f"{size}-{mark}.jsonl"
        rows.write_text("".join(records[:size]))
        for kind in KINDS:
            adapter = place / f"{kind.trained_as}-{size}-{mark}"
            if not (adapter / "README.md").exists():
                manifest.genprm("train", *TRAINED[kind.trained_as], rows, "-o", adapter, *RECIPE)
            largest = kind is KINDS[0] and size == max(chosen.sizes)
            for votes in chosen.votes if largest else chosen.votes[:1]:
                cells += measured(manifest, place, kind, size, adapter, files, chosen.rows, votes)
                report(place, cells)


def measured(
    manifest: Manifest, place: Path, kind: Kind, size: int, adapter: Path, files: dict[str, Path], rows: int, votes: int
) -> list[Cell]:
    """Verify all files, and measure at the threshold that is best on the held-out one."""
    found = {}
    for name, file in files.items():
        words = kind.name.replace(",", "").split()
        output = place / "-".join([*words, adapter.name.rpartition("-")[2], str(size), name, f"{rows}-{votes}"])
        if not (output / "rows.jsonl").exists():
            given = ("--adapter", adapter, "--votes", votes, "--limit", rows, "--json", output.with_suffix(".json"))
            manifest.genprm("eval", "processbench", file, *kind.verifying, *given, "-o", output)
        found[name] = list(read_results(output / "rows.jsonl"))
    threshold = fit_threshold(found[HELD_OUT])
    return [
        Cell(
            kind=kind.name, size=size, file=name, votes=votes, threshold=threshold,
            at_half=evaluate_subset([outcome_at(row, 0.5) for row in rows]),
            at_threshold=evaluate_subset([outcome_at(row, threshold) for row in rows]),
        )
        for name, rows in found.items()
    ]  # fmt: skip


def report(place: Path, cells: Sequence[Cell]) -> None:
    """Write what is known so far: figures, plots, and a page with a table."""
    as_json = [
        cell._replace(at_half=cell.at_half.model_dump(), at_threshold=cell.at_threshold.model_dump())._asdict()
        for cell in cells
    ]
    (place / "results.json").write_text(json.dumps(as_json, indent=1) + "\n")
    names = list(dict.fromkeys(cell.file for cell in cells))
    lines = ["# Generative against discriminative, at our size", ""]
    for name in names:
        lines += [
            f"## {name}", "",
            "| verifier | trained on | votes | F1 | error acc. | correct acc. | F1 at threshold | of | tokens a row |",
            "|---|---|---|---|---|---|---|---|---|",
        ]  # fmt: skip
        for cell in cells:
            if cell.file == name:
                half, best = cell.at_half, cell.at_threshold
                shown = [interval(half), share(half.error_accuracy), share(half.correct_accuracy), interval(best)]
                lines.append(
                    f"| {cell.kind} | {cell.size} | {cell.votes} | {' | '.join(shown)} | {cell.threshold:.2f} | "
                    f"{half.tokens / half.rows:.0f} |"
                )
        lines += ["", f"![{name}]({name}.png)", ""]
        with picture(place / f"{name}.png", 6, 4) as axes:
            for kind in KINDS:
                points = [
                    (cell.size, cell.at_threshold.f1)
                    for cell in cells
                    if (cell.kind, cell.file, cell.votes) == (kind.name, name, 1) and cell.at_threshold.f1 is not None
                ]
                if points:
                    axes.plot(*zip(*points, strict=True), marker="o", label=kind.name)
            axes.set(
                xscale="log", xlabel="conversations", ylabel="F1 at the threshold of the planted rows", ylim=(0, None)
            )
            axes.legend()
    (place / "README.md").write_text("\n".join(lines))


def share(value: float | None) -> str:
    """A figure in percent."""
    return "-" if value is None else f"{value:.1f}"


def interval(result: SubsetResult) -> str:
    """F1 with its interval."""
    low, high = result.f1_interval or (0.0, 0.0)
    return f"{share(result.f1)} ({low:.1f} to {high:.1f})"


if __name__ == "__main__":
    main()
