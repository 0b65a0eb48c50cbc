"""The jobs on a Ray cluster: Ray Data hands the rows to actors, each with a model and kernels of its own.

What an actor finds out about a row depends on the row alone, so that the records are those of a run on one machine,
whichever actor found them. They come back to the process that holds the run's folder. A node that dies takes the rows
along that were under way on it; Ray gives them to another actor.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator
from typing import Any, Generic, Protocol, TypeVar

from pydantic import Field

from genprm.answers import AnswerChecker
from genprm.errors import ConfigError, GenprmError, ModelUnavailableError
from genprm.options import ModelOptions, open_sandbox
from genprm.policy import Policy
from genprm.records import Problem, Record
from rationale_synth.jobs import Progress, input_rows
from rationale_synth.label import LabelOptions, label_problem
from rationale_synth.memory import Memory
from rationale_synth.policy import PolicySpec
from rationale_synth.records import LabelledSolution, ProblemRecord
from rationale_synth.run_folder import RunFolder
from rationale_synth.synthesize import Synthesizer, SynthOptions, SynthRecord
from sandbox import SandboxError

BATCH = 16
"""Rows that an actor works on at once; what a dying node takes along."""
Row = TypeVar("Row", bound=Record)
Found = TypeVar("Found", bound=Record)


class Cluster(Record):
    """Where a job runs, and how wide."""

    address: str | None = None
    """As `ray.init` takes it; None starts a cluster on this machine."""
    actors: int = Field(default=2, ge=1)


class Worker(Protocol[Row, Found]):
    """What an actor does with a row. Sent to the actors as it is, and opened there."""

    row: type[Row]
    found: type[Found]

    async def open(self) -> None:
        """Get model and kernels."""

    async def work(self, index: int, row: Row) -> Found:
        """A row's record."""


class LabelWorker:
    """Labels problems."""

    row, found = Problem, ProblemRecord

    def __init__(self, spec: PolicySpec, options: LabelOptions) -> None:
        self._spec = spec
        self._options = options

    async def open(self) -> None:
        """Open the policy."""
        self._policy = Policy(await self._spec.open(), self._options.sampling)
        self._checker = AnswerChecker(1)  # on each machine there are as many actors as it has cores

    async def work(self, index: int, row: Problem) -> ProblemRecord:
        """See `label_problem`."""
        return await label_problem(index, row, self._policy, self._checker, self._options, Memory())


class SynthWorker:
    """Writes rationales."""

    row, found = LabelledSolution, SynthRecord

    def __init__(self, model: ModelOptions, options: SynthOptions, sandbox: str | None) -> None:
        self._model = model
        self._options = options
        self._backend = sandbox

    async def open(self) -> None:
        """Start the kernels and open the model. They end with the actor's process."""
        box = None
        if self._backend is not None:
            self._opened = open_sandbox(self._backend, self._options.budget, lambda _: None)
            box = await self._opened.__aenter__()
        self._synthesizer = Synthesizer(await self._model.make_model(), box, self._options)

    async def work(self, index: int, row: LabelledSolution) -> SynthRecord:
        """See `Synthesizer.synthesize`."""
        return await self._synthesizer.synthesize(row, Memory())


class Actor(Generic[Row, Found]):
    """A worker in a process of Ray's, which calls it with batches."""

    def __init__(self, worker: Worker[Row, Found]) -> None:
        self._worker = worker
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="rows", daemon=True).start()
        self._call(worker.open())

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        """Take columns ``index`` and ``row``, give columns ``index``, ``record``, and ``error`` in place of that.

        Rows and records are JSON. What ended with an error comes last, so that the rest of the batch is written down.
        """
        indices = [int(index) for index in batch["index"]]
        rows = [self._worker.row.model_validate_json(text) for text in batch["row"]]
        done = self._call(self._work(indices, rows))
        return {name: [one[name] for one in done] for name in ("index", "record", "error")}

    async def _work(self, indices: list[int], rows: list[Row]) -> list[dict[str, Any]]:
        found = await asyncio.gather(*map(self._worker.work, indices, rows), return_exceptions=True)
        done, failed = list[dict[str, Any]](), list[dict[str, Any]]()
        for index, one in zip(indices, found, strict=True):
            if isinstance(one, GenprmError | SandboxError):
                failed.append({"index": index, "record": "", "error": str(one)})
            elif isinstance(one, BaseException):
                raise one
            else:
                done.append({"index": index, "record": one.model_dump_json(), "error": ""})
        return done + failed

    def _call(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


def run_on_ray(run: RunFolder, worker: Worker[Row, Found], cluster: Cluster, progress: Progress[Found]) -> None:
    """Do what is pending in a run on a Ray cluster.

    Args:
        run: the run's folder, on the machine that this is called on.
        worker: what every actor is to do.
        cluster: where.
        progress: is told of every record.

    Raises:
        ConfigError: Ray is not installed, or no cluster answers.
        ModelUnavailableError: there is no model any more, or no sandbox.
        OutputError: the folder cannot be written any more. What is in it stays good.
    """
    try:
        import ray
    except ImportError as error:
        raise ConfigError("--engine ray needs the extra 'ray': pip install 'genprm[ray]'") from error
    ours = not ray.is_initialized()
    if ours:
        try:
            ray.init(address=cluster.address, log_to_driver=False, include_dashboard=False, logging_level="error")
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise ConfigError(f"--ray-address {cluster.address}: {str(error).splitlines()[0]}") from error
    try:
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        ray.data.DataContext.get_current().enable_progress_bars = False
        rows = list(_pending(run, worker.row))
        # The rows stay with the process that started the job: a node that dies holds none of the only copies.
        source = ray.data.from_items(rows, override_num_blocks=max(1, -(-len(rows) // BATCH)))
        done = source.map_batches(
            Actor, fn_constructor_args=(worker,), batch_size=BATCH, concurrency=cluster.actors, num_cpus=1
        )
        for row in done.iter_rows():
            if row["error"]:
                raise ModelUnavailableError(row["error"])
            record = worker.found.model_validate_json(row["record"])
            run.add(int(row["index"]), record, failed=progress.add(record))
    finally:
        if ours:
            ray.shutdown()


def _pending(run: RunFolder, kind: type[Record]) -> Iterator[dict[str, Any]]:
    for index, row in input_rows(run, kind, run.pending()):
        yield {"index": index, "row": row.model_dump_json()}
