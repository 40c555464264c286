"""Echo by the framework, with handlers on its worker pool or inline on its loop."""

from typing import ClassVar, Self

from tao import Context, MessageRegistry, Server, WriteCloser, load_server_tls
from tests.bench.peers.common import HOST, announce, peer_parser, prepare_process
from tests.bench.peers.frames import ECHO_TYPE, SLOW_TYPE
from tests.bench.peers.server_tls import add_tls_option
from tests.bench.peers.work import WORKS, Work, add_work_option

MAX_CONNECTIONS = 1_000_000  # the load decides, not the framework's default


class Echo:
    """A message whose value is opaque."""

    __slots__ = ("value",)

    message_number: ClassVar[int] = ECHO_TYPE

    def __init__(self, value: bytes) -> None:
        self.value = value

    @classmethod
    def deserialize(cls, data: bytes) -> Self:
        return cls(data)

    def serialize(self) -> bytes:
        return self.value


class SlowEcho(Echo):
    """The same under the other number."""

    __slots__ = ()

    message_number = SLOW_TYPE


def on_echo(ctx: Context[Echo], conn: WriteCloser) -> Echo:
    """The handler: the message is its own reply, which is serialized and framed again."""
    return ctx.message


def register(registry: MessageRegistry, kind: type[Echo], work: Work | None, inline: bool) -> None:
    """Register `kind`, with a handler that does `work`, if there is any, before it replies."""

    def on_work(ctx: Context[Echo], conn: WriteCloser) -> Echo:
        assert work is not None
        work()
        return ctx.message

    handler = on_echo if work is None else on_work
    registry.register(kind.message_number, kind.deserialize, handler, inline=inline)


def main(server_class: type[Server] = Server) -> None:
    parser = peer_parser("tao_server")
    parser.add_argument("--handlers", choices=("pool", "inline"), default="pool")
    add_work_option(parser)
    add_tls_option(parser)
    options = parser.parse_args()
    prepare_process(options.cpu)

    registry = MessageRegistry()
    works = WORKS[options.work]
    for kind in (Echo, SlowEcho):
        register(registry, kind, works.get(kind.message_number), options.handlers == "inline")
    tls = None if options.tls is None else load_server_tls(options.tls)
    server = server_class(registry=registry, max_connections=MAX_CONNECTIONS, tls=tls)
    address = server.listen((HOST, 0))
    announce(address[1])
    server.serve_forever()


if __name__ == "__main__":
    main()
