"""What a run trains on: conversations as tokens, and how many had to be left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from genprm.errors import InputError
from genprm.records import NO_ERROR
from genprm.train.record import read_records
from genprm.train.tokens import Example, encode

DATA = "train.jsonl"


class TrainingData(NamedTuple):
    """N conversations."""

    examples: list[Example]
    too_long: int
    """How many did not fit, and are left out."""
    with_error: int
    """How many of the N name an error."""

    @property
    def tokens(self) -> int:
        """Of all conversations."""
        return sum(len(example.input_ids) for example in self.examples)

    @property
    def targets(self) -> int:
        """Those that the loss looks at."""
        return sum(example.targets for example in self.examples)


def data_file(path: str) -> str:
    """The file with the records: ``path``, or the one in the folder that ``genprm synth`` wrote."""
    return str(Path(path) / DATA) if Path(path).is_dir() else path


def read_data(path: str, tokenizer: Any, max_length: int, limit: int | None = None) -> TrainingData:
    """The training records of a file.

    Args:
        path: JSONL or Parquet.
        tokenizer: with a chat template.
        max_length: most tokens of a conversation.
        limit: only the first so many records.

    Raises:
        InputError: the file is broken; no conversation fits; or all labels are of one kind, so that nothing but the
            kind could be learned.
        ModelError: the tokenizer cannot render the conversations.
    """
    examples, too_long, with_error = list[Example](), 0, 0
    for record in read_records(path, limit):
        example = encode(tokenizer, record)
        if len(example.input_ids) > max_length:
            too_long += 1
            continue
        examples.append(example)
        with_error += record.label != NO_ERROR
    if not examples:
        raise InputError(f"{path}: every conversation is longer than --max-length {max_length}")
    if with_error in (0, len(examples)):
        kind = "with" if with_error else "without"
        raise InputError(f"{path}: all {len(examples)} solutions are {kind} an error: expected some of both")
    return TrainingData(examples, too_long, with_error)
