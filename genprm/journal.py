"""Writing results so that nothing that is finished is ever lost.

While a run goes on, every finished row is appended to ``OUT.partial``, in the order in which the rows finish. At the
end the rows are put in the order of the input, in a file beside it that then takes the name ``OUT`` in one step.
A run that was interrupted, by Ctrl-C, kill -9 or a full disk, is continued by the same command: the journal begins
with a fingerprint of the input and the options, and is used only by a run that has the same.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from pydantic import BaseModel

from genprm.errors import OutputError

_BEGINNING = b'{"fingerprint": "'
_HEAD = b'{"index": %d, "row": '
_ENTRY = re.compile(rb'\{"index": (\d+), "row": ')


class Journal:
    """The growing output of one run. Of its rows only their places are kept in memory.

    Args:
        path: where the output goes in the end.
        mark: the run's `fingerprint`.
        is_finished: whether a row that an earlier run wrote is one to keep; raises ValueError if it is no row at all.

    Raises:
        OutputError: the folder does not exist, cannot be written to, or another run is writing there.
    """

    def __init__(self, path: Path, mark: str, is_finished: Callable[[bytes], bool]) -> None:
        self.path = path
        self.partial = path.with_name(path.name + ".partial")
        self.done: set[int] = set()
        """Rows that are finished. Those that an earlier run saw fail are not among them: they get another try."""
        self._is_finished = is_finished
        self._places: dict[int, tuple[int, int]] = {}
        try:
            # Unbuffered: an entry that the disk refuses must not come back when the file is closed.
            self._file = open(self.partial, "ab", buffering=0)  # noqa: SIM115 - closed by __exit__
        except OSError as error:
            raise OutputError(f"{path}: {error.strerror or error}") from error
        try:
            self._lock()
            end = self._recover(mark)
            self._file.truncate(end)
            self._end = end
            if end == 0:
                self._append(json.dumps({"fingerprint": mark}).encode() + b"\n")
        except OSError as error:
            raise OutputError(f"{self.partial}: {error.strerror or error}") from error
        except OutputError:
            self._file.close()
            raise

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.done:  # nothing to go on from, and nothing to keep a run with other options away for
            with contextlib.suppress(OSError):
                self.partial.unlink(missing_ok=True)
        self._file.close()

    def add(self, index: int, row: BaseModel) -> None:
        """Write down a finished row.

        Raises:
            OutputError: the disk is full, say. What was written before stays readable.
        """
        head = _HEAD % index
        data = row.model_dump_json().encode()
        try:
            begin = self._append(head + data + b"}\n") + len(head)
        except OSError as error:
            raise OutputError(f"{self.partial}: {error.strerror or error}") from error
        self._places[index] = (begin, len(data))
        self.done.add(index)

    def finish(self) -> None:
        """Put the output in its place, in the order of the input, and remove the journal.

        Raises:
            OutputError: it cannot be written; the journal stays.
        """
        staged = self.path.with_name(self.path.name + ".new")
        try:
            with open(staged, "wb") as file, open(self.partial, "rb") as source:
                for _, (begin, size) in sorted(self._places.items()):
                    source.seek(begin)
                    file.write(source.read(size) + b"\n")
                file.flush()
                os.fsync(file.fileno())
            staged.replace(self.path)
            self.partial.unlink()
        except OSError as error:
            staged.unlink(missing_ok=True)
            raise OutputError(f"{self.path}: {error.strerror or error}") from error

    def _append(self, entry: bytes) -> int:
        """Write a line; returns where it begins."""
        begin = self._end
        data = memoryview(entry)
        while data:
            data = data[self._file.write(data) :]
        self._end = begin + len(entry)
        return begin

    def _lock(self) -> None:
        import fcntl

        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise OutputError(f"{self.partial}: another run is writing it") from error

    def _recover(self, mark: str) -> int:
        """Read an earlier journal of the same run; returns how many of its bytes are whole entries."""
        end = 0
        with open(self.partial, "rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    if end == 0 and not (line.startswith(_BEGINNING) or _BEGINNING.startswith(line)):
                        raise OutputError(f"{self.partial}: is no journal of ours: remove it")
                    break  # cut off in the middle of a write
                try:
                    if end == 0:
                        self._check(json.loads(line)["fingerprint"], mark)
                    else:
                        self._take(line, end)
                except (ValueError, KeyError, TypeError) as error:
                    if end == 0:
                        raise OutputError(
                            f"{self.partial}: is no journal of ours, or damaged at its beginning: remove it"
                        ) from error
                    break
                end += len(line)
        return end

    def _take(self, line: bytes, begin: int) -> None:
        head = _ENTRY.match(line)
        if head is None:
            raise ValueError("no entry of a journal")
        data = line[head.end() : -2]
        if self._is_finished(data):
            self._places[int(head[1])] = (begin + head.end(), len(data))
            self.done.add(int(head[1]))

    def _check(self, found: str, mark: str) -> None:
        if found != mark:
            raise OutputError(
                f"{self.partial} holds finished rows of a run with other input or options: "
                "repeat that command, or remove the file, or choose another output"
            )
