"""Echo by the framework, with handlers on its worker pool or inline on its loop."""

from typing import ClassVar, Self

from tao import Context, MessageRegistry, Server, WriteCloser
from tests.bench.peers.common import HOST, announce, peer_parser, prepare_process

MAX_CONNECTIONS = 1_000_000  # the load decides, not the framework's default


class Echo:
    """A message whose value is opaque."""

    __slots__ = ("value",)

    message_number: ClassVar[int] = 1

    def __init__(self, value: bytes) -> None:
        self.value = value

    @classmethod
    def deserialize(cls, data: bytes) -> Self:
        return cls(data)

    def serialize(self) -> bytes:
        return self.value


def on_echo(ctx: Context[Echo], conn: WriteCloser) -> Echo:
    """The handler: the message is its own reply, which is serialized and framed again."""
    return ctx.message


def main() -> None:
    parser = peer_parser("tao_server")
    parser.add_argument("--handlers", choices=("pool", "inline"), default="pool")
    options = parser.parse_args()
    prepare_process(options.cpu)

    registry = MessageRegistry()
    inline = options.handlers == "inline"
    registry.register(Echo.message_number, Echo.deserialize, on_echo, inline=inline)
    server = Server(registry=registry, max_connections=MAX_CONNECTIONS)
    address = server.listen((HOST, 0))
    announce(address[1])
    server.serve_forever()


if __name__ == "__main__":
    main()
