"""The label job on a Ray cluster: Ray Data hands the problems to actors, each with a model of its own.

What an actor finds out about a problem depends on the problem alone, so that the records are those of a run on one
machine, whichever actor found them. They come back to the process that holds the run's folder. A node that dies takes
the problems along that were under way on it; Ray gives them to another actor.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

from genprm.errors import ConfigError
from genprm.models.base import ModelBackend
from rationale_synth.answers import AnswerChecker
from rationale_synth.jobs import LabelProgress, input_rows
from rationale_synth.label import LabelOptions, label_problem
from rationale_synth.memory import Memory
from rationale_synth.policy import Policy, PolicySpec
from rationale_synth.records import Outcome, Problem, parse_record
from rationale_synth.run_folder import RunFolder

BATCH = 16
"""Problems that an actor works on at once; what a dying node takes along."""


class LabelActor:
    """Labels batches of problems with a model of its own. What Ray Data makes of it lives in a worker process."""

    def __init__(self, spec: dict[str, Any], options: dict[str, Any]) -> None:
        self._options = LabelOptions.model_validate(options)
        self._spec = PolicySpec.model_validate(spec)
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="label", daemon=True).start()
        self._model: ModelBackend = self._call(self._spec.open())
        self._policy = Policy(self._model, self._options.sampling)
        self._checker = AnswerChecker()

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        """Take columns ``index`` and ``problem``, give columns ``index`` and ``record``, both as JSON."""
        records = self._call(self._label(list(zip(map(int, batch["index"]), batch["problem"], strict=True))))
        return {"index": [int(index) for index in batch["index"]], "record": records}

    async def _label(self, rows: list[tuple[int, str]]) -> list[str]:
        found = await asyncio.gather(*(self._one(index, Problem.model_validate_json(text)) for index, text in rows))
        return list(found)

    async def _one(self, index: int, problem: Problem) -> str:
        record = await label_problem(index, problem, self._policy, self._checker, self._options, Memory())
        return record.model_dump_json()

    def _call(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


def run_label_on_ray(
    run: RunFolder, spec: PolicySpec, options: LabelOptions, *, address: str | None = None, actors: int = 2
) -> Counter[Outcome]:
    """Label what is pending in a run on a Ray cluster; returns what became of it.

    Args:
        run: the run's folder, on the machine that this is called on.
        spec: the policy; every actor opens it for itself.
        options: as for a run on one machine.
        address: the cluster's, as `ray.init` takes it; None starts one on this machine.
        actors: how many.

    Raises:
        ConfigError: Ray is not installed, or no cluster answers.
        OutputError: the folder cannot be written any more. What is in it stays good.
    """
    try:
        import ray
    except ImportError as error:
        raise ConfigError("--engine ray needs the extra 'ray': pip install 'genprm[ray]'") from error
    ours = not ray.is_initialized()
    if ours:
        try:
            ray.init(address=address, log_to_driver=False, include_dashboard=False, logging_level="error")
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise ConfigError(f"--ray-address {address}: {str(error).splitlines()[0]}") from error
    try:
        return _run(ray, run, spec, options, actors)
    finally:
        if ours:
            ray.shutdown()


def _run(ray: Any, run: RunFolder, spec: PolicySpec, options: LabelOptions, actors: int) -> Counter[Outcome]:
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False
    rows = list(_rows(run))
    # The problems stay with the process that started the job: a node that dies holds none of the only copies.
    source = ray.data.from_items(rows, override_num_blocks=max(1, -(-len(rows) // BATCH)))
    arguments = {"spec": spec.model_dump(mode="json"), "options": options.model_dump(mode="json")}
    labelled = source.map_batches(
        LabelActor, fn_constructor_kwargs=arguments, batch_size=BATCH, concurrency=actors, num_cpus=1
    )
    progress = LabelProgress(run)
    with progress.shown():
        for row in labelled.iter_rows():
            record = parse_record(row["record"])
            run.add(int(row["index"]), record, failed=progress.add(record))
    return progress.outcomes


def _rows(run: RunFolder) -> Iterator[dict[str, Any]]:
    for index, problem in input_rows(run, Problem, run.pending()):
        yield {"index": index, "problem": problem.model_dump_json()}
