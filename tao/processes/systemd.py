"""What systemd agrees upon with a service: readiness, a watchdog, and sockets that are open already.

Contents: Notifier, Activation.

Owns the reading of its environment variables, which are taken out so that no other process believes that
they are meant for it. One thread. Sources: sd_notify(3), sd_watchdog_enabled(3), sd_listen_fds(3).
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import MutableMapping
from dataclasses import dataclass

__all__ = ["Activation", "Notifier"]

logger: logging.Logger = logging.getLogger("tao")

FIRST_DESCRIPTOR = 3
"""Where the sockets begin: SD_LISTEN_FDS_START."""


class Notifier:
    """Tells systemd, or whoever has set NOTIFY_SOCKET, how the service is; without one, nobody."""

    def __init__(self, environment: MutableMapping[str, str]) -> None:
        address = environment.pop("NOTIFY_SOCKET", "")
        microseconds = environment.pop("WATCHDOG_USEC", "")
        for_process = environment.pop("WATCHDOG_PID", "")
        self._socket: socket.socket | None = None
        self.watchdog: float | None = None
        """Seconds of silence after which systemd ends the service; None for no such limit."""
        if not address:
            return
        if address[0] not in "/@":
            logger.warning("NOTIFY_SOCKET=%s is of no kind that is known here: not used", address)
            return
        if address[0] == "@":
            address = "\0" + address[1:]  # Linux's abstract namespace
        self._address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        if microseconds.isdecimal() and for_process in ("", str(os.getpid())):
            self.watchdog = int(microseconds) / 1e6 or None

    def ready(self, status: str) -> None:
        """The service serves; again at the end of a reload."""
        self._send(f"READY=1\nSTATUS={status}")

    def reloading(self) -> None:
        """A reload has begun: `ready` will follow."""
        microseconds = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send(f"RELOADING=1\nMONOTONIC_USEC={microseconds}\nSTATUS=reloading")

    def stopping(self) -> None:
        """The service is about to end."""
        self._send("STOPPING=1\nSTATUS=stopping")

    def status(self, text: str) -> None:
        """A line for people."""
        self._send(f"STATUS={text}")

    def alive(self) -> None:
        """All is well: feeds the watchdog."""
        self._send("WATCHDOG=1")

    def _send(self, text: str) -> None:
        if self._socket is None:
            return
        try:
            self._socket.sendto(text.encode(), socket.MSG_DONTWAIT, self._address)
        except OSError as error:
            # A service that serves is worth more than one that reports.
            logger.warning("cannot tell NOTIFY_SOCKET %r: %s", text.partition("\n")[0], error)

    def close(self) -> None:
        """Say nothing any more. Twice is once."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


@dataclass(frozen=True, slots=True)
class Activation:
    """The listening sockets that the process was started with, each with the name that its unit has."""

    sockets: tuple[tuple[str, socket.socket], ...]

    @classmethod
    def take(cls, environment: MutableMapping[str, str]) -> Activation:
        """Those that LISTEN_FDS and LISTEN_PID say are this process's; to be called once.

        Raises ValueError for a descriptor that is no listening stream socket.
        """
        count = environment.pop("LISTEN_FDS", "")
        names = environment.pop("LISTEN_FDNAMES", "").split(":")
        for_process = environment.pop("LISTEN_PID", "")
        if not count.isdecimal() or for_process != str(os.getpid()):
            return cls(())  # none, or another process's
        sockets: list[tuple[str, socket.socket]] = []
        try:
            for index in range(int(count)):
                name = names[index] if index < len(names) else ""
                sockets.append((name, _listening_socket(FIRST_DESCRIPTOR + index)))
        except BaseException:
            for _, sock in sockets:
                sock.close()
            raise
        return cls(tuple(sockets))

    def named(self, name: str) -> list[socket.socket]:
        """Those with that name."""
        return [sock for each, sock in self.sockets if each == name]


def _listening_socket(descriptor: int) -> socket.socket:
    try:
        os.set_inheritable(descriptor, False)
        sock = socket.socket(fileno=descriptor)
    except OSError as error:
        raise ValueError(
            f"LISTEN_FDS speaks of descriptor {descriptor}, which must be a socket: {error.strerror}"
        ) from error
    # `type` may carry flags of the system's beside the kind.
    if sock.type != socket.SOCK_STREAM or not sock.getsockopt(
        socket.SOL_SOCKET, socket.SO_ACCEPTCONN
    ):
        sock.close()
        raise ValueError(
            f"descriptor {descriptor} of LISTEN_FDS must be a stream socket that listens: use "
            f"ListenStream= and Accept=no in its unit"
        )
    return sock
