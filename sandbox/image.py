"""The image that containers are made from: built here, on first use, from this package's own files."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from sandbox.errors import SandboxUnavailableError
from sandbox.guest import version

if TYPE_CHECKING:
    import docker

REPOSITORY = "genprm-sandbox"
VERSION_LABEL = "genprm.sandbox.version"
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


def check_image(client: docker.DockerClient, image: str) -> None:
    """See that an image of somebody else's has this version's kernel server in it.

    Raises:
        SandboxUnavailableError: it is missing, or has none, or one of another version.
    """
    from docker.errors import ImageNotFound

    try:
        labels = client.images.get(image).labels
    except ImageNotFound as error:
        raise SandboxUnavailableError(f"there is no image {image!r} in this Docker engine") from error
    advice = f"make it FROM {image_tag()} (`genprm sandbox build` builds that)"
    if VERSION_LABEL not in labels:
        raise SandboxUnavailableError(f"image {image!r} has no kernel server: {advice}")
    if labels[VERSION_LABEL] != version():
        raise SandboxUnavailableError(
            f"image {image!r} has a kernel server of version {labels[VERSION_LABEL]}, this is {version()}: {advice}"
        )


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
        decode=True, timeout=1800, labels={VERSION_LABEL: version()},
    )  # fmt: skip
    for step in steps:
        if "error" in step:
            raise SandboxUnavailableError(f"building {tag} failed: {step['error'].strip()}")
        for line in step.get("stream", "").splitlines():
            say(line)
    return tag
