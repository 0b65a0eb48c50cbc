"""What a run trains on: conversations as tokens, and how many had to be left out."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from genprm.errors import InputError
from genprm.records import NO_ERROR
from genprm.train.tokens import Example

DATA, LABELLED = "train.jsonl", "labelled.jsonl"


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
    """The file with the records: ``path``, or the one in the folder that ``genprm synth``, or ``label``, wrote."""
    folder = Path(path)
    if not folder.is_dir():
        return path
    return str(next((folder / name for name in (DATA, LABELLED) if (folder / name).exists()), folder / DATA))


def fitting(path: str, labelled: Iterable[tuple[Example, int]], max_length: int) -> TrainingData:
    """The conversations that fit.

    Args:
        path: where they come from.
        labelled: each with the first wrong step, -1 for none.
        max_length: most tokens of a conversation.

    Raises:
        InputError: no conversation fits; or all labels are of one kind, so that nothing but the kind could be learned.
    """
    examples, too_long, with_error = list[Example](), 0, 0
    for example, label in labelled:
        if len(example.input_ids) > max_length:
            too_long += 1
            continue
        examples.append(example)
        with_error += label != NO_ERROR
    if not examples:
        raise InputError(f"{path}: every conversation is longer than --max-length {max_length}")
    if with_error in (0, len(examples)):
        kind = "with" if with_error else "without"
        raise InputError(f"{path}: all {len(examples)} solutions are {kind} an error: expected some of both")
    return TrainingData(examples, too_long, with_error)
