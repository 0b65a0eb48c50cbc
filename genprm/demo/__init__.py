"""Problems of our own with step-by-step solutions: half of them right, half with one planted first error.

Every planted error is of another kind (field ``error``), and what follows it is consistent with it.
"""

from importlib import resources
from pathlib import Path


def demo_path() -> Path:
    """The file with the problems, as JSONL rows that `genprm verify` takes."""
    return Path(str(resources.files("genprm.demo").joinpath("problems.jsonl")))
