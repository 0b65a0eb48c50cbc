"""`genprm sandbox`: build the image, run a cell, check that the walls stand."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from genprm.cli import shared
from genprm.cli.shared import say
from sandbox import Limits, RunResult, Sandbox

app = typer.Typer(no_args_is_help=True, help="Isolated kernels for untrusted code.")
BackendName = Annotated[str, typer.Option("--backend", help="docker, local or unix:DIRECTORY.")]


@app.command()
def build() -> None:
    """Build the image that containers are made from."""

    async def work() -> None:
        import asyncio

        from sandbox.docker_launcher import connect_engine
        from sandbox.image import build_image

        client = connect_engine()
        tag = await asyncio.to_thread(build_image, client, print)
        print(tag)

    shared.run(work())


@app.command("run")
def run_cell(
    code: Annotated[str, typer.Argument(help="Python code, or - to read it from standard input.")],
    timeout: Annotated[float, typer.Option(help="Wall time in seconds.")] = 5.0,
    backend: BackendName = "docker",
    json: Annotated[bool, typer.Option("--json", help="Print the whole result as one JSON object.")] = False,
) -> None:
    """Run one cell in a fresh kernel. Exit status 0: it ran to its end. 1: it did not. 2: the sandbox failed."""
    text = sys.stdin.read() if code == "-" else code

    async def work() -> RunResult:
        async with _sandbox(backend, timeout) as sandbox, await sandbox.session() as session:
            return await session.run(text)

    result = shared.run(work())
    if json:
        print(result.model_dump_json())
    else:
        sys.stdout.write(result.stdout)
        sys.stderr.write(result.stderr)
        if result.result is not None:
            print(result.result)
        if result.error is not None:
            print(result.error.traceback or f"{result.error.name}: {result.error.value}", file=sys.stderr)
        if result.status.value not in ("ok", "error"):
            say(f"{result.status.value} after {result.duration:.2f} s")
    raise typer.Exit(0 if result.status.value == "ok" else 1)


@app.command()
def check(backend: BackendName = "docker") -> None:
    """Check from the inside that every wall stands. Exit status 1 if one does not."""
    from sandbox.check import Finding, check_isolation

    async def work() -> list[Finding]:
        async with _sandbox(backend, 10.0) as sandbox:
            return await check_isolation(sandbox)

    findings = shared.run(work())
    table = Table(box=None, padding=(0, 1), show_header=False)
    for finding in findings:
        table.add_row("[green]ok[/]" if finding.holds else "[bold red]NOT IN FORCE[/]", finding.wall, finding.seen)
    Console(highlight=False).print(table)
    broken = [finding.wall for finding in findings if not finding.holds]
    if broken:
        say(f"not isolated ({backend}): {', '.join(broken)}")
    raise typer.Exit(1 if broken else 0)


def _sandbox(backend: str, timeout: float) -> Sandbox:
    with shared.refusing():
        return Sandbox(backend, Limits(timeout=timeout), say=say)
