import sys
from dataclasses import dataclass

from tao import Context, LengthPrefixedCodec, MessageRegistry, Server, WriteCloser


@dataclass(frozen=True)
class Text:
    value: bytes
    message_number = 1

    def serialize(self) -> bytes:
        return self.value


def shout(ctx: Context[Text], conn: WriteCloser) -> Text:
    return Text(ctx.message.value.decode().upper().encode())


def main() -> None:
    registry = MessageRegistry()
    registry.register(1, Text, shout)
    server = Server(registry=registry, codec=LengthPrefixedCodec(max_length=1000))
    host, port = server.listen(("127.0.0.1", int(sys.argv[1])))
    print(f"listening on {host}:{port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
