"""The `tao` command, `python -m tao`: one module for each of its commands."""

from tao.cli.main import main

__all__ = ["main"]
