"""An X server without a screen, for what needs a display."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

__all__ = ["lacks_display", "open_display"]

XVFB = "exec Xvfb -nolisten tcp -screen 0 320x240x24"

_servers: list[subprocess.Popen[bytes]] = []  # kept, so that the pipe stays open


def lacks_display() -> str | None:
    """Why there is no display, nor can one be opened; None if there is, or can."""
    if sys.platform != "linux" or "DISPLAY" in os.environ or shutil.which("Xvfb"):
        return None
    return "neither DISPLAY is set nor Xvfb installed"


def open_display() -> None:
    """For the rest of the process, if there is none."""
    if sys.platform != "linux" or "DISPLAY" in os.environ:
        return
    reader, writer = os.pipe()
    server = subprocess.Popen(
        ["sh", "-c", f"{XVFB} -displayfd {writer} & cat; kill $!"],
        pass_fds=[writer],
        stdin=subprocess.PIPE,  # which this process holds open, and be it killed, until its end
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # or Ctrl-C would end it before its clients
    )
    _servers.append(server)
    os.close(writer)
    with open(reader, encoding="ascii") as line:
        os.environ["DISPLAY"] = f":{line.readline().strip()}"
