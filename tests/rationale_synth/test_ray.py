"""The jobs on a Ray cluster of several nodes: the records of a single machine, also when a node dies."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from genprm.options import Backend, ModelOptions
from genprm.policy import Policy
from genprm.records import Problem
from rationale_synth.jobs import LabelProgress, open_label_run, run_label_job, take_input
from rationale_synth.label import LabelOptions
from rationale_synth.policy import PolicySpec
from rationale_synth.ray_engine import Cluster, LabelWorker, SynthWorker, run_on_ray
from rationale_synth.run_folder import RunFolder
from rationale_synth.simulate import SimulatedPolicy, Strength
from rationale_synth.synth_job import SynthProgress, open_synth_run, run_synth_job
from rationale_synth.synthesize import SynthOptions, SynthRecord
from rationale_synth.validate import labelled, plants, worked_solutions
from sandbox import Sandbox

pytestmark = pytest.mark.alone

PROBLEMS = [Problem(id=f"p{n}", problem=f"Problem {n}", answer=str(n)) for n in range(300)]
ANSWERS = {problem.problem: problem.answer for problem in PROBLEMS}
OPTIONS = LabelOptions(samples=8, max_samples=16, solutions=4)
SPEC = PolicySpec(model=ModelOptions(), simulated=Strength.MEDIUM, answers=ANSWERS)


@pytest.fixture
def cluster() -> Iterator[Any]:
    """A head, and three nodes that may die."""
    import ray
    from ray.cluster_utils import Cluster

    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(3):
        nodes.add_node(num_cpus=1)
    ray.init(address=nodes.address, log_to_driver=False, logging_level="error")
    try:
        nodes.wait_for_nodes(timeout=60)
        yield nodes
    finally:
        ray.shutdown()
        nodes.shutdown()


def open_run(folder: Path) -> RunFolder:
    return open_label_run(folder, OPTIONS, "simulated", take_input(PROBLEMS, folder))


@pytest.mark.timeout(600)
async def test_a_node_that_dies_loses_no_record(tmp_path: Path, cluster: Any):
    with open_run(tmp_path / "here") as run:
        await run_label_job(run, Policy(SimulatedPolicy(ANSWERS.get), OPTIONS.sampling), OPTIONS)
        expected = list(run.records())

    killed: list[int] = []

    def kill_a_node() -> None:
        shards = tmp_path / "ray" / "shards"
        deadline = time.monotonic() + 120
        while not any(shards.glob("*.journal")) and time.monotonic() < deadline:
            time.sleep(0.05)
        cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
        killed.append(len(list(run.pending())))

    with open_run(tmp_path / "ray") as run:
        killer = threading.Thread(target=kill_a_node)
        killer.start()
        run_on_ray(run, LabelWorker(SPEC, OPTIONS), Cluster(actors=3), LabelProgress(run))
        killer.join(60)
        assert killed
        assert killed[0] > 0, "the node died too late"
        assert list(run.records()) == expected
    shards = [sorted((tmp_path / name / "shards").iterdir()) for name in ("here", "ray")]
    assert [path.read_bytes() for path in shards[0]] == [path.read_bytes() for path in shards[1]]


@pytest.mark.timeout(600)
async def test_rationales_with_kernels_of_every_actors_own(tmp_path: Path, local_sandbox: Sandbox):
    solutions, _ = worked_solutions(None)
    rows = [labelled(planted) for planted in plants(solutions)][:24]
    section = "### Paragraph 1\n<analyze>\nLet us see.\n</analyze>\n<verify>\n```python\nprint(6 * 7)\n```\n"
    rules = [
        {"when": r"\[Code Output\]\n\n```\n42\n```\n$", "one_of": [f"</verify>\n\\boxed{{{n}}}" for n in (1, 2, -1)]},
        {"text": section},
    ]
    (tmp_path / "critic.json").write_text(json.dumps(rules))
    critic = ModelOptions(backend=Backend.SCRIPTED, model=str(tmp_path / "critic.json"))
    options = SynthOptions(tries=3)

    def open_run_in(folder: Path) -> RunFolder:
        return open_synth_run(folder, options, critic.label, take_input(rows, folder))

    def outcomes(run: RunFolder) -> list[list[object]]:
        records = [SynthRecord.model_validate_json(line) for _, line in run.records()]
        return [[(attempt.reason, attempt.runs, attempt.tokens) for attempt in one.attempts] for one in records]

    with open_run_in(tmp_path / "here") as run:
        await run_synth_job(run, await critic.make_model(), local_sandbox, options)
        expected = outcomes(run)
    with open_run_in(tmp_path / "ray") as run:
        run_on_ray(run, SynthWorker(critic, options, "local"), Cluster(actors=2), SynthProgress(run))
        assert outcomes(run) == expected
        assert run.done == len(rows)
    shards = [next((tmp_path / name / "shards").iterdir()).read_bytes() for name in ("here", "ray")]
    assert shards[0] == shards[1]
