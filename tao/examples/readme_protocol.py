import struct
import sys
from dataclasses import dataclass

from tao import Context, ContextKey, MessageRegistry, Server, WriteCloser

_READING = struct.Struct("<Hd")  # a sensor's number, and what it has measured
_MEAN = struct.Struct("<Id")  # how many readings, and their mean


@dataclass(frozen=True)
class Reading:
    sensor: int
    value: float
    message_number = 10

    @classmethod
    def deserialize(cls, data: bytes) -> "Reading":
        return cls(*_READING.unpack(data))


@dataclass(frozen=True)
class Mean:
    count: int
    value: float
    message_number = 11

    def serialize(self) -> bytes:
        return _MEAN.pack(self.count, self.value)


VALUES: ContextKey[dict[int, list[float]]] = ContextKey("values of each sensor")
registry: MessageRegistry = MessageRegistry()


@registry.handler(Reading, inline=True, max_size=_READING.size)
def on_reading(ctx: Context[Reading], conn: WriteCloser) -> Mean:
    sensors = conn.context_value(VALUES) or {}
    values = sensors.setdefault(ctx.message.sensor, [])
    values.append(ctx.message.value)
    conn.set_context_value(VALUES, sensors)
    return Mean(len(values), sum(values) / len(values))


def main() -> None:
    server = Server(registry=registry)
    host, port = server.listen(("127.0.0.1", int(sys.argv[1])))
    print(f"listening on {host}:{port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
