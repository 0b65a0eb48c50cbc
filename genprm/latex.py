"""LaTeX that says the same in other clothes."""

from __future__ import annotations

import re

_SIZE = re.compile(r"\\(?:left|right)(?![A-Za-z])|\\!")
_FRACTION = re.compile(r"\\[dt]?frac(?![A-Za-z])")
_DIGITS = re.compile(r"\\frac\s*(\d)\s*(\d)")


def undressed(latex: str) -> str:
    """Formulas without what only changes their looks: brackets and fractions of other sizes, spaces that are none."""
    return _DIGITS.sub(r"\\frac{\1}{\2}", _FRACTION.sub(r"\\frac", _SIZE.sub("", latex)))
