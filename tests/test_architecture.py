"""The shape of the house: who imports whom, what an import costs, what is public, what is in the wheel."""

from __future__ import annotations

import ast
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import genprm
import rationale_synth
import sandbox

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("sandbox", "genprm", "rationale_synth")
MAY_IMPORT = {"sandbox": set(), "genprm": {"sandbox"}, "rationale_synth": {"sandbox", "genprm"}}
COMMANDS = "genprm/cli/main.py"
"""Where the command line is put together from all packages."""
GUEST_LIBRARIES = {"sandbox"}
HEAVY = ("torch", "transformers", "vllm", "docker", "peft", "ray", "numpy", "jinja2", "pygments", "rich")


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("package", PACKAGES)
def test_import_directions(package: str):
    for path in (ROOT / package).rglob("*.py"):
        ours = imports(path) & set(PACKAGES) - {package}
        if path == ROOT / COMMANDS:
            ours -= {"rationale_synth"}
        assert ours <= MAY_IMPORT[package], path


def test_the_guest_needs_the_standard_library_only():
    for path in (ROOT / "sandbox" / "guest").glob("*.py"):
        foreign = {name for name in imports(path) if name not in sys.stdlib_module_names}
        assert foreign <= GUEST_LIBRARIES, path


@pytest.mark.parametrize("package", PACKAGES)
def test_importing_pulls_in_nothing_heavy(package: str):
    code = f"import sys, {package}\nprint([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[]\n"


def test_importing_works_without_the_heavy_libraries():
    code = f"import sys\nfor name in {HEAVY!r}: sys.modules[name] = None\nimport genprm, sandbox\nprint('ok')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "ok\n"


@pytest.mark.parametrize("package", [genprm, rationale_synth, sandbox])
def test_what_is_public_is_there_and_sorted(package):
    assert sorted(package.__all__) == package.__all__
    for name in package.__all__:
        assert getattr(package, name).__doc__


def test_exceptions_live_in_errors_modules():
    internal = {
        "WallTimeError",
        "BadMessage",
        "OutputLimit",
        "ProtocolError",
        "MuxError",
        "Obstacle",
    }  # never leave the engine, or the guest
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ClassDef) and any(
                    isinstance(base, ast.Name) and base.id.endswith(("Error", "Exception")) for base in node.bases
                ):
                    assert path.name == "errors.py" or node.name in internal, (path, node.name)


def test_every_module_says_what_it_holds():
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            assert ast.get_docstring(ast.parse(path.read_text())), path


def test_the_wheel(tmp_path: Path):
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    [wheel] = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == set(PACKAGES)
    for needed in (
        "sandbox/Dockerfile",
        "genprm/templates/report.html",
        "genprm/viewer/static/katex/katex.min.js",
        "genprm/viewer/static/katex/LICENSE",
        "genprm/viewer/templates/row.html",
        "genprm/demo/problems.jsonl",
        "genprm/py.typed",
        "genprm/adapters/verifier/adapter_model.safetensors",
        "rationale_synth/worked_problems.jsonl",
    ):
        assert needed in names
