"""A finished run as data: JSONL, Parquet, and a card that says what is in it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from genprm.errors import OutputError
from genprm.records import Record
from rationale_synth.run_folder import write_whole

PARQUET_ROWS = 1024
"""Rows of a Parquet row group; so many are in memory at once."""


def write_rows(folder: Path, name: str, kind: type[Record], rows: Iterable[Record]) -> int:
    """Write ``NAME.jsonl`` and ``NAME.parquet``, both whole or not at all; returns how many rows there are.

    Args:
        folder: where to.
        name: of the files.
        kind: the class of the rows.
        rows: the rows.

    Raises:
        OutputError: the files cannot be written.
    """
    from pyarrow import RecordBatch
    from pyarrow.parquet import ParquetWriter

    schema = _schema(kind)
    target = folder / f"{name}.parquet"
    staged = target.with_name(target.name + ".new")
    count = 0

    def lines(writer: Any) -> Iterator[bytes]:
        nonlocal count
        for batch in _batched(rows, PARQUET_ROWS):
            shown = [row.model_dump(mode="json") for row in batch]
            writer.write_batch(RecordBatch.from_pylist(shown, schema=schema))
            yield from (json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in shown)
            count += len(batch)
        writer.close()  # here, so that a disk that is full at its end leaves neither file

    try:
        with ParquetWriter(staged, schema) as writer:
            write_whole(folder / f"{name}.jsonl", lines(writer))
        staged.replace(target)
    except OSError as error:
        raise OutputError(f"{folder}: {error.strerror or error}") from error
    finally:
        staged.unlink(missing_ok=True)
    return count


def _batched(rows: Iterable[Record], size: int) -> Iterator[list[Record]]:
    source = iter(rows)
    while batch := list(islice(source, size)):
        yield batch


def _schema(kind: type[Record]) -> Any:
    import pyarrow

    return pyarrow.schema([(name, _type(field.annotation)) for name, field in kind.model_fields.items()])


def _type(annotation: Any) -> Any:
    """The Arrow type of a record's field."""
    import pyarrow

    if get_origin(annotation) is Annotated:
        return _type(get_args(annotation)[0])
    if get_origin(annotation) is Literal:
        return _type(type(get_args(annotation)[0]))
    arguments = [part for part in get_args(annotation) if part not in (type(None), ...)]
    if get_origin(annotation) is tuple:
        return pyarrow.list_(_type(arguments[0]))
    if arguments:  # X | None
        return _type(arguments[0])
    if issubclass(annotation, Record):
        return pyarrow.struct([(name, _type(field.annotation)) for name, field in annotation.model_fields.items()])
    if issubclass(annotation, str):
        return pyarrow.string()
    return {bool: pyarrow.bool_(), int: pyarrow.int64(), float: pyarrow.float64()}[annotation]


def card(title: str, data_files: str, sections: Sequence[tuple[str, Iterable[str]]]) -> Iterator[bytes]:
    """A dataset card: the front matter that the hub and `datasets.load_dataset` read, then the sections."""
    yield f"---\nconfigs:\n- config_name: default\n  data_files: {data_files}\n---\n\n# {title}\n".encode()
    for heading, lines in sections:
        yield f"\n## {heading}\n\n".encode()
        for line in lines:
            yield line.encode() + b"\n"


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterator[str]:
    """A table in Markdown."""
    yield "| " + " | ".join(header) + " |"
    yield "|" + "---|" * len(header)
    for row in rows:
        yield "| " + " | ".join(map(str, row)) + " |"


def counts(title: str, counter: Counter[str]) -> Iterator[str]:
    """A counter as a table, the most frequent first."""
    yield from table((title, "count"), counter.most_common())
