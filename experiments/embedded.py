"""The recipe of the embedded verifier, and of baselines on the same solutions: without code, and without any reasoning.

    python -m experiments.embedded DATA -o RUN [--only genprm|taught|thinkprm|direct|signs] \
      [--base MODEL] [--gsm8k 600] [--families 147]

Worked solutions of GSM8K's training split and of our own families get planted errors (`genprm synth plant`), reworded;
the records train a LoRA adapter for SmolLM2-135M-Instruct, or for another base (`genprm train`): RUN/genprm. On other
problems it then writes rationales of its own, and learns from the labels what they are worth (`genprm synth --filter
labels`): RUN/taught, which goes on from RUN/genprm. Problems that share ten words in a row with any evaluation file, or
with a bundled problem, are left out. DATA has the folders gsm8k, math, processbench_dev, mr_gsm8k_dev and
best_of_n_dev. RUN/manifest.json says what was run on what, and for how long; the same command goes on where it was cut
off. A RUN has one base and one size. RUN/held-out.jsonl is held out: planted errors in other problems, some of GSM8K,
the rest of the same families, for `genprm eval processbench`. The shipped adapter is RUN/genprm (docs/embedded.md).
"""

from __future__ import annotations

import argparse
import json
import random
import signal
from pathlib import Path
from typing import Any, NamedTuple

from experiments.manifest import Manifest
from genprm.demo import demo_path
from genprm.models.chat import load_tokenizer
from genprm.models.embedded import EMBEDDED, model_source
from genprm.records import NO_ERROR
from genprm.report import write_text
from genprm.train.record import ASSISTANT, TrainingRecord, read_records
from genprm.train.tokens import encode
from rationale_synth.families import FAMILIES

GSM8K = "gsm8k/train.jsonl"
FITTING = "fitting.jsonl"
"""In a run: what is trained on, each record as far as it fits."""
OWN_SEED, DEV_SEED = 1, 1000
KEPT_OUT = ("in_math_test", "in_math500", "in_processbench", "conflict")
"""Flags of PRM800K's rows: of problems that are measured on, or labelled by two people in two ways."""
DEV_ROWS = 40
"""GSM8K's last rows."""
OWN_ROWS = 100
"""The rows before them, for rationales of its own."""
EVALUATION = (
    "processbench_dev/gsm8k.jsonl", "processbench_dev/math.jsonl", "processbench_dev/olympiadbench.jsonl",
    "processbench_dev/omnimath.jsonl", "mr_gsm8k_dev/mr_gsm8k.jsonl", "gsm8k/test.jsonl", "math/math500_test.jsonl",
    "best_of_n_dev/gsm8k.jsonl", "best_of_n_dev/math500.jsonl",
)  # fmt: skip
"""Whatever is measured on: no problem of theirs may be trained on."""
MAX_LENGTH = 1024
"""Tokens of a conversation; what is longer takes more time than it teaches."""
OPTIONS = (
    "--epochs", "1", "--batch", "8", "--learning-rate", "1e-3", "--schedule", "linear", "--warmup", "0.05",
    "--rank", "16", "--alpha", "16", "--max-length", str(MAX_LENGTH), "--mixed", "--compile", "--save-every", "20",
)  # fmt: skip
OWN = ("--style", "genprm-step", "--filter", "labels", "--right-per-wrong", "2", "--no-balance", "--step-tokens", "320")
"""How rationales of its own are written and used."""
KINDS = {
    "genprm": ("sft",),
    "taught": ("sft",),
    "thinkprm": ("sft",),
    "direct": ("discriminative", "--variant", "direct"),
    "signs": ("discriminative", "--variant", "signs"),
}
"""What is trained, and by which command."""


class Recipe(NamedTuple):
    """What is trained, and on how much."""

    base: str = EMBEDDED
    gsm8k: int = 600
    """GSM8K's first rows; a little more than half of them can be worked out anew."""
    families: int = 3 * len(FAMILIES)
    """Problems made up, three of each family. The embedded model works out what it has seen the like of."""
    skip: int = 0
    """GSM8K's rows before them, which an earlier run has trained on. The made-up problems are other ones, too."""
    prm800k: int = 0
    """PRM800K's first rows, of those that are of no evaluated problem; a fifth of them has equations to check."""


def with_recipe(parser: argparse.ArgumentParser) -> None:
    """What every experiment that trains takes."""
    usual = Recipe()
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--base", default=usual.base, help="hub id or folder of the model to train")
    parser.add_argument("--gsm8k", type=int, default=usual.gsm8k, help="problems of GSM8K to train on")
    parser.add_argument("--families", type=int, default=usual.families, help="made-up problems to train on")
    parser.add_argument("--skip", type=int, default=usual.skip, help="problems of GSM8K that come before them")
    parser.add_argument("--prm800k", type=int, default=usual.prm800k, help="labelled solutions of PRM800K to train on")


