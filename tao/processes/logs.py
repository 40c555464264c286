"""How the processes of a service log: lines on standard error, with the time and the process's number.

Owns the form and the names of the levels.
"""

from __future__ import annotations

import logging

__all__ = ["LEVELS", "set_up_logging"]

LEVELS = ("debug", "info", "warning", "error", "critical")

FORMAT = "%(asctime)s %(levelname)s %(process)d %(name)s: %(message)s"


def set_up_logging(level: str) -> None:
    """Log from that level on; one of LEVELS. Handlers that the program has set up already stay."""
    logging.basicConfig(level=level.upper(), format=FORMAT)
