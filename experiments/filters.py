"""Process against outcome filter, on a verifier's own rationales (ThinkPRM's ablation), at our size.

    python -m experiments.filters DATA -o RUN [--tries 4] [--rows 100] [--vllm PYTHON]

RUN is of `experiments.embedded`, with RUN/genprm. That adapter verifies RUN's own problems, and what each filter keeps
goes on training it: rationales that name the labels' first error, or rationales that find some error where the answer
is wrong. Both get equally many conversations. All three are measured on the files of `experiments.small_scale`.

RUN/filters holds the runs and README.md, a table. Finished parts are not done again.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from experiments.embedded import FITTING, begun, train, with_recipe
from experiments.manifest import Manifest
from experiments.serving import reached
from experiments.small_scale import BUDGET, Cell, Kind, evaluation_files, measured, tables, verified, with_measuring
from genprm.report import write_text
from genprm.train.record import read_records
from rationale_synth.label_output import ROWS

FILTERS = ("process", "outcome")


def main() -> None:
    """Write rationales, train on them, measure, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    with_recipe(parser)
    parser.add_argument("--tries", type=int, default=4, help="rationales per solution, until one is kept")
    with_measuring(parser)
    chosen, recipe, place, manifest = begun(parser, "filters")
    run: Path = chosen.output
    if not (run / "genprm" / "README.md").exists():
        raise SystemExit(f"{run}/genprm: no adapter: train it with experiments.embedded --only genprm")
    write_rationales(manifest, recipe.base, run, place, chosen.tries, chosen.vllm)
    files = evaluation_files(chosen.data, run)
    cells: list[Cell] = []
    for kind, size, adapter in trained(manifest, recipe.base, run, place):
        model = (recipe.base, adapter, chosen.vllm)
        cells += measured(kind, size, 1, verified(manifest, place, kind, size, model, files, chosen.rows, 1))
        write_text(place / "README.md", "\n".join(["# Process against outcome filter", "", *tables(cells)]))


def write_rationales(manifest: Manifest, base: str, run: Path, place: Path, tries: int, vllm: Path | None) -> None:
    """Let the adapter verify RUN's own problems, once per filter."""
    missing = [name for name in FILTERS if not (place / f"{name}-data" / "README.md").exists()]
    if not missing:
        return
    labelled = place / "own"  # as `genprm label` leaves it: the outcome filter needs to know whose answer is right
    labelled.mkdir(exist_ok=True)
    shutil.copyfile(run / "own-data" / "input.jsonl", labelled / f"{ROWS}.jsonl")
    with reached(vllm, base, run / "genprm") as which:
        for name in missing:
            how = ("--style", "genprm-step", "--filter", name, "--tries", tries, "--step-tokens", "320", *which)
            manifest.genprm("synth", labelled, "-o", place / f"{name}-data", *how)


def trained(manifest: Manifest, base: str, run: Path, place: Path) -> list[tuple[Kind, int, Path]]:
    """The verifiers, how many conversations each was trained on last, and its adapter; the one before them first.

    Raises:
        SystemExit: a filter kept nothing.
    """
    counts = {name: len(list(read_records(str(place / f"{name}-data" / "train.jsonl")))) for name in FILTERS}
    count = min(counts.values())
    if not count:
        raise SystemExit(f"{place}: of the rationales there were kept: {counts}")
    parts = [(Kind("before", "genprm", BUDGET), len(list(read_records(str(run / FITTING)))), run / "genprm")]
    for name in FILTERS:
        adapter = place / f"{name}-{count}"
        if not (adapter / "README.md").exists():
            further = ("--start", run / "genprm", "--limit", count)
            train(manifest, "genprm", place / f"{name}-data", adapter, base, *further)
        parts.append((Kind(f"{name} filter", "genprm", BUDGET), count, adapter))
    return parts


if __name__ == "__main__":
    main()
