import sys

from tao import Context, MessageRegistry, Server, WriteCloser
from tao.address import format_address, parse_address
from tao.examples.echo import EchoMessage

registry: MessageRegistry = MessageRegistry()
server: Server = Server(registry=registry, max_connections_per_address=10)


@registry.handler(EchoMessage)
def who_am_i(ctx: Context[EchoMessage], conn: WriteCloser) -> EchoMessage:
    return EchoMessage(conn.name.encode())


def main() -> None:
    for text in sys.argv[1:]:
        address = parse_address(text.removeprefix("proxied:"))
        bound = server.listen(address, proxy_protocol=text.startswith("proxied:"))
        print(f"listening on {format_address(bound)}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
