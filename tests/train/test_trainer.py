"""What the trainers have in common."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from genprm.train.base import load_for_training, open_base
from genprm.train.recipes import LoRA

PAGES = """
import ctypes
import resource
ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)  # PR_SET_THP_DISABLE: with huge pages there are few faults to count
import torch
{first}
for _ in range(20):
    torch.ones(48 << 20, dtype=torch.uint8)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
"""


def test_freed_memory_is_used_again():
    keep = "from genprm.train.trainer import keep_freed_memory as keep; keep()"
    stock, kept = (
        int(subprocess.run([sys.executable, "-c", PAGES.format(first=first)], capture_output=True, check=True).stdout)
        for first in ("import genprm.train.trainer", keep)
    )
    tensor = (48 << 20) // 4096
    assert stock - kept > 10 * tensor


@pytest.mark.parametrize("mixed", [True, False])
def test_mixed_keeps_only_what_is_trained_in_float32(tiny: Path, monkeypatch: pytest.MonkeyPatch, mixed: bool):
    import torch

    monkeypatch.setattr("genprm.train.base.in_bfloat16", bool)  # as on a CPU that has instructions for it
    model = load_for_training(open_base(str(tiny), 512), LoRA(rank=4), 512, mixed=mixed)
    kinds = {
        trained: {each.dtype for each in model.parameters() if each.requires_grad is trained}
        for trained in (True, False)
    }
    assert kinds == {True: {torch.float32}, False: {torch.bfloat16 if mixed else torch.float32}}
