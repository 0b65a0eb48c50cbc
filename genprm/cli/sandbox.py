"""`genprm sandbox`: build the image, run a cell, check the walls, measure, and be a kernel for Jupyter."""

from __future__ import annotations

import json as json_module
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from genprm.cli import shared
from genprm.cli.shared import say
from genprm.errors import ConfigError, OutputError
from sandbox import Limits, RunResult, Sandbox

app = typer.Typer(no_args_is_help=True, help="Isolated kernels for untrusted code.")
BackendName = Annotated[str, typer.Option("--backend", help="docker, local or unix:DIRECTORY.")]
Isolation = Annotated[str, typer.Option(help="container: many kernels in one. kernel: one container for each.")]
Runtime = Annotated[str | None, typer.Option(help="Docker runtime; runsc is gVisor.")]
Image = Annotated[str | None, typer.Option(help="A Docker image made FROM ours.")]


@app.command()
def build() -> None:
    """Build the image that containers are made from."""

    async def work() -> None:
        from sandbox.daemon import in_daemon_thread
        from sandbox.docker_launcher import connect_engine, explained
        from sandbox.image import build_image

        client = await in_daemon_thread(connect_engine)
        print(await in_daemon_thread(explained, build_image, client, print))

    shared.run(work())


@app.command("run")
def run_cell(
    code: Annotated[str, typer.Argument(help="Python code, or - to read it from standard input.")],
    timeout: Annotated[float, typer.Option(help="Wall time in seconds.")] = 5.0,
    backend: BackendName = "docker",
    isolation: Isolation = "container",
    runtime: Runtime = None,
    image: Image = None,
    json: Annotated[bool, typer.Option("--json", help="Print the whole result as one JSON object.")] = False,
) -> None:
    """Run one cell in a fresh kernel. Exit status 0: it ran to its end. 1: it did not. 2: the sandbox failed."""
    text = sys.stdin.read() if code == "-" else code

    async def work() -> RunResult:
        make = _maker(backend, timeout, isolation, runtime, image)
        async with make(ready=0) as sandbox, await sandbox.session() as session:
            return await session.run(text)

    result = shared.run(work())
    if json:
        print(result.model_dump_json())
    else:
        shared.write_guest_text(sys.stdout, result.stdout)
        shared.write_guest_text(sys.stderr, result.stderr)
        if result.result is not None:
            shared.write_guest_text(sys.stdout, result.result + "\n")
        if result.error is not None:
            text = result.error.traceback or f"{result.error.name}: {result.error.value}"
            shared.write_guest_text(sys.stderr, text + "\n")
        if result.status.value not in ("ok", "error"):
            say(f"{result.status.value} after {result.duration:.2f} s")
    raise typer.Exit(0 if result.status.value == "ok" else 1)


@app.command()
def check(
    backend: BackendName = "docker",
    isolation: Isolation = "container",
    runtime: Runtime = None,
    image: Image = None,
) -> None:
    """Check from the inside that every wall stands. Exit status 1 if one does not."""
    from sandbox.check import Finding, check_isolation

    async def work() -> list[Finding]:
        async with _maker(backend, 10.0, isolation, runtime, image)() as sandbox:
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


@app.command()
def bench(
    backend: BackendName = "docker",
    isolation: Isolation = "container",
    runtime: Runtime = None,
    kernels: Annotated[str, typer.Option(help="At how many living kernels to measure.")] = "1,8,64,200",
    peers: Annotated[bool, typer.Option("--peers", help="Measure docker run and llm-sandbox too.")] = False,
    plot: Annotated[Path | None, typer.Option(help="Draw the growth into this PNG file.")] = None,
) -> None:
    """Measure start, round trip, throughput and memory against stock ipykernel. Prints one JSON object."""
    from sandbox.bench import run as bench_run

    with shared.refusing():
        shared.check_targets([], plot=plot)
        counts = _counts(kernels)
        make = _maker(backend, 60.0, isolation, runtime, None)
    found = shared.run(bench_run.run(make, counts, peers, say))
    if plot is not None:
        bench_run.plot(found, plot)
    print(json_module.dumps({"backend": backend, "isolation": isolation, "runtime": runtime, **found}))


@app.command("install-kernelspec")
def install_kernelspec(
    name: Annotated[str, typer.Option(help="The kernelspec's name, as in `jupyter run --kernel NAME`.")] = "genprm",
    backend: BackendName = "docker",
    isolation: Isolation = "container",
    runtime: Runtime = None,
    image: Image = None,
    memory_mib: Annotated[int, typer.Option(min=32, help="Memory of a notebook's kernel, MiB.")] = 2048,
    prefix: Annotated[Path | None, typer.Option(help="Install below this prefix. Default: for this user.")] = None,
) -> None:
    """Let Jupyter run notebooks in isolated kernels: writes a kernelspec, and prints where."""
    from sandbox.provisioner import install_kernelspec

    _maker(backend, 5.0, isolation, runtime, image)()  # refuses what does not go together
    config = {"backend": backend, "isolation": isolation, "runtime": runtime, "image": image, "memory_mib": memory_mib}
    title = f"Python (isolated: {runtime or backend})"
    with shared.refusing():
        try:
            print(install_kernelspec(name, title, config, str(prefix) if prefix else None))
        except OSError as error:
            raise OutputError(f"{prefix or 'the kernelspec'}: {error.strerror or error}") from error


def _counts(text: str) -> list[int]:
    try:
        counts = [int(word) for word in text.split(",")]
    except ValueError:
        counts = []
    if not counts or min(counts) < 1 or max(counts) > 1000:
        raise ConfigError(f"--kernels: expected numbers from 1 to 1000 with commas between them, not {text!r}")
    return counts


def _maker(
    backend: str, timeout: float, isolation: str, runtime: str | None, image: str | None
) -> Callable[..., Sandbox]:
    """Makes sandboxes of the kind that the options describe."""
    with shared.refusing():
        limits = Limits(timeout=timeout)

    def make(**options: Any) -> Sandbox:
        with shared.refusing():
            return Sandbox(backend, limits, isolation=isolation, runtime=runtime, image=image, say=say, **options)  # type: ignore[arg-type]

    return make
