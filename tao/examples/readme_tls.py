import sys

import tao
from tao.examples.echo import EchoMessage

registry: tao.MessageRegistry = tao.MessageRegistry()
heartbeat: tao.Heartbeat = tao.Heartbeat(interval=10.0, timeout=30.0)


def serve(port: int, certificate_file: str, key_file: str) -> None:
    registry.register(1, EchoMessage.deserialize, lambda ctx, conn: ctx.message)
    tls = tao.load_server_tls(certificate_file, key_file)
    server = tao.Server(registry=registry, tls=tls, heartbeat=heartbeat)
    host, port = server.listen(("127.0.0.1", port))
    print(f"listening on {host}:{port}", flush=True)
    server.serve_forever()


def talk(port: int, ca_file: str) -> None:
    registry.register(1, EchoMessage.deserialize, lambda ctx, conn: print(ctx.message, flush=True))
    with tao.ClientConn(
        ("127.0.0.1", port),
        registry=registry,
        tls=tao.load_client_tls(ca_file),
        heartbeat=heartbeat,
        reconnect=tao.Backoff(first=0.5, maximum=30.0),
        offline_limit=65_536,
        on_close=lambda conn, reason: print(reason, flush=True),
    ) as client:
        for line in sys.stdin:
            client.write(EchoMessage(line.encode()))


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(int(sys.argv[2]), *sys.argv[3:])
    else:
        talk(int(sys.argv[2]), *sys.argv[3:])
