"""A kernel provisioner: nbclient, `jupyter run` and JupyterLab run notebooks in our isolated kernels.

They find it by the entry point ``genprm-sandbox`` of ``jupyter_client.kernel_provisioners``, and choose it by a
kernelspec that `install_kernelspec` (``genprm sandbox install-kernelspec``) writes.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, cast

from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.provisioning.local_provisioner import LocalProvisioner
from jupyter_client.provisioning.provisioner_base import KernelProvisionerBase
from traitlets import Int, Unicode

from sandbox.errors import SandboxUnavailableError

NAME = "genprm-sandbox"
START_DEADLINE = 600.0
"""Seconds within which a kernel must be there. The image may have to be built first."""
OUTPUT_BYTES = 1 << 24
"""Text that one cell of a notebook may print."""


class SandboxProvisioner(LocalProvisioner):
    """Starts a `sandbox.keeper`, whose life, signals and exit status stand for the kernel's."""

    backend = Unicode("docker", config=True, help="docker or local")
    isolation = Unicode("container", config=True, help="container or kernel")
    runtime = Unicode(None, allow_none=True, config=True, help="the Docker runtime; runsc is gVisor")
    image = Unicode(None, allow_none=True, config=True, help="an image made from ours")
    memory_mib = Int(2048, config=True, help="memory of the kernel, MiB")

    async def pre_launch(self, **kwargs: Any) -> dict[str, Any]:
        """The command is the keeper's, whatever the kernelspec says."""
        for name in ("extra_arguments", "transport_encryption"):
            kwargs.pop(name, None)
        limits = {"memory_mib": self.memory_mib, "output_bytes": OUTPUT_BYTES, "processes": 128, "file_mib": 64}
        options = {
            "backend": self.backend, "isolation": self.isolation, "runtime": self.runtime, "image": self.image,
            "limits": limits,
        }  # fmt: skip
        if self.backend != "docker":
            del options["isolation"]
        command = [sys.executable, "-m", "sandbox.keeper", json.dumps(options)]
        return await KernelProvisionerBase.pre_launch(self, cmd=command, **kwargs)

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> KernelConnectionInfo:
        """Start the keeper and wait for its kernel.

        Raises:
            SandboxUnavailableError: there is no way to run code; the message says what to do.
        """
        process = subprocess.Popen(
            cmd, cwd=kwargs.get("cwd"), env=kwargs.get("env"), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            start_new_session=True, text=True,
        )  # fmt: skip
        assert process.stdout
        try:
            async with asyncio.timeout(START_DEADLINE):
                line = await asyncio.to_thread(process.stdout.readline)
        except BaseException:
            process.kill()
            raise
        said = json.loads(line) if line else {"error": "its keeper ended at once"}
        if "error" in said:
            process.wait(10)
            process.stdout.close()
            raise SandboxUnavailableError(f"no isolated kernel: {said['error']}")
        self.process, self.pid, self.pgid = process, process.pid, process.pid
        said.update(key=said["key"].encode(), signature_scheme="hmac-sha256")
        self.connection_info = cast(KernelConnectionInfo, said)
        return self.connection_info

    async def cleanup(self, restart: bool = False) -> None:
        """Nothing is left: the keeper has removed what it made."""


def kernelspec(name: str, config: dict[str, Any]) -> dict[str, Any]:
    """The contents of ``kernel.json`` for kernels with these traits of `SandboxProvisioner`."""
    return {
        "argv": ["python", "-m", "sandbox.keeper"],
        "display_name": name,
        "language": "python",
        "interrupt_mode": "signal",
        "metadata": {"debugger": False, "kernel_provisioner": {"provisioner_name": NAME, "config": config}},
    }


def install_kernelspec(name: str, display_name: str, config: dict[str, Any], prefix: str | None) -> str:
    """Write a kernelspec where Jupyter looks for it: for this user, or below ``prefix``. Returns its directory."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "kernel.json").write_text(json.dumps(kernelspec(display_name, config), indent=2) + "\n")
        installed = KernelSpecManager().install_kernel_spec(folder, name, user=prefix is None, prefix=prefix)
    return str(installed)
