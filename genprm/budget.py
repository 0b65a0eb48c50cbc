"""What one verification may cost. Frozen, validated at construction."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Budget(BaseModel):
    """Limits of one chain. The defaults are GenPRM's where it has one.

    Raises:
        pydantic.ValidationError: a limit is not positive, or the analysis may take more than the step.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    step_tokens: int = Field(default=2048, ge=1)
    """Tokens the model may write for one step, before its judgement is forced."""
    analysis_tokens: int = Field(default=1536, ge=1)
    """How many of them the analysis may take, so that the code gets its turn."""
    chain_tokens: int | None = Field(default=None, ge=1)
    """Tokens the model may write for the whole solution; past them every judgement that is left is forced."""
    runs: int = Field(default=3, ge=0)
    """Code runs per step, before the judgement is forced."""
    run_seconds: float = Field(default=5.0, gt=0, le=3600)
    """Wall time of one code run."""
    output_chars: int = Field(default=4000, ge=100)
    """Characters of a run's output that the model is shown; the middle of a longer one is cut out."""
    wall_seconds: float = Field(default=1800.0, gt=0)
    """Wall time of one chain."""

    @model_validator(mode="after")
    def _analysis_within_step(self) -> Budget:
        if self.analysis_tokens > self.step_tokens:
            raise ValueError(f"analysis_tokens ({self.analysis_tokens}) is more than step_tokens ({self.step_tokens})")
        return self
