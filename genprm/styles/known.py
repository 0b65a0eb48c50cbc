"""What the released models were trained for: another style would make them say something, but nothing that counts."""

from __future__ import annotations

import json
import re
from pathlib import Path

from genprm.styles.discriminative import PRMFormat

_TRAINED = (
    (r"GenPRM-\d", "genprm"),
    (r"ThinkPRM-\d", "thinkprm"),
    (r"StepWiser", "stepwiser"),
    (r"Math-(?:7B-)?PRM|math-shepherd|PRM-(?:Mistral|Deepseek)-Data", "discriminative"),
)
_BASELINES = {"direct": "direct", "signs": "discriminative", "head": "discriminative"}
_FORMATS = (
    (r"math-shepherd", PRMFormat.MATH_SHEPHERD),
    (r"Qwen2\.5-Math-(?:7B-)?PRM", PRMFormat.QWEN),
    (r"PRM-(?:Mistral|Deepseek)-Data", PRMFormat.RLHFLOW),
)
NEEDS_TRAINING = ("genprm", "thinkprm", "stepwiser", "direct", "discriminative")
"""Styles whose verdicts mean little from a model that was not trained for them."""


def trained_style(model: str) -> str | None:
    """The style that a released model was trained for, by its name; None if it is not one of them."""
    return next((style for pattern, style in _TRAINED if re.search(pattern, model, re.IGNORECASE)), None)


def adapter_style(adapter: str) -> str | None:
    """The style that a baseline was trained for, by the ``training.json`` that `genprm train` left beside it."""
    try:
        task = json.loads((Path(adapter) / "training.json").read_text())["task"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return _BASELINES.get(task)


def prm_format(model: str) -> PRMFormat | None:
    """The format of a released discriminative PRM, by its name."""
    return next((each for pattern, each in _FORMATS if re.search(pattern, model, re.IGNORECASE)), None)


def style_warning(model: str, style: str) -> str | None:
    """One line if a model is asked in a style that it is not known to be trained for."""
    trained = trained_style(model)
    if trained is not None and trained != style and style != "judge":
        return f"warning: {model} was trained for the style {trained}; in the style {style} its verdicts mean little"
    if trained is None and style in NEEDS_TRAINING:
        return f"warning: {model} is not known to be trained for the style {style}; a general model takes judge"
    return None
