"""The recipe of the embedded verifier, and of baselines on the same solutions: without code, and without any reasoning.

    python -m experiments.embedded DATA -o RUN [--only genprm|taught|thinkprm|direct|signs]

Worked solutions of GSM8K's training split and of our own families get planted errors (`genprm synth plant`), reworded;
the records train a LoRA adapter for SmolLM2-135M-Instruct (`genprm train`), RUN/genprm. On other problems it then
writes rationales of its own, and learns from the labels what they are worth (`genprm synth --filter labels`):
RUN/taught, which goes on from RUN/genprm. Problems that share ten words in a row with any evaluation file, or with a
bundled problem, are left out. DATA has the folders gsm8k, math, processbench_dev, mr_gsm8k_dev and best_of_n_dev.
RUN/manifest.json says what was run on what, and for how long; the same command goes on where it was cut off.
RUN/held-out.jsonl is held out: planted errors in other problems, some of GSM8K, the rest of the same families, for
`genprm eval processbench`. The shipped adapter is RUN/genprm of an earlier form of this recipe (docs/results.md).
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

from experiments.manifest import Manifest
from genprm.demo import demo_path
from genprm.models.chat import load_tokenizer
from genprm.models.embedded import embedded_folder
from genprm.report import write_text
from genprm.train.record import read_records
from genprm.train.tokens import encode

OWN_SEED, DEV_SEED = 1, 1000
TRAIN_ROWS = (0, 300)
"""Of GSM8K; a little more than half of them can be worked out anew."""
OWN_ROWS = (1100, 1200)
"""Of GSM8K, for rationales of its own."""
DEV_ROWS = 40
"""GSM8K's last rows."""
TRAIN_FAMILIES, OWN_FAMILIES, DEV_FAMILIES = 410, 41, 41
"""Problems made up: ten of each family, and one. A model of this size works out what it has seen the like of."""
EVALUATION = (
    "processbench_dev/gsm8k.jsonl", "processbench_dev/math.jsonl", "processbench_dev/olympiadbench.jsonl",
    "processbench_dev/omnimath.jsonl", "mr_gsm8k_dev/mr_gsm8k.jsonl", "gsm8k/test.jsonl", "math/math500_test.jsonl",
    "best_of_n_dev/gsm8k.jsonl", "best_of_n_dev/math500.jsonl",
)  # fmt: skip
"""Whatever is measured on: no problem of theirs may be trained on."""
MAX_LENGTH = 1024
"""Tokens of a conversation; a quarter of them are longer, and take more time than they teach."""
RECIPE = (
    "--epochs", "1", "--batch", "8", "--learning-rate", "1e-3", "--schedule", "linear", "--warmup", "0.05",
    "--rank", "16", "--alpha", "16", "--max-length", str(MAX_LENGTH), "--mixed", "--save-every", "20",
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


def main() -> None:
    """Make the data, train, and write down what was done."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--only", choices=sorted(KINDS), action="append")
    chosen = parser.parse_args()
    run: Path = chosen.output
    run.mkdir(parents=True, exist_ok=True)
    manifest = Manifest(run / "manifest.json")
    fitting = make_data(chosen.data, run, manifest)
    for kind in chosen.only or KINDS:
        if (run / kind / "README.md").exists():
            continue
        data, further = fitting, []
        if kind == "taught":
            data, further = run / "own-rationales", ["--start", run / "genprm"]
            if not (data / "README.md").exists():
                source = run / "own-data" / "input.jsonl"
                manifest.genprm("synth", source, "-o", data, *OWN, "--tries", 1, "--adapter", run / "genprm")
        if kind == "thinkprm":
            data = make_chains(run, manifest)
        manifest.genprm("train", *KINDS[kind], data, "-o", run / kind, *RECIPE, *further)


def make_chains(run: Path, manifest: Manifest) -> Path:
    """The solutions that are trained on, with ThinkPRM's chains in place of code."""
    folder, chains = run / "chains-data", run / "chains.jsonl"
    if not (folder / "README.md").exists():
        options = (*_planting("train"), "--style", "thinkprm")
        manifest.genprm("synth", "plant", run / "train.jsonl", "-o", folder, *options)
    if not chains.exists():
        wanted = {record.id for record in read_records(str(run / "fitting.jsonl"))}
        records = [record for record in read_records(str(folder / "train.jsonl")) if record.id in wanted]
        write_text(chains, "".join(record.model_dump_json() + "\n" for record in records))
    return chains


def make_data(data: Path, run: Path, manifest: Manifest) -> Path:
    """Plant errors in problems to train on, to write rationales about, and to hold out; returns what is trained on."""
    evaluation = [str(data / name) for name in EVALUATION] + [str(demo_path())]
    source = data / "gsm8k/train.jsonl"
    manifest.inputs([str(source), *evaluation])
    lines = source.read_text().splitlines(keepends=True)
    for name, rows in (
        ("train", lines[slice(*TRAIN_ROWS)]), ("own", lines[slice(*OWN_ROWS)]), ("dev", lines[-DEV_ROWS:])
    ):  # fmt: skip
        (run / f"{name}.jsonl").write_text("".join(rows))
        options = _planting(name)
        spared = [part for file in evaluation for part in ("--decontaminate", file)]
        if not (run / f"{name}-data" / "README.md").exists():
            manifest.genprm("synth", "plant", run / f"{name}.jsonl", "-o", run / f"{name}-data", *options, *spared)
    fitting = run / "fitting.jsonl"
    if not fitting.exists():
        keep_fitting(run / "train-data" / "train.jsonl", fitting)
    hold_out(run)
    return fitting


def hold_out(run: Path) -> None:
    """The rows to measure on: two draws of a family can give the same problem."""
    files = (run / "fitting.jsonl", *(run / f"{name}-data" / "train.jsonl" for name in ("train", "own")))
    seen = {record.problem for file in files for record in read_records(str(file))}
    rows = [record for record in read_records(str(run / "dev-data" / "train.jsonl")) if record.problem not in seen]
    random.Random(DEV_SEED).shuffle(rows)  # so that the first of them are of all kinds
    (run / "held-out.jsonl").write_text("".join(record.model_dump_json() + "\n" for record in rows))


def _planting(name: str) -> tuple[str, ...]:
    """How errors are planted in a part of the data."""
    families, seed = {
        "train": (TRAIN_FAMILIES, 0), "own": (OWN_FAMILIES, OWN_SEED), "dev": (DEV_FAMILIES, DEV_SEED)
    }[name]  # fmt: skip
    return ("--errors", "1", "--no-balance", "--reword", "--families", str(families), "--seed", str(seed))


def keep_fitting(source: Path, target: Path) -> None:
    """The records whose whole conversation fits, so that the baselines, which need less room, see no others."""
    tokenizer = load_tokenizer(str(embedded_folder()))
    kept = [
        record.model_dump_json() + "\n"
        for record in read_records(str(source))
        if len(encode(tokenizer, record.messages, record.masked).input_ids) <= MAX_LENGTH
    ]
    write_text(target, "".join(kept))


if __name__ == "__main__":
    main()
