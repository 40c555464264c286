"""An X server without a screen, for what needs a display."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

__all__ = ["lacks_display", "open_display"]


def lacks_display() -> str | None:
    """Why there is no display, nor can one be opened; None if there is, or can."""
    if sys.platform != "linux" or "DISPLAY" in os.environ or shutil.which("Xvfb"):
        return None
    return "neither DISPLAY is set nor Xvfb installed"


def open_display() -> None:
    """For the rest of the process, if there is none. It ends when its last client has gone."""
    if sys.platform != "linux" or "DISPLAY" in os.environ:
        return
    reader, writer = os.pipe()
    # In a session of its own, so that Ctrl-C is not for it: its client would die of its end.
    subprocess.Popen(
        ["Xvfb", "-displayfd", str(writer), "-nolisten", "tcp", "-terminate"],
        pass_fds=[writer],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ).returncode = 0  # nobody waits for it, nor is to be warned of that
    os.close(writer)
    with open(reader, encoding="ascii") as line:
        os.environ["DISPLAY"] = f":{line.readline().strip()}"
