"""The ways to verify a solution, each in its own module, all returning the same records."""

from __future__ import annotations

from genprm.styles.base import Style
from genprm.styles.genprm import GenPRM

STYLES: dict[str, type[GenPRM]] = {"genprm": GenPRM}
"""Style name -> its class."""

__all__ = ["STYLES", "GenPRM", "Style"]
