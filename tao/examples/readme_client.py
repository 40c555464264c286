import sys

from tao import ClientConn, Context, MessageRegistry, WriteCloser
from tao.examples.readme_chat import Chat

registry: MessageRegistry = MessageRegistry()


@registry.handler(Chat)
def on_chat(ctx: Context[Chat], conn: WriteCloser) -> None:
    print(ctx.message.text, flush=True)


def main() -> None:
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 12345
    with ClientConn(("127.0.0.1", port), registry=registry) as client:
        for line in sys.stdin:
            client.write(Chat(line.rstrip("\n")))


if __name__ == "__main__":
    main()
