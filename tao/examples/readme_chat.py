import sys
from dataclasses import dataclass

from tao import (
    ConnectionClosedError,
    Context,
    MessageRegistry,
    Server,
    WouldBlockError,
    WriteCloser,
)


@dataclass(frozen=True)
class Chat:
    text: str
    message_number = 1

    def serialize(self) -> bytes:
        return self.text.encode()

    @classmethod
    def deserialize(cls, data: bytes) -> "Chat":
        return cls(data.decode())


registry: MessageRegistry = MessageRegistry()
server: Server = Server(registry=registry)


@registry.handler(Chat)
def on_chat(ctx: Context[Chat], conn: WriteCloser) -> None:
    for other in server.connections():
        if other.net_id != conn.net_id:
            try:
                other.write(ctx.message)
            except (ConnectionClosedError, WouldBlockError):
                pass  # it is leaving, or has stopped reading


def main() -> None:
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 12345
    host, port = server.listen(("127.0.0.1", port))
    print(f"listening on {host}:{port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
