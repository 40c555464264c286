import sys

from tao import BackplaneReport, Context, MessageRegistry, RedisBackplane, Server, WriteCloser
from tao.examples.readme_chat import Chat

registry: MessageRegistry = MessageRegistry()


@registry.handler(Chat)
def on_chat(ctx: Context[Chat], conn: WriteCloser) -> None:
    assert ctx.server is not None
    ctx.server.broadcast(ctx.message)  # to the clients of all servers, the speaker's among them


def on_report(report: BackplaneReport) -> None:
    print(f"{report.event.value}: {report.detail}", file=sys.stderr, flush=True)


def main() -> None:
    port, url = int(sys.argv[1]), sys.argv[2]
    backplane = RedisBackplane(url, channel="chat", on_report=on_report)
    server = Server(registry=registry, backplane=backplane)
    host, port = server.listen(("127.0.0.1", port))
    print(f"listening on {host}:{port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
