"""A job's folder: what makes it survive kill -9, a power cut and a full disk.

```
RUN/
  config.json       the options and the input's fingerprint, frozen when the run is made
  input.jsonl       the input rows as they were understood
  lock              held by the process that works here
  shards/00000.jsonl    the records of input rows 0 .. 255, in order, complete
  shards/00001.journal  what is known so far of a shard that is under way
```

A journal is only ever appended to. It holds finished records, and *notes*: the outcomes of single model calls, by
which a row that was under way is taken up where it was instead of from its beginning. An entry that was cut off in the
middle is dropped. What the last `SYNC_SECONDS` wrote can be lost to a power cut, and only to that; it is done again.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Literal

from pydantic import ValidationError

from genprm.errors import ConfigError, InputError, OutputError
from genprm.records import Record

CONFIG, INPUT, LOCK, SHARDS = "config.json", "input.jsonl", "lock", "shards"
SHARD_ROWS = 256
SYNC_SECONDS = 1.0
VERSION: Literal[1] = 1
Note = dict[str, Any]


class InputMark(Record):
    """Which input a run is about."""

    rows: int
    sha256: str


class RunConfig(Record):
    """``config.json``: everything that the run's records depend on."""

    version: Literal[1] = VERSION
    job: str
    options: dict[str, Any]
    input: InputMark


