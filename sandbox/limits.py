"""What a guest may use. Frozen, validated at construction."""

from __future__ import annotations

import os
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

SERVER_MIB = 256
"""What a container needs beside its kernels' memory: the kernel server, and room to see a kernel's limit coming."""


def _usual_container_mib(found: dict[str, Any]) -> int:
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20
    return max(min(4096, machine), int(found.get("memory_mib", 0)) + SERVER_MIB)


class Limits(BaseModel):
    """Limits of every cell and every kernel of a sandbox.

    Raises:
        pydantic.ValidationError: a limit is zero, negative or unknown, or a container is too small for a kernel.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    timeout: float = Field(default=5.0, gt=0, le=3600)
    """Seconds of wall time a cell may run. GenPRM's reference uses 5."""
    grace: float = Field(default=0.5, gt=0, le=10)
    """Seconds an interrupted cell has to stop by itself, before its kernel is killed."""
    memory_mib: int = Field(default=512, ge=32)
    """Memory of one kernel and its children, beyond what it shares with the kernel server, MiB."""
    processes: int = Field(default=32, ge=8)
    """Processes and threads of one kernel; two are the kernel's own."""
    file_mib: int = Field(default=16, ge=1)
    """The largest file a kernel may write, MiB."""
    disk_mib: int = Field(default=32, ge=1)
    """Files of one kernel, MiB. They lie in memory; a container has room for eight times as much. Docker only."""
    output_bytes: int = Field(default=65536, ge=256, le=1 << 24)
    """Text of one cell: stdout, stderr and result together, bytes of UTF-8."""
    container_memory_mib: int = Field(default_factory=_usual_container_mib, ge=512)
    """Memory of one container, kernel server and all kernels together, MiB. 4096, or what this machine has; more where
    a kernel alone may need it."""

    @model_validator(mode="after")
    def _kernel_fits(self) -> Limits:
        least = self.memory_mib + SERVER_MIB
        if self.container_memory_mib < least:  # its own limit would then be taken for everybody's
            raise ValueError(f"container_memory_mib is {self.container_memory_mib}: expected at least {least}")
        return self

    def for_kernel(self) -> dict[str, int]:
        """The limits that are enforced on the kernel's side, as the kernel server names them."""
        return {name: getattr(self, name) for name in ("memory_mib", "processes", "file_mib", "output_bytes")}
