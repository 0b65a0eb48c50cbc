"""What the commands of the pages find where they run: problems, solutions, results, and models of a few kilobytes.

The models have the names of the released ones: a folder of that name is taken before the hub is asked.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from genprm.demo import demo_path

PROBLEM = "What is 6 * 7?"
ROW = {"id": "r", "problem": PROBLEM, "steps": ["6 * 7 is 6 + 7.", "So it is 13."]}
LABELLED = (
    {**ROW, "label": 0, "generator": "g"},
    {**ROW, "id": "s", "steps": ["6 * 7 is 42.", "So it is 42."], "label": -1, "generator": "g"},
)
PROBLEMS = ({"id": "p", "problem": PROBLEM, "answer": "42"},)
WORKED = tuple(
    {"question": f"Pens cost ${n}. Tom buys {n + 3}. What does he pay?",
     "answer": f"He pays {n}*{n + 3}=$<<{n}*{n + 3}={n * (n + 3)}>>{n * (n + 3)}.\n#### {n * (n + 3)}"}
    for n in range(2, 4)
)  # fmt: skip
POOL = {
    "id": "p", "problem": PROBLEM,
    "candidates": [
        {"steps": ["42"], "answer": "42", "correct": True, "prm_step_scores": {"other": [0.9]}},
        {"steps": ["13"], "answer": "13", "correct": False, "prm_step_scores": {"other": [0.2]}},
    ],
}  # fmt: skip
MODELS = ("GenPRM/GenPRM-7B", "launch/ThinkPRM-7B", "HuggingFaceTB/SmolLM2-135M-Instruct")
FILES: dict[str, dict[str, Sequence[Mapping[str, object]]]] = {
    "README.md": {"solutions.jsonl": [ROW], "problems.jsonl": PROBLEMS, "gsm8k.jsonl": WORKED},
    "data.md": {
        "problems.jsonl": PROBLEMS,
        "gsm8k.jsonl": WORKED,
        "openai/gsm8k/main/train.jsonl": [{"question": PROBLEM, "answer": "6 * 7 is 42.\n#### 42"}],
    },
    "embedded.md": {
        **{f"{name}.jsonl": LABELLED for name in ("gsm8k", "math", "olympiadbench", "omnimath")},
        **{f"{name}.jsonl": LABELLED for name in ("processbench_dev/gsm8k", "processbench_dev/math")},
        "mr_gsm8k_dev/mr_gsm8k.jsonl": LABELLED,
    },
    "evaluate.md": {
        "pools.jsonl": [POOL],
        **{f"{name}.jsonl": LABELLED for name in ("gsm8k", "math", "olympiadbench", "omnimath")},
    },
    "label.md": {"problems.jsonl": PROBLEMS, "gsm8k.jsonl": WORKED, "heldout.jsonl": WORKED},
    "results.md": {f"processbench_dev/{name}.jsonl": LABELLED for name in ("gsm8k", "math")},
    "search.md": {"problems.jsonl": PROBLEMS},
    "train.md": {"train.jsonl": WORKED, "gsm8k_test.jsonl": [{"problem": "Another one?"}], "rows.jsonl": [ROW]},
}
RESULTS = {
    "evaluate.md": ("dev/rows.jsonl", "genprm.jsonl", "direct.jsonl", "discriminative.jsonl"),
    "serve.md": ("verified.jsonl", "one.jsonl", "other.jsonl"),
}
"""Files of verified rows that a page takes for granted."""


def make_world(page: str, folder: Path, tiny: Path, verified: Path, planted: Path) -> None:
    """Lay out a page's files.

    Args:
        page: its name.
        folder: where.
        tiny: a model.
        verified: a file of results.
        planted: a folder of training data.
    """
    if page != "label.md":  # which makes its own
        shutil.copytree(planted, folder / "DEV")
    if page == "look.md":
        (folder / "genprm/demo").mkdir(parents=True)
        shutil.copy(demo_path(), folder / "genprm/demo")
    for name, rows in FILES.get(page, {}).items():
        write_rows(folder / name, rows)
    if page == "data.md":
        (folder / "openai/gsm8k/README.md").write_text(
            "---\nconfigs:\n- config_name: main\n  data_files:\n  - split: train\n    path: main/train.jsonl\n---\n"
        )
    for name in MODELS:
        shutil.copytree(tiny, folder / name)
    for name in RESULTS.get(page, ()):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(verified, path)
    (folder / "script.py").write_text("print(6 * 7)\n")


def write_rows(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """A JSONL file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
