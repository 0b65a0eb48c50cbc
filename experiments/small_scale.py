"""The papers' claim at our size: does a verifier that reasons and runs code need less data than one that does not?

    python -m experiments.small_scale DATA -o RUN [--sizes 90 280] [--rows 100] [--votes 8] [--vllm PYTHON] \
      [--base MODEL] [--gsm8k 600] [--families 147]

The same base, SmolLM2-135M-Instruct if none is named, and the same solutions, those of `experiments.embedded`: all of
them, where RUN's own adapters are measured, and fewer. At each size there are three verifiers: generative with code,
direct (Yes or No at once), and discriminative (+ or -); with all the data also the generative one without execution,
without code, and with several votes. A single vote takes the likeliest tokens; more are drawn. Each is measured on
held-out planted errors, on ProcessBench's GSM8K rows and on MR-GSM8K, at 0.5 and at the threshold that is best on the
planted ones. What RUN lacks is made first.

With --vllm they are served, in bfloat16: on a CPU in a third of the time.

RUN/small-scale holds the runs, results.json, a plot per file and README.md, a table. Finished parts are not done again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from experiments.embedded import FITTING, begun, train, with_recipe
from experiments.manifest import Manifest
from experiments.serving import reached
from genprm.batch import read_results
from genprm.evaluation import SubsetResult, evaluate_subset, solution_auc
from genprm.fewer_votes import first_votes
from genprm.plotting import picture
from genprm.records import OutputRow
from genprm.report import write_text
from genprm.rows import read_solutions
from genprm.threshold import fit_threshold, outcome_at
from genprm.train.folder import fingerprint

SIZES = (90, 280)
"""Conversations, beside all 880 or so: 1, 3 and 10 times as many."""
VOTES = (1, 4, 8)
BUDGET = ("--step-tokens", "320", "--analysis-tokens", "160")
HELD_OUT = "planted"
COLUMNS = (
    "verifier", "trained on", "votes", "F1", "error acc.", "correct acc.", "AUC", "F1 at threshold", "rows, unscored",
    "tokens a row",
)  # fmt: skip
SEED = 0
"""Of which solutions the smaller sizes get."""


class Kind(NamedTuple):
    """A verifier of the comparison."""

    name: str
    trained_as: str
    """Whose adapter it uses: a kind of `experiments.embedded`."""
    verifying: tuple[str, ...]
    is_ablation: bool = False
    """Made at test time, with the adapter that is trained on all the data."""


GENERATIVE = Kind("generative, code", "genprm", BUDGET)
KINDS = (
    GENERATIVE,
    Kind("generative, code not run", "genprm", (*BUDGET, "--no-execute"), is_ablation=True),
    Kind("generative, no code", "genprm", (*BUDGET, "--no-code"), is_ablation=True),
    Kind("direct", "direct", ("--style", "direct")),
    Kind("discriminative", "signs", ("--style", "discriminative", "--prm-format", "rlhflow")),
)


class Cell(NamedTuple):
    """A verifier of one size on one file."""

    kind: str
    size: int
    file: str
    votes: int
    auc: float | None
    at_half: SubsetResult
    threshold: float
    at_threshold: SubsetResult | None
    """None for the file on which the threshold was chosen."""


def main() -> None:
    """Train, measure, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    with_recipe(parser)
    parser.add_argument("--sizes", type=int, nargs="*", default=SIZES, help="beside all of the data")
    with_measuring(parser)
    parser.add_argument(
        "--votes", type=int, choices=VOTES, default=max(VOTES), help="of the generative one with all the data"
    )
    chosen, recipe, place, manifest = begun(parser, "small-scale")
    run: Path = chosen.output
    fitting = run / FITTING
    files = evaluation_files(chosen.data, run)
    manifest.inputs([str(fitting), *map(str, files.values())])
    parts = sized(fitting, chosen.sizes, run, place)
    whole = max(size for size, *_ in parts)
    cells: list[Cell] = []
    for size, rows, folder in parts:
        for kind, adapter in trained(manifest, recipe.base, rows, folder).items():
            with_votes = chosen.votes if kind is GENERATIVE and size == whole else 1
            if size == whole or not kind.is_ablation:
                model = (recipe.base, adapter, chosen.vllm)
                found = verified(manifest, place, kind, size, model, files, chosen.rows, 1)
                cells += measured(kind, size, 1, found)
                if with_votes > 1:
                    found = verified(manifest, place, kind, size, model, files, chosen.rows, with_votes)
                    for votes in VOTES:
                        if 1 < votes <= with_votes:
                            cells += measured(kind, size, votes, found)
                report(place, cells)


def with_measuring(parser: argparse.ArgumentParser) -> None:
    """What every experiment that measures verifiers takes."""
    parser.add_argument("--rows", type=int, default=100, help="of each file")
    parser.add_argument("--vllm", type=Path, metavar="PYTHON", help="serve the model with this Python's vLLM")


def evaluation_files(data: Path, run: Path) -> dict[str, Path]:
    """What is measured on; the first is what a threshold may be chosen on."""
    return {
        HELD_OUT: run / "held-out.jsonl",
        "processbench-gsm8k": data / "processbench_dev" / "gsm8k.jsonl",
        "mr-gsm8k": data / "mr_gsm8k_dev" / "mr_gsm8k.jsonl",
    }


def sized(fitting: Path, sizes: Sequence[int], run: Path, place: Path) -> list[tuple[int, Path, Path]]:
    """How many conversations, their file, and the folder of the adapters trained on them; all of them first."""
    records = fitting.read_text().splitlines(keepends=True)
    count = len(records)
    random.Random(SEED).shuffle(records)  # they come by where they are from
    parts = []
    for size in sorted((size for size in sizes if size < count), reverse=True):
        folder = place / f"{size}-{fingerprint(str(fitting))[:8]}"
        folder.mkdir(exist_ok=True)
        rows = folder / "rows.jsonl"
        rows.write_text("".join(records[:size]))
        parts.append((size, rows, folder))
    return [(count, fitting, run), *parts]


