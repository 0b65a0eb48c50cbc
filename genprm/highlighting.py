"""Python in colours, for pages."""

from __future__ import annotations

import re
from typing import NamedTuple

from markupsafe import Markup
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

_CLASS = "code"
_MOST = 20_000
"""Characters that are coloured."""
_VOID = re.compile(r"\s{500}")
"""So much white space takes the lexer a time that grows with its square."""
_LIGHT = HtmlFormatter(style="xcode", cssclass=_CLASS)
_DARK = HtmlFormatter(style="github-dark", cssclass=_CLASS)


class CodeStyles(NamedTuple):
    """CSS for what `python` makes."""

    light: str
    dark: str


def python(code: str) -> Markup:
    """Code as HTML; what stands in it is escaped. Long code, and code of mere white space, has no colours."""
    if len(code) > _MOST or _VOID.search(code):
        return Markup('<div class="{}"><pre>{}</pre></div>').format(_CLASS, code)
    return Markup(highlight(code, PythonLexer(), _LIGHT))


def code_styles() -> CodeStyles:
    """The colours."""
    return CodeStyles(*(formatter.get_style_defs(f".{_CLASS}") for formatter in (_LIGHT, _DARK)))
