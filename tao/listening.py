"""How a server listens.

Contents: ListenOptions, Listening.

Owns what `Server.listen` takes beside the address, and its check. Immutable; any thread.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypedDict

from reactor import SocketFile, System, listen
from tao.address import check_address
from tao.proxy_protocol import TrustedProxies

__all__ = ["ListenOptions", "Listening", "open_listener"]


class ListenOptions(TypedDict, total=False):
    """What `Server.listen`, `start` and `running` take beside the address.

    - `mode`: the file mode of a Unix socket, such as `0o660`; without, what the process's umask leaves.
    - `proxy_protocol`: whoever connects is a proxy, and says first for whom, by the PROXY protocol's
      version 1 or 2. That client's address is then the connection's `remote_address`, for callbacks, limits
      and logs, and where it connected to the `local_address`. A connection without such a header is ended.
    - `trusted_proxies`: addresses and networks that proxies connect from, such as `["10.0.0.0/8"]`; others
      are refused at once. Without, everybody who reaches the address is believed.
    """

    mode: int | None
    proxy_protocol: bool
    trusted_proxies: Iterable[str]


@dataclass(frozen=True, slots=True)
class Listening:
    """One address that is listened on."""

    sock: socket.socket
    file: SocketFile | None
    """That of a Unix socket which was opened here, and is to be removed with it."""
    proxies: TrustedProxies | None
    """Who may be a proxy; None: nobody is asked for a header."""

    def close(self) -> None:
        """What was opened here; a socket that came from elsewhere is left to its owner."""
        if self.file is not None:
            self.file.remove()
        self.sock.close()


def open_listener(
    address: tuple[str, int] | str | socket.socket,
    *,
    backlog: int,
    system: System,
    mode: int | None = None,
    proxy_protocol: bool = False,
    trusted_proxies: Iterable[str] = (),
) -> Listening:
    """Listen as `ListenOptions` say. Raises as `Server.listen` does."""
    trusted = TrustedProxies(trusted_proxies)
    if trusted and not proxy_protocol:
        raise ValueError(f"{trusted!r} have no meaning by themselves: pass proxy_protocol=True too")
    if isinstance(address, socket.socket):
        if mode is not None:
            raise ValueError(
                f"mode={mode!r} is for a path; use os.chmod for the file of a socket that is bound"
            )
        sock, file = address, None
    else:
        check_address(address, first_port=0)
        sock = listen(address, backlog=backlog, mode=mode, system=system)
        file = SocketFile(address) if isinstance(address, str) else None
    listening = Listening(sock, file, trusted if proxy_protocol else None)
    if trusted and sock.family == getattr(socket, "AF_UNIX", None):
        if sock is not address:
            listening.close()
        raise ValueError(
            f"{trusted!r}: who connects to a Unix socket has no address; use mode= to say who may"
        )
    return listening
