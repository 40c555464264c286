import os
from dataclasses import dataclass

from tao import Context, LineCodec, MessageRegistry, Server, WriteCloser


@dataclass(frozen=True)
class Line:
    text: str
    message_number = 1

    def serialize(self) -> bytes:
        return self.text.encode()

    @classmethod
    def deserialize(cls, data: bytes) -> "Line":
        return cls(data.decode())


registry: MessageRegistry = MessageRegistry()
server: Server = Server(registry=registry, codec=LineCodec())


def factors(number: int) -> list[int]:
    found, factor = [], 2
    while factor * factor <= number:
        while number % factor == 0:
            found.append(factor)
            number //= factor
        factor += 1
    return [*found, number] if number > 1 else found


@registry.handler(Line, max_size=15)
def on_line(ctx: Context[Line], conn: WriteCloser) -> Line:
    answer = " * ".join(map(str, factors(int(ctx.message.text))))
    return Line(f"process {os.getpid()}: {answer}")
