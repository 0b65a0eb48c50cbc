"""``python -m genprm.demo.backend``: print the sandbox backend that `make demo` uses on this machine."""

from __future__ import annotations

import sys

from sandbox import SandboxUnavailableError
from sandbox.docker_launcher import connect_engine


def main() -> None:
    """Prefer the container; say what its absence means."""
    try:
        connect_engine().close()
    except SandboxUnavailableError as error:
        print(
            "Running model-written code locally: it has your rights, your files and your network, and nothing protects "
            f"you from it. For real isolation: {error}".replace(", or ask for the local backend", ""),
            file=sys.stderr,
        )
        print("local")
    else:
        print("docker")


if __name__ == "__main__":
    main()
