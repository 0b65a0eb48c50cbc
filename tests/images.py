"""The images that the tests' sandboxes start from. One process builds what is missing; the others wait for it."""

from __future__ import annotations

import fcntl
import io

from sandbox.docker_launcher import connect_engine
from sandbox.image import build_image, has_image, image_tag

BARE = f"genprm-test-bare:{image_tag().partition(':')[2]}"
"""Ours without the libraries, whose imports are most of what starting a container takes."""


def build_missing_images() -> None:
    client = connect_engine()
    try:
        with open("/tmp/genprm-test-images.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not has_image(client):
                build_image(client, lambda _line: None)
            if not client.images.list(BARE):
                dockerfile = f"FROM {image_tag()}\nRUN pip uninstall --yes numpy scipy sympy mpmath\n"
                client.images.build(fileobj=io.BytesIO(dockerfile.encode()), tag=BARE, rm=True)
    finally:
        client.close()
