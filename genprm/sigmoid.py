"""From a difference of log-probabilities to a probability."""

from __future__ import annotations

import math


def sigmoid(logit: float) -> float:
    """The probability with this logit; one that is far below 0 does not overflow."""
    return 1 / (1 + math.exp(min(-logit, 700.0)))
