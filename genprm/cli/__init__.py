"""The command line: `genprm`."""

from genprm.cli.main import main

__all__ = ["main"]
