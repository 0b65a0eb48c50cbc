"""The documentation's pages, and the blocks of commands and of Python in them."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted(page for page in (ROOT / "docs").rglob("*.md") if page.parent.name != "reference")]
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_COMMAND = re.compile(
    r"(?:\$ )?(?:[A-Z_]+=(?:\"[^\"]*\"|\S+) )*(?:genprm|make|pip|vllm|curl|jupyter|docker-compose|python) "
)


def blocks(page: Path, language: str) -> list[str]:
    """A page's blocks in a language; '' for commands."""
    return [text for found, text in _BLOCK.findall(page.read_text()) if found == language]


def commands(page: Path) -> list[str]:
    """A page's commands, in their order, without what is shown of their output."""
    lines = [line for text in blocks(page, "") for line in text.replace("\\\n", " ").splitlines()]
    found = [line.removeprefix("$ ") for line in lines if _COMMAND.match(line)]
    return [re.sub(r"\s+# .*", "", re.sub(r"\s+", " ", line)).strip() for line in found]
