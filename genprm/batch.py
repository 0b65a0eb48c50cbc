"""One file through the verifier: the work behind `genprm verify` and `eval`. Memory does not grow with the rows."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import ExitStack, aclosing
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, TypeVar

from genprm.errors import OutputError
from genprm.journal import Journal
from genprm.options import RunOptions, open_verifier
from genprm.progress import RowProgress
from genprm.records import OutputRow, Record, Solution, Verification, parse_row

Input = TypeVar("Input", bound=Record)


class Checked(Generic[Input]):
    """Input that was read once and found good, kept in a file of its own until it is used. A context manager.

    Args:
        kind: what the rows are.
        rows: the rows.

    Raises:
        InputError: a row is wrong; raised by what ``rows`` yields.
        OutputError: the copy cannot be written.
    """

    def __init__(self, kind: type[Input], rows: Iterable[Input]) -> None:
        self.count = 0
        self._kind = kind
        self._digest = hashlib.sha256()
        self._copy = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __exit__
        try:
            for row in rows:
                line = row.model_dump_json().encode() + b"\n"
                self._copy.write(line)
                self._digest.update(line)
                self.count += 1
        except OSError as error:
            self._copy.close()
            raise OutputError(f"the copy of the input cannot be kept: {error.strerror or error}") from error
        except BaseException:
            self._copy.close()
            raise

    def __enter__(self) -> Checked[Input]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._copy.close()

    def __iter__(self) -> Iterator[Input]:
        self._copy.seek(0)
        return map(self._kind.model_validate_json, self._copy)

    def missing(self, done: Collection[int], numbers: list[int]) -> Iterator[Input]:
        """The rows that are not done; ``numbers`` gets each one's number in the input, as it is taken."""
        for number, row in enumerate(self):
            if number not in done:
                numbers.append(number)
                yield row

    def fingerprint(self, options: dict[str, Any]) -> str:
        """A hash of everything that the output depends on."""
        digest = self._digest.copy()
        digest.update(json.dumps(options, sort_keys=True, default=str).encode())
        return digest.hexdigest()


async def verify_rows(
    solutions: Checked[Solution], options: RunOptions, output: Path, say: Callable[[str], None]
) -> None:
    """Verify all ``solutions``; their rows are in ``output`` at the end, in the order of the input.

    Args:
        solutions: the input.
        options: how to verify.
        output: rows are kept beside it as they finish, so that an interrupted run can be continued.
        say: gets the lines that a user should see.

    Raises:
        GenprmError: the options, the model or the output are not usable.
        SandboxError: no code can be run.
    """
    with ExitStack() as stack:
        journal = stack.enter_context(Journal(output, solutions.fingerprint(options.fingerprint_fields()), is_verified))
        done = frozenset(journal.done)
        if done:
            say(f"{len(done)} of {solutions.count} rows are done already: going on from {journal.partial}")
        if len(done) < solutions.count:
            async with open_verifier(options, say) as verifier:
                progress = stack.enter_context(RowProgress(solutions.count, len(done)))
                numbers: list[int] = []
                async with aclosing(verifier.verify_many(solutions.missing(done, numbers))) as finished:
                    async for position, row in finished:
                        journal.add(numbers[position], row)
                        progress.add(row)
        journal.finish()


def is_verified(line: bytes) -> bool:
    """Whether a row of an output is a verification, and not a failure."""
    return isinstance(parse_row(line), Verification)


def read_results(path: Path) -> Iterator[OutputRow]:
    """The rows of a finished output, one at a time."""
    with open(path, "rb") as file:
        for line in file:
            yield parse_row(line)