def trained(manifest: Manifest, base: str, rows: Path, folder: Path) -> dict[Kind, Path]:
    """Every verifier's adapter; those that are not there are trained."""
    for name in dict.fromkeys(kind.trained_as for kind in KINDS):
        if not (folder / name / "README.md").exists():
            train(manifest, name, rows, folder / name, base)
    return {kind: folder / kind.trained_as for kind in KINDS}


def verified(
    manifest: Manifest,
    place: Path,
    kind: Kind,
    size: int,
    model: tuple[str, Path, Path | None],
    files: dict[str, Path],
    rows: int,
    votes: int,
) -> dict[str, list[OutputRow]]:
    """All files' rows; those that are not there are verified. The model: its base, its adapter, and vLLM's Python."""
    base, adapter, vllm = model
    # Whatever the rows depend on, so that what was found with something else is not taken for this.
    parts = [fingerprint(str(file)) for file in (adapter / "adapter_model.safetensors", *files.values())]
    mark = hashlib.sha256("\n".join([*parts, *kind.verifying, "served" * bool(vllm)]).encode()).hexdigest()[:8]
    folder = place / "-".join([*kind.name.replace(",", "").split(), str(size), f"{rows}x{votes}", mark])
    results = folder / "rows.jsonl"
    if not results.exists():
        with reached(vllm, base, adapter) as which:
            drawn = () if votes > 1 else ("--temperature", 0)
            how = (*kind.verifying, *which, "--votes", votes, *drawn, "--limit", rows, "-o", folder)
            manifest.genprm("eval", "processbench", *files.values(), *how)
    found = iter(read_results(results))
    return {name: list(islice(found, len(read_solutions(str(file), rows)))) for name, file in files.items()}


def measured(kind: Kind, size: int, votes: int, found: dict[str, list[OutputRow]]) -> list[Cell]:
    """The figures of all files; of those that are not held out also at the threshold that is best on what is."""
    found = {name: [first_votes(row, votes) for row in rows] for name, rows in found.items()}
    threshold = fit_threshold(found[HELD_OUT])
    return [
        Cell(
            kind=kind.name, size=size, file=name, votes=votes, auc=solution_auc(rows),
            at_half=evaluate_subset([outcome_at(row, 0.5) for row in rows]), threshold=threshold,
            at_threshold=None if name == HELD_OUT else evaluate_subset([outcome_at(row, threshold) for row in rows]),
        )
        for name, rows in found.items()
    ]  # fmt: skip


def report(place: Path, cells: Sequence[Cell]) -> None:
    """Write what is known so far: figures, plots, and a page with a table."""
    cells = sorted(cells, key=lambda cell: cell.size)
    as_json = [
        cell._asdict()
        | {"at_half": cell.at_half.model_dump(), "at_threshold": cell.at_threshold and cell.at_threshold.model_dump()}
        for cell in cells
    ]
    write_text(place / "results.json", json.dumps(as_json, indent=1) + "\n")
    lines = ["# Generative against discriminative, at our size", ""]
    for name, rows in by_file(cells).items():
        plot(place / f"{name}.png", [cell for cell in rows if cell.votes == 1])
        lines += [*table(name, rows), f"![{name}]({name}.png)", ""]
    write_text(place / "README.md", "\n".join(lines))


def by_file(cells: Iterable[Cell]) -> dict[str, list[Cell]]:
    """The cells of each file, as they come."""
    found: dict[str, list[Cell]] = {}
    for cell in cells:
        found.setdefault(cell.file, []).append(cell)
    return found


def tables(cells: Iterable[Cell]) -> list[str]:
    """Each file's table."""
    return [line for name, rows in by_file(cells).items() for line in table(name, rows)]


def table(name: str, cells: Iterable[Cell]) -> list[str]:
    """A file's table, with a line per verifier."""
    return [f"## {name}", "", f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|", *map(_row, cells), ""]


def _row(cell: Cell) -> str:
    half, best = cell.at_half, cell.at_threshold
    fields = [
        cell.kind, str(cell.size), str(cell.votes), interval(half), share(half.error_accuracy),
        share(half.correct_accuracy), "-" if cell.auc is None else f"{cell.auc:.2f}",
        f"{interval(best)} at {cell.threshold:.2f}" if best else "-", f"{half.rows}, {half.unscored}",
        f"{half.tokens / half.rows:.0f}",
    ]  # fmt: skip
    return f"| {' | '.join(fields)} |"


def plot(file: Path, cells: Sequence[Cell]) -> None:
    """F1 by size; at the chosen threshold where there is one."""
    with picture(file, 6, 4) as axes:
        for kind in KINDS:
            points = [(cell.size, (cell.at_threshold or cell.at_half).f1) for cell in cells if cell.kind == kind.name]
            if points:
                axes.plot(*zip(*points, strict=True), marker="o", label=kind.name)
        chosen = any(cell.at_threshold for cell in cells)
        label = "F1 at the threshold of the planted rows" if chosen else "F1 at 0.5"
        axes.set(xscale="log", xlabel="conversations", ylabel=label, ylim=(0, None))
        axes.legend()


def share(value: float | None) -> str:
    """A figure in percent."""
    return "-" if value is None else f"{value:.1f}"


def interval(result: SubsetResult) -> str:
    """F1 with its interval."""
    low, high = result.f1_interval or (0.0, 0.0)
    return f"{share(result.f1)} ({low:.1f} to {high:.1f})"


if __name__ == "__main__":
    main()