def begun(
    parser: argparse.ArgumentParser, part: str | None = None
) -> tuple[argparse.Namespace, Recipe, Path, Manifest]:
    """The beginning of an experiment on a run: its data, made if need be.

    Args:
        parser: of the command line, with what `with_recipe` adds.
        part: the folder in the run that the experiment has for itself; None for the run's own.

    Returns:
        the command line, the run's recipe, the experiment's folder, and its manifest.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)  # so that no server and no training is left behind
    chosen = parser.parse_args()
    run: Path = chosen.output
    recipe = Recipe(chosen.base, chosen.gsm8k, chosen.families, chosen.skip, chosen.prm800k)
    run.mkdir(parents=True, exist_ok=True)
    whole = Manifest(run / "manifest.json")
    make_data(chosen.data, run, whole, recipe)
    if part is None:
        return chosen, recipe, run, whole
    (run / part).mkdir(exist_ok=True)
    return chosen, recipe, run / part, Manifest(run / part / "manifest.json")


def main() -> None:
    """Make the data, train, and write down what was done."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    with_recipe(parser)
    parser.add_argument("--only", choices=sorted(KINDS), action="append")
    parser.add_argument("--start", type=Path, metavar="ADAPTER", help="an earlier run's, that RUN/genprm goes on from")
    chosen, recipe, run, manifest = begun(parser)
    if chosen.start or (run / "start.json").exists():
        keep({"start": chosen.start and str(chosen.start.resolve())}, run / "start.json")
    for kind in chosen.only or KINDS:
        if (run / kind / "README.md").exists():
            continue
        data, further = run / FITTING, []
        if kind == "genprm" and chosen.start:
            further = ["--start", chosen.start]
        if kind == "taught":
            data, further = run / "own-rationales", ["--start", run / "genprm"]
            if not (data / "README.md").exists():
                source = run / "own-data" / "input.jsonl"
                by = ("--model", recipe.base, "--adapter", run / "genprm")
                manifest.genprm("synth", source, "-o", data, *OWN, "--tries", 1, *by)
        if kind == "thinkprm":
            data = make_chains(run, manifest, recipe)
        train(manifest, kind, data, run / kind, recipe.base, *further)


def train(manifest: Manifest, kind: str, data: Path, output: Path, base: str, *further: object) -> None:
    """Train one kind of verifier."""
    manifest.genprm("train", *KINDS[kind], data, "-o", output, "--base", base, *OPTIONS, *further)


def make_chains(run: Path, manifest: Manifest, recipe: Recipe) -> Path:
    """The solutions that are trained on, with ThinkPRM's chains in place of code."""
    folder, chains = run / "chains-data", run / "chains.jsonl"
    if not (folder / "README.md").exists():
        options = (*_planting("train", recipe), "--style", "thinkprm")
        manifest.genprm("synth", "plant", run / "train.jsonl", "-o", folder, *options)
    if not chains.exists():
        # Of a solution that was cut the steps are others.
        whole = {(record.id, record.steps) for record in read_records(str(run / FITTING))}
        records = [each for each in read_records(str(folder / "train.jsonl")) if (each.id, each.steps) in whole]
        write_text(chains, "".join(record.model_dump_json() + "\n" for record in records))
    return chains


def make_data(data: Path, run: Path, manifest: Manifest, recipe: Recipe) -> None:
    """Plant errors in problems to train on, to write rationales about, and to hold out.

    Raises:
        SystemExit: ``run`` is of another recipe, or GSM8K has not so many rows.
    """
    source = data / GSM8K
    manifest.inputs([str(source), *evaluated_on(data)])
    lines = source.read_text().splitlines(keepends=True)
    own, dev = lines[-DEV_ROWS - OWN_ROWS : -DEV_ROWS], lines[-DEV_ROWS:]
    fit = rows_to_train_on(data, recipe.skip, recipe.gsm8k)
    keep(recipe._asdict(), run / "recipe.json")
    for name, rows in (("train", fit), ("own", own), ("dev", dev)):
        keep_text("".join(rows), run / f"{name}.jsonl")
        options = (*_planting(name, recipe), *decontaminating(data))
        if name == "train" and recipe.prm800k:
            options += ("--labelled", str(labelled_rows(data, run, recipe.prm800k)))
        if not (run / f"{name}-data" / "README.md").exists():
            manifest.genprm("synth", "plant", run / f"{name}.jsonl", "-o", run / f"{name}-data", *options)
    fitting = run / FITTING
    if not fitting.exists():
        keep_fitting(run / "train-data" / "train.jsonl", fitting, recipe.base)
    hold_out(run)


