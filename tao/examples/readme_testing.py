from tao import MessageRegistry
from tao.examples.echo import EchoMessage
from tao.testing import Simulation


def test_replies_come_in_order(simulation: Simulation) -> None:
    heard: list[bytes] = []
    echoes, replies = MessageRegistry(), MessageRegistry()
    echoes.register(1, EchoMessage.deserialize, lambda ctx, conn: ctx.message)
    replies.register(1, EchoMessage.deserialize, lambda ctx, conn: heard.append(ctx.message.data))
    server = simulation.server(registry=echoes)
    client = simulation.client(server, registry=replies)
    for word in (b"one", b"two", b"three"):
        client.write(EchoMessage(word))
        simulation.sleep(3600.0)  # an hour, at once
    assert heard == [b"one", b"two", b"three"]


def main() -> None:
    for seed in range(100):
        with Simulation(seed) as simulation:
            test_replies_come_in_order(simulation)
    print("a hundred seeds have passed")


if __name__ == "__main__":
    main()
