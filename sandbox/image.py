"""The image that containers are made from: built here, on first use, from this package's own files."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from sandbox.errors import SandboxUnavailableError

if TYPE_CHECKING:
    import docker

REPOSITORY = "genprm-sandbox"
_HERE = Path(__file__).resolve().parent


def _context_files() -> Iterator[tuple[str, Path]]:
    """The build context: the same paths that a checkout has, so that compose can build from it too."""
    yield "sandbox/Dockerfile", _HERE / "Dockerfile"
    for path in sorted((_HERE / "guest").glob("*.py")):
        yield f"sandbox/guest/{path.name}", path


def image_tag() -> str:
    """``genprm-sandbox:<hash>``: a changed Dockerfile or kernel server is another image."""
    digest = hashlib.sha256()
    for name, path in _context_files():
        digest.update(name.encode() + b"\0" + path.read_bytes() + b"\0")
    return f"{REPOSITORY}:{digest.hexdigest()[:12]}"


def has_image(client: docker.DockerClient) -> bool:
    """Whether the image for this version is there."""
    from docker.errors import ImageNotFound

    try:
        client.images.get(image_tag())
    except ImageNotFound:
        return False
    return True


def build_image(client: docker.DockerClient, say: Callable[[str], None]) -> str:
    """Build the image and return its tag. ``say`` gets the build's output, line by line.

    Raises:
        SandboxUnavailableError: the build failed; the text is the engine's.
    """
    tag = image_tag()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, path in _context_files():
            archive.add(path, name)
    buffer.seek(0)
    steps = client.api.build(
        fileobj=buffer, custom_context=True, dockerfile="sandbox/Dockerfile", tag=tag, rm=True, forcerm=True,
        decode=True, timeout=1800,
    )  # fmt: skip
    for step in steps:
        if "error" in step:
            raise SandboxUnavailableError(f"building {tag} failed: {step['error'].strip()}")
        for line in step.get("stream", "").splitlines():
            say(line)
    return tag
