import socket
from collections.abc import Callable

class StreamServer:
    server_port: int
    def __init__(
        self,
        listener: tuple[str, int],
        handle: Callable[[socket.socket, object], object],
        *,
        backlog: int = ...,
    ) -> None: ...
    def start(self) -> None: ...
    def stop(self) -> None: ...
    def serve_forever(self) -> None: ...
