"""What an experiment finds: a few rows for each file of DATA, and the records of a RUN, so that none are planted."""

from __future__ import annotations

from pathlib import Path

from experiments.embedded import EVALUATION, GSM8K
from tests.docs.world import LABELLED, WORKED, write_rows
from tests.train.conftest import record, write_records

ROOT = Path(__file__).resolve().parents[2]


def lay_out(folder: Path) -> tuple[Path, Path]:
    """DATA and RUN, in a folder."""
    data, run = folder / "data", folder / "run"
    write_rows(data / GSM8K, WORKED * 100)
    for name in EVALUATION:
        write_rows(data / name, LABELLED)
    for name, numbers in (("train", range(4)), ("own", range(4, 6)), ("dev", range(6, 10))):
        records = [record(number, label=number % 2 - 1) for number in numbers]
        if name == "dev":
            records = [each.model_copy(update={"problem": "And of this?"}) for each in records]
        place = run / f"{name}-data"
        place.mkdir(parents=True)
        (place / "README.md").write_text("made by hand\n")
        write_records(place / "train.jsonl", records)
    (run / "fitting.jsonl").write_text((run / "train-data" / "train.jsonl").read_text())
    return data, run
