"""The page of all commands, made from the commands themselves."""

from __future__ import annotations

from typing import Any

import click
import typer
from mkdocs.structure.files import File, Files

PAGE = "reference/commands.md"


def on_files(files: Files, config: Any) -> Files:
    """Add the page."""
    from genprm.cli.main import app

    lines = ["# Commands", ""]
    root = typer.main.get_command(app)
    _describe(root, click.Context(root, info_name="genprm"), lines)
    files.append(File.generated(config, PAGE, content="\n".join(lines)))
    return files


def _describe(command: click.Command, context: click.Context, lines: list[str]) -> None:
    if context.parent is not None:
        lines += [f"## {context.command_path}", "", _text(command.help or "").strip(), ""]
        lines += ["```", command.get_usage(context), "```", ""]
        rows = [record for each in command.get_params(context) if (record := each.get_help_record(context))]
        if rows:
            lines += ["| | |", "|---|---|", *(f"| `{_cell(name)}` | {_text(_cell(text))} |" for name, text in rows), ""]
    for name, child in getattr(command, "commands", {}).items():
        _describe(child, click.Context(child, info_name=name, parent=context), lines)


def _text(text: str) -> str:
    """Brackets as they are: they are no links."""
    return text.replace("[", "\\[")


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
