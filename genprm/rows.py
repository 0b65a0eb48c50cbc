"""Reading input rows: JSONL, a JSON array, Parquet or standard input. Wrong input is named by file, line and field."""

from __future__ import annotations

import codecs
import json
import math
import sys
from collections.abc import Iterator
from itertools import islice
from typing import Any, BinaryIO

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from genprm.errors import InputError
from genprm.records import Solution


def read_solutions(path: str, limit: int | None = None) -> list[Solution]:
    """All rows of a file (``-`` for standard input), or its first ``limit``.

    Raises:
        InputError: the file is missing, empty or broken, or a row is not as expected.
    """
    return list(iterate_solutions(path, limit))


def iterate_solutions(path: str, limit: int | None = None) -> Iterator[Solution]:
    """`read_solutions`, a row at a time."""
    count = 0
    for where, row in iterate_rows(path, limit):
        yield _solution(where, row, count)
        count += 1
    if not count:
        raise InputError(f"{_name(path)}: no rows in it")


def _name(path: str) -> str:
    return "standard input" if path == "-" else path


def iterate_rows(path: str, limit: int | None = None) -> Iterator[tuple[str, Any]]:
    """Yield where a row stands, and the row: of a JSONL file, a JSON array, a Parquet file, or ``-``.

    JSONL and Parquet are read as the rows are taken, so that a file may be larger than the memory.

    Raises:
        InputError: the file is missing or broken, or the limit lets no row through.
    """
    check_limit(limit)
    yield from islice(_rows(path), limit)


def check_limit(limit: int | None) -> None:
    """Refuse a limit that lets no row through.

    Raises:
        InputError: it is one.
    """
    if limit is not None and limit < 1:
        raise InputError(f"--limit is {limit}: expected at least 1")


def _rows(path: str) -> Iterator[tuple[str, Any]]:
    if path.endswith(".parquet"):
        yield from _parquet_rows(path)
        return
    try:
        file = sys.stdin.buffer if path == "-" else open(path, "rb")  # noqa: SIM115 - standard input stays open
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from error
    try:
        yield from _json_rows(path, file)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from error
    finally:
        if path != "-":
            file.close()


def _json_rows(path: str, file: BinaryIO) -> Iterator[tuple[str, Any]]:
    begun = False
    for number, data in enumerate(file, 1):
        text = _text(path, number, data.removeprefix(codecs.BOM_UTF8) if number == 1 else data)
        if text.lstrip().startswith("[") and not begun:
            yield from _array_rows(path, "\n" * (number - 1) + text + _text(path, number, file.read()))
            return
        begun = begun or bool(text.strip())
        if text.strip():
            try:
                yield f"{_name(path)}, line {number}", json.loads(text.rstrip())
            except (ValueError, RecursionError) as error:
                raise InputError(f"{_name(path)}, line {number}: not valid JSON: {_reason(error)}") from error


def _text(path: str, line: int, data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line += data[: error.start].count(b"\n")
        raise InputError(f"{_name(path)}, line {line}: not UTF-8 text") from error


def _array_rows(path: str, text: str) -> Iterator[tuple[str, Any]]:
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError) as error:
        line = getattr(error, "lineno", 1)
        raise InputError(f"{_name(path)}, line {line}: not valid JSON: {_reason(error)}") from error
    for number, row in enumerate(rows, 1):
        yield f"{_name(path)}, row {number}", row


def _parquet_rows(path: str) -> Iterator[tuple[str, Any]]:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise InputError(f"{path}: reading Parquet needs pyarrow: pip install 'genprm[parquet]'") from error
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            rows = (row for batch in file.iter_batches(batch_size=1024) for row in batch.to_pylist())
            for number, row in enumerate(rows, 1):
                yield f"{path}, row {number}", {name: _whole(value) for name, value in row.items()}
    except (OSError, ValueError, OverflowError) as error:  # the last is of a time that Python has not
        raise InputError(f"{path}: {str(error).splitlines()[0]}") from error


def _whole(value: Any) -> Any:
    """What pandas has made a float of, because another row has no number there."""
    if not isinstance(value, float):
        return value
    return None if math.isnan(value) else int(value) if value.is_integer() else value


def _reason(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        is_end = error.pos >= len(error.doc) and "\n" not in error.doc
        hint = " (it ends there; expected one whole object per line)" if is_end else ""
        return f"{error.msg} at column {error.colno}{hint}"
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)


def _solution(where: str, row: Any, index: int) -> Solution:
    if not isinstance(row, dict):
        raise InputError(f"{where}: expected an object with the fields problem and steps")
    if row.get("id") is None:
        row = {**row, "id": f"row-{index}"}
    if "first_error" in row and "solution" in row:
        raise InputError(f"{where}: a result of genprm verify: expected a solution, with its steps as texts")
    try:
        solution = Solution.model_validate(row)
    except ValidationError as error:
        raise field_error(where, error) from error
    if solution.label is not None and solution.label >= len(solution.steps):
        raise InputError(f"{where}, field label: {solution.label} is not the index of a step, nor -1")
    return solution


def field_error(where: str, error: ValidationError) -> InputError:
    """The first thing that is wrong with a row, in one line."""
    first = error.errors()[0]
    field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])
    place = f"{where}, field {field.removeprefix('.')}" if field else where
    return InputError(f"{place}: {reason(first)}")


_WORDS = {
    "tuple_type": "expected a list", "string_type": "expected a text", "int_type": "expected a whole number",
    "int_parsing": "expected a whole number", "dict_type": "expected an object", "model_type": "expected an object",
}  # fmt: skip


def reason(error: ErrorDetails) -> str:
    """What is wrong, in words that need no Python."""
    if error["type"] == "too_short":
        return f"expected at least {error['ctx']['min_length']}"
    if error["type"] == "missing":
        return "missing"
    text = _WORDS.get(error["type"], error["msg"].removeprefix("Value error, "))
    return text[0].lower() + text[1:]
