"""Which policy a labelling job asks: a model, or one with known step values."""

from __future__ import annotations

from pydantic import Field

from genprm.models.base import ModelBackend
from genprm.options import ModelOptions
from genprm.records import Record
from rationale_synth.simulate import SimulatedPolicy, Strength


class PolicySpec(Record):
    """Which policy to open, wherever that is."""

    model: ModelOptions
    simulated: Strength | None = None
    """A policy with known step values instead of a model; needs the answers."""
    answers: dict[str, str] = Field(default_factory=dict)
    """Of the problems' texts, for a simulated policy."""

    async def open(self) -> ModelBackend:
        """Load or reach the policy.

        Raises:
            ModelError: it cannot be had.
        """
        if self.simulated is not None:
            return SimulatedPolicy(self.answers.get, self.simulated)
        return await self.model.make_model()
