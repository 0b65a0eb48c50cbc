"""The training record: a conversation in which a solution was verified, and what of it the model did not write."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field, ValidationError, model_validator

from genprm.errors import InputError
from genprm.records import NO_ERROR, SCHEMA_VERSION, Record, Text
from genprm.rows import field_error, iterate_rows

ASSISTANT = "assistant"


class ChatMessage(Record):
    """One message of a conversation."""

    role: Text
    content: Text


class Masked(Record):
    """Characters ``start .. end`` of a message that the model is not to learn."""

    message: Annotated[int, Field(ge=0)]
    start: Annotated[int, Field(ge=0)]
    end: Annotated[int, Field(ge=0)]


class TrainingRecord(Record):
    """A row of the training data: a conversation, and what of it is no target."""

    schema_version: Literal[1] = SCHEMA_VERSION
    id: Text
    style: Text
    messages: tuple[ChatMessage, ...]
    """Role and content, as chat templates take them."""
    masked: tuple[Masked, ...]
    """What stands in the assistant's turns and is not the model's: what the verifier writes for it, and what the
    sandbox printed. In order, and apart from each other."""
    problem: Text
    steps: tuple[Text, ...]
    label: Annotated[int, Field(ge=NO_ERROR)]
    """The first wrong step by the labels, -1 for none; of a rationale kept for its outcome only, the one it names."""
    model: Text
    """Who wrote the rationale."""

    @model_validator(mode="after")
    def _places_are_in_turns(self) -> TrainingRecord:
        end = (0, 0)
        for place in self.masked:
            turn = self.messages[place.message] if place.message < len(self.messages) else None
            if turn is None or turn.role != ASSISTANT or not place.start < place.end <= len(turn.content):
                raise ValueError(f"masked: {place.message}, {place.start} to {place.end} is no part of an answer")
            if (place.message, place.start) < end:
                raise ValueError("masked: expected places in order, apart from each other")
            end = (place.message, place.end)
        if self.label >= len(self.steps):
            raise ValueError(f"label: there are {len(self.steps)} steps, and none with the index {self.label}")
        if not any(turn.role == ASSISTANT for turn in self.messages):
            raise ValueError(f"messages: expected one of the role {ASSISTANT}")
        return self


def read_records(path: str, limit: int | None = None) -> Iterator[TrainingRecord]:
    """The records of a file that ``genprm synth`` wrote: JSONL or Parquet.

    Raises:
        InputError: the file is missing, empty or broken, or a row is no training record.
    """
    count = 0
    for where, row in iterate_rows(path, limit):
        try:
            yield TrainingRecord.model_validate(row)
        except ValidationError as error:
            if isinstance(row, dict) and "step_labels" in row:
                raise InputError(
                    f"{where}: a labelled solution: genprm synth makes training records of them"
                ) from error
            raise field_error(f"{where}: no training record", error) from error
        count += 1
    if not count:
        raise InputError(f"{path}: no rows in it")
