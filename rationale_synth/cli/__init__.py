"""The data factory's commands: `genprm label` and `genprm synth`."""

from rationale_synth.cli.label import label
from rationale_synth.cli.synth import synth_app

__all__ = ["label", "synth_app"]
