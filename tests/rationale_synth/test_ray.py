"""The label job on a Ray cluster of several nodes: the records of a single machine, also when a node dies."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from genprm.options import ModelOptions
from rationale_synth.jobs import open_label_run, run_label_job, take_input
from rationale_synth.label import LabelOptions
from rationale_synth.policy import Policy, PolicySpec
from rationale_synth.ray_engine import run_label_on_ray
from rationale_synth.records import Problem
from rationale_synth.run_folder import RunFolder
from rationale_synth.simulate import SimulatedPolicy, Strength

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
        run_label_on_ray(run, SPEC, OPTIONS, actors=3)
        killer.join(60)
        assert killed
        assert killed[0] > 0, "the node died too late"
        assert list(run.records()) == expected
    shards = [sorted((tmp_path / name / "shards").iterdir()) for name in ("here", "ray")]
    assert [path.read_bytes() for path in shards[0]] == [path.read_bytes() for path in shards[1]]
