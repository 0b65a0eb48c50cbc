"""The data factory: problems in, code-verified training data out.

`Problem` -> `SampledSolution` (`solutions`, `rollout`) -> `LabelledSolution` (`labels`) -> `SynthRecord`
(`synthesize`, `consensus`) -> `TrainingRecord`. `jobs` and `synth_job` do it for files, in a `run_folder` that survives
anything; `ray_engine` does it on a cluster.
"""

from rationale_synth.labels import Rule, RuleName, first_error, label_steps, soft_labels
from rationale_synth.records import LabelledSolution, ProblemRecord
from rationale_synth.settle import Settling
from rationale_synth.synthesize import SynthRecord

__all__ = [
    "LabelledSolution",
    "ProblemRecord",
    "Rule",
    "RuleName",
    "Settling",
    "SynthRecord",
    "first_error",
    "label_steps",
    "soft_labels",
]
