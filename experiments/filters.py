"""Process against outcome filter, on a verifier's own rationales (ThinkPRM's ablation), at our size.

    python -m experiments.filters DATA -o RUN [--tries 4] [--rows 100] [--vllm PYTHON]

RUN is of `experiments.embedded`, with RUN/genprm. That adapter verifies RUN's own problems, and what each filter keeps
goes on training it: rationales that name the labels' first error, or rationales that find some error where the answer
is wrong. Both get equally many conversations, half of them with an error. All three are measured on the files of
`experiments.small_scale`.

RUN/filters holds the runs and README.md, a table. Finished parts are not done again.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from experiments.embedded import FITTING, begun, keep, keep_fitting, train, with_recipe
from experiments.manifest import Manifest
from experiments.serving import reached
from experiments.small_scale import BUDGET, Cell, Kind, evaluation_files, measured, tables, verified, with_measuring
from genprm.records import NO_ERROR
from genprm.report import write_text
from genprm.train.folder import fingerprint
from genprm.train.record import TrainingRecord, read_records
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
    weights = fingerprint(str(run / "genprm" / "adapter_model.safetensors"))
    keep({"tries": chosen.tries, "adapter": weights}, place / "options.json")
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
        SystemExit: a filter kept nothing with an error, or nothing without.
    """
    kept: dict[tuple[str, bool], list[TrainingRecord]] = {}
    for name in FILTERS:
        fitting = place / f"{name}-{FITTING}"
        keep_fitting(place / f"{name}-data" / "train.jsonl", fitting, base)
        for with_error in (False, True):
            records = read_records(str(fitting))
            kept[name, with_error] = [each for each in records if (each.label != NO_ERROR) is with_error]
    count = min(map(len, kept.values()))
    if not count:
        raise SystemExit(f"{place}: kept were { ({key: len(each) for key, each in kept.items()}) }")
    parts = [(Kind("before", "genprm", BUDGET), len(list(read_records(str(run / FITTING)))), run / "genprm")]
    for name in FILTERS:
        rows, adapter = place / f"{name}-{2 * count}.jsonl", place / f"{name}-{2 * count}"
        chosen = [record for with_error in (False, True) for record in kept[name, with_error][:count]]
        write_text(rows, "".join(record.model_dump_json() + "\n" for record in chosen))
        if not (adapter / "README.md").exists():
            train(manifest, "genprm", rows, adapter, base, "--start", run / "genprm")
        parts.append((Kind(f"{name} filter", "genprm", BUDGET), 2 * count, adapter))
    return parts


if __name__ == "__main__":
    main()
