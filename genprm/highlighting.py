"""Python in colours, for pages."""

from __future__ import annotations

from typing import NamedTuple

from markupsafe import Markup
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

_CLASS = "code"
_LIGHT = HtmlFormatter(style="xcode", cssclass=_CLASS)
_DARK = HtmlFormatter(style="github-dark", cssclass=_CLASS)


class CodeStyles(NamedTuple):
    """CSS for what `python` makes."""

    light: str
    dark: str


def python(code: str) -> Markup:
    """Code as HTML; what stands in it is escaped."""
    return Markup(highlight(code, PythonLexer(), _LIGHT))


def code_styles() -> CodeStyles:
    """The colours."""
    return CodeStyles(*(formatter.get_style_defs(f".{_CLASS}") for formatter in (_LIGHT, _DARK)))