class RunFolder:
    """A run's folder, locked for this process.

    Args:
        path: the folder; its parent must exist.
        config: what the run is to be.

    Raises:
        OutputError: the folder cannot be written, or another process works in it.
        ConfigError: the folder holds a run of another kind, version, input or options.
    """

    def __init__(self, path: Path, config: RunConfig) -> None:
        self.path = path
        self.config = config
        self._shards = path / SHARDS
        self._journals: dict[int, BinaryIO] = {}
        self._missing: dict[int, set[int]] = {}
        self._failed: set[int] = set()
        self._notes: dict[int, Note] = {}
        with _writing(path):
            self._shards.mkdir(parents=True, exist_ok=True)
            self._lock = open(path / LOCK, "ab")  # noqa: SIM115 - held until close
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.close()
            raise OutputError(f"{path}: another process is working in this folder") from error
        try:
            self._freeze()
            self._recover()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the folder. What was added is on disk; where nothing was, nothing is left."""
        with contextlib.suppress(OSError):
            self.sync()
        for file in self._journals.values():
            file.close()
        self._journals.clear()
        with contextlib.suppress(OSError):  # nothing to go on from is nothing to keep other options away for
            self._shards.rmdir()
            for name in (CONFIG, INPUT, LOCK):
                (self.path / name).unlink(missing_ok=True)
            self.path.rmdir()
        self._lock.close()

    def pending(self) -> Iterator[int]:
        """The rows that have no record yet, in order. A failed one is pending again, in the next process."""
        for shard in range(self._shard_count):
            if shard in self._missing:
                yield from sorted(self._missing[shard])
            elif not self._shard_path(shard).exists():
                yield from self._rows_of(shard)

    @property
    def done(self) -> int:
        """How many rows have a record."""
        return self.config.input.rows - sum(1 for _ in self.pending())

    def take_notes(self, index: int) -> Note:
        """The notes that an earlier process left on a row."""
        return self._notes.pop(index, {})

    def note(self, index: int, key: str, value: Any) -> None:
        """Keep the outcome of a call, until the row's record is there.

        Raises:
            OutputError: the disk is full, say. What was written before stays readable.
        """
        self._append(index // SHARD_ROWS, {"row": index, "key": key, "value": value})

    def add(self, index: int, record: Record, *, failed: bool = False) -> None:
        """Write down a row's record.

        Raises:
            OutputError: as `note`.
        """
        shard = index // SHARD_ROWS
        self._append(shard, {"row": index, "failed": failed, "record": record.model_dump(mode="json")})
        self._missing[shard].discard(index)
        if failed:
            self._failed.add(index)
        if self._missing[shard]:
            return
        if not self._failed.intersection(self._rows_of(shard)):
            self._complete(shard)
        else:  # the next process takes it up again; of a million rows there may be thousands such
            with _writing(self.path):
                file = self._journals.pop(shard)
                os.fsync(file.fileno())
                file.close()

    def records(self) -> Iterator[tuple[int, bytes]]:
        """Every record there is, as JSON, in the order of the input."""
        for shard in range(self._shard_count):
            path = self._shard_path(shard)
            if path.exists():
                with open(path, "rb") as file:
                    yield from zip(self._rows_of(shard), file, strict=True)
            else:
                yield from sorted(self._read_journal(shard)[0].items())

    def sync(self) -> None:
        """Make what was written survive a power cut."""
        with _writing(self.path):
            for file in list(self._journals.values()):
                os.fsync(file.fileno())

    def write(self, name: str, lines: Iterator[bytes]) -> None:
        """Write a file of the folder, whole or not at all.

        Raises:
            OutputError: it cannot be written.
        """
        with _writing(self.path):
            write_whole(self.path / name, lines)

    @property
    def _shard_count(self) -> int:
        return -(-self.config.input.rows // SHARD_ROWS)

    def _rows_of(self, shard: int) -> range:
        return range(shard * SHARD_ROWS, min((shard + 1) * SHARD_ROWS, self.config.input.rows))

    def _shard_path(self, shard: int, ending: str = "jsonl") -> Path:
        return self._shards / f"{shard:05d}.{ending}"

    def _freeze(self) -> None:
        path = self.path / CONFIG
        if path.exists():
            check_same(path, read_config(self.path), self.config)
        elif any(self._shards.iterdir()):
            raise OutputError(f"{self.path}: there are shards in it, but no config.json")
        else:
            self.write(CONFIG, iter([self.config.model_dump_json(indent=2).encode() + b"\n"]))

    def _recover(self) -> None:
        with _writing(self.path):
            for path in sorted(self._shards.glob("*.journal")):
                shard = int(path.stem)
                if self._shard_path(shard).exists():
                    path.unlink()  # it was completed, and the process ended before it removed the journal
                    continue
                records, failed, notes, end = self._read_journal(shard)[:4]
                os.truncate(path, end)
                self._missing[shard] = set(self._rows_of(shard)) - (records.keys() - failed)
                self._notes.update({index: note for index, note in notes.items() if index in self._missing[shard]})
                if not self._missing[shard]:
                    self._complete(shard)

    def _append(self, shard: int, entry: dict[str, Any]) -> None:
        with _writing(self.path):
            file = self._journals.get(shard)
            if file is None:
                # Unbuffered: an entry that the disk refuses must not come back when the file is closed.
                file = self._journals[shard] = open(self._shard_path(shard, "journal"), "ab", buffering=0)  # noqa: SIM115
                self._missing.setdefault(shard, set(self._rows_of(shard)))
            start = file.tell()
            data = memoryview(json.dumps(entry, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")
            try:
                while data:
                    data = data[file.write(data) :]
            except OSError:
                file.truncate(start)
                raise

    def _read_journal(self, shard: int) -> tuple[dict[int, bytes], set[int], dict[int, Note], int]:
        """Its records, which of them are failures, the notes, and how many of its bytes are whole entries."""
        records: dict[int, bytes] = {}
        failed: set[int] = set()
        notes: dict[int, Note] = {}
        end = 0
        path = self._shard_path(shard, "journal")
        with open(path, "rb") if path.exists() else contextlib.nullcontext(()) as file:
            for line in file:
                if not line.endswith(b"\n"):
                    break  # cut off in the middle of a write
                try:
                    entry = json.loads(line)
                    index = entry["row"]
                    if "record" in entry:
                        records[index] = json.dumps(entry["record"], ensure_ascii=False).encode() + b"\n"
                        (failed.add if entry["failed"] else failed.discard)(index)
                    else:
                        notes.setdefault(index, {})[entry["key"]] = entry["value"]
                except (ValueError, KeyError, TypeError):
                    break
                end += len(line)
        return records, failed, notes, end

    def _complete(self, shard: int) -> None:
        records = self._read_journal(shard)[0]
        with _writing(self.path):
            write_whole(self._shard_path(shard), (records[index] for index in self._rows_of(shard)))
            if file := self._journals.pop(shard, None):
                file.close()
            self._shard_path(shard, "journal").unlink()
        self._missing.pop(shard, None)


def read_config(folder: Path) -> RunConfig:
    """The configuration of a run.

    Raises:
        InputError: there is no run in the folder.
        ConfigError: it is one of another version.
    """
    path = folder / CONFIG
    try:
        return RunConfig.model_validate_json(path.read_bytes())
    except OSError as error:
        raise InputError(f"{folder}: no run in it (config.json: {error.strerror or error})") from error
    except ValidationError as error:
        raise ConfigError(f"{path}: not a run of this version ({error.errors()[0]['msg']})") from error


def check_same(path: Path, found: RunConfig, wanted: RunConfig) -> None:
    """Refuse to go on with a run that is not the one asked for.

    Raises:
        ConfigError: names the first difference.
    """
    if found.job != wanted.job:
        raise ConfigError(f"{path}: a {found.job} run, not a {wanted.job} run")
    for name in sorted({*found.options, *wanted.options}):
        here, asked = found.options.get(name), wanted.options.get(name)
        if here != asked:
            raise ConfigError(f"{path}: the run there has {name} = {here!r}, not {asked!r}: choose another folder")
    if found.input != wanted.input:
        raise ConfigError(
            f"{path}: the run there is about another input ({found.input.rows} rows, not {wanted.input.rows}, "
            "or other ones): choose another folder"
        )


def write_whole(path: Path, lines: Iterator[bytes]) -> None:
    """Write a file so that it is there whole or not at all, whatever happens."""
    staged = path.with_name(path.name + ".new")
    try:
        with open(staged, "wb") as file:
            for line in lines:
                file.write(line)
            file.flush()
            os.fsync(file.fileno())
        staged.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except BaseException:
        staged.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"{path}: {error.strerror or error}") from error
