"""What the trainers have in common."""

from __future__ import annotations

import subprocess
import sys

PAGES = """
import resource
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