def labelled_rows(data: Path, run: Path, count: int) -> Path:
    """The first rows of PRM800K that may be trained on, with their labels, as a file of the run."""
    source, target = data / "prm800k" / "val.jsonl", run / "prm800k.jsonl"
    rows = [json.loads(line) for line in source.read_text().splitlines()]
    fit = [row for row in rows if not any(row[flag] for flag in KEPT_OUT)][:count]
    named = [
        {"id": row["id"], "problem": row["problem"], "steps": row["steps"], "label": row["first_error"]} for row in fit
    ]
    write_text(target, "".join(json.dumps(row) + "\n" for row in named))
    return target


def rows_to_train_on(data: Path, start: int, count: int) -> list[str]:
    """Rows of GSM8K's training split, of those that are not kept for something else.

    Raises:
        SystemExit: there are not so many.
    """
    source = data / GSM8K
    rows = source.read_text().splitlines(keepends=True)[: -DEV_ROWS - OWN_ROWS]
    if start + count > len(rows):
        raise SystemExit(f"{source} has {len(rows)} rows to train on, not {start + count}")
    return rows[start : start + count]


def evaluated_on(data: Path) -> list[str]:
    """The files that are measured on, and the bundled problems."""
    return [*(str(data / name) for name in EVALUATION), str(demo_path())]


def decontaminating(data: Path) -> list[str]:
    """The options that leave out whatever problem is also in one of these files."""
    return [part for file in evaluated_on(data) for part in ("--decontaminate", file)]


def hold_out(run: Path) -> None:
    """The rows to measure on: two draws of a family can give the same problem."""
    files = (run / FITTING, *(run / f"{name}-data" / "train.jsonl" for name in ("train", "own")))
    seen = {record.problem for file in files for record in read_records(str(file))}
    rows = [record for record in read_records(str(run / "dev-data" / "train.jsonl")) if record.problem not in seen]
    random.Random(DEV_SEED).shuffle(rows)  # so that the first of them are of all kinds
    (run / "held-out.jsonl").write_text("".join(record.model_dump_json() + "\n" for record in rows))


def keep(options: dict[str, Any], file: Path) -> None:
    """What a folder's parts are made by: nothing goes on under other options, or what is there would be taken for it.

    Raises:
        SystemExit: it was made by others.
    """
    keep_text(json.dumps(options) + "\n", file)


def keep_text(text: str, file: Path) -> None:
    """Write a file that other parts of its folder are made from.

    Raises:
        SystemExit: it is there, and another one.
    """
    if file.exists() and file.read_text() != text:
        raise SystemExit(f"{file} is there already, and is another one: name another folder")
    write_text(file, text)


def _planting(name: str, recipe: Recipe) -> tuple[str, ...]:
    """How errors are planted in a part of the data."""
    one_each = len(FAMILIES)
    families, seed = {
        "train": (recipe.families, 10_000 * recipe.skip), "own": (one_each, OWN_SEED), "dev": (one_each, DEV_SEED)
    }[name]  # fmt: skip
    errors = "2" if name == "train" else "1"  # most steps are right all the same
    return ("--errors", errors, "--no-balance", "--families", str(families), "--seed", str(seed))


def keep_fitting(source: Path, target: Path, base: str) -> None:
    """The records, each as far as it fits, so that the baselines, which need less room, see no others."""
    tokenizer = load_tokenizer(model_source(base))
    kept = [fitting for record in read_records(str(source)) if (fitting := up_to_length(record, tokenizer))]
    write_text(target, "".join(record.model_dump_json() + "\n" for record in kept))


def up_to_length(record: TrainingRecord, tokenizer: Any) -> TrainingRecord | None:
    """The record without the last steps that are too long for it; None if its first one is.

    Were the long ones left out, most of the late steps that are trained on would be wrong: a solution is judged up to
    its error, so that it is mostly right ones that are long.
    """
    ends = [place + 1 for place, message in enumerate(record.messages) if message.role == ASSISTANT]
    for count in range(len(ends), 0, -1):
        messages = record.messages[: ends[count - 1]]
        masked = tuple(each for each in record.masked if each.message < len(messages))
        if len(encode(tokenizer, messages, masked).input_ids) <= MAX_LENGTH:
            if count == len(ends):
                return record
            cut = {"messages": messages, "masked": masked, "steps": record.steps[:count], "label": NO_ERROR}
            return record.model_copy(update=cut)
    return None


if __name__ == "__main__":
    main()
