import selectors
import sys

from reactor import Reactor
from tao import MessageRegistry, Server
from tao.examples.echo import EchoMessage

registry: MessageRegistry = MessageRegistry()
registry.register(1, EchoMessage.deserialize, lambda ctx, conn: ctx.message, inline=True)


def main() -> None:
    reactor = Reactor()
    server = Server(registry=registry, reactor=reactor)
    host, port = server.listen(("127.0.0.1", 0))
    print(f"listening on {host}:{port}; Enter ends it", flush=True)

    descriptor = reactor.fileno()
    assert descriptor is not None, "this system's poller has no descriptor: call run_once(0.05)"
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        selector.register(sys.stdin, selectors.EVENT_READ)  # the loop's other business
        while True:
            ready = selector.select(reactor.timeout())
            reactor.run_once(0)
            if any(key.fileobj is sys.stdin for key, _ in ready):
                break

    while not server.stop().finished:  # on the thread that drives the loop it does not wait
        reactor.run_once(0.05)
    reactor.close()


if __name__ == "__main__":
    main()
